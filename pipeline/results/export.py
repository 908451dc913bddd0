"""Every scalar of runs as one table, at full resolution: TensorBoard's own CSV is cut at 1,000 points a tag.

Long form, a row a point: run (its id), tag, step, wall_time (seconds since 1970), value. In all formats a value is the
number of fewest digits that is the same float32, which is what event files hold: 0.1, not 0.10000000149011612. What is
not a number is nan, inf and -inf in CSV and Parquet, and null in JSON, which has no word for it.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO, get_args

from pipeline.board.events import read_scalars, shortest
from pipeline.errors import PipelineError, UsageError
from pipeline.home.paths import RunPaths
from pipeline.results import output_file
from pipeline.wording import plural

Format = Literal["csv", "json", "parquet"]
Say = Callable[[str], object]

BATCH = 65536  # rows of Parquet that are in memory at a time


class Row(NamedTuple):
    run: str
    tag: str
    step: int
    wall_time: float  # seconds since 1970
    value: float


def choose_format(given: Format | None, out: Path | None) -> Format:
    """Returns what is asked for, else what the file's name says, else CSV. Raises UsageError where they disagree."""
    suffix = out.suffix.lower().removeprefix(".") if out else ""
    named: Format | None = next((known for known in get_args(Format) if known == suffix), None)
    if given and named and given != named:
        raise UsageError(f"{out}: its name says {named}, --format says {given}; change one, or leave --format out")
    if out and not (given or named):
        raise UsageError(f"{out}: the name should end in .csv, .json or .parquet, or --format say which it is")
    if given == "parquet" and not out:
        raise UsageError("parquet is not text: say with --out FILE.parquet where it goes")
    return given or named or "csv"


def export(runs: Sequence[RunPaths], kind: Format, out: Path | None, *, say: Say) -> None:
    """Writes the table to a file, or to stdout. `say` is told what a person should know.

    Raises PipelineError where the file cannot be written, or Parquet is wanted and pyarrow not installed.
    """
    num_rows = 0

    def rows() -> Iterator[Row]:
        nonlocal num_rows
        for run in runs:
            for row in rows_of(run, say=say):
                num_rows += 1
                yield row

    if out is None:
        print_text(kind, rows())
        return
    writer = _parquet_writer() if kind == "parquet" else _text_writer(kind)
    output_file.write(out, lambda file: writer(file, rows()))
    say(f"{out}: {plural(num_rows, 'row')} from {', '.join(run.root.name for run in runs)}")


def rows_of(run: RunPaths, *, say: Say) -> Iterator[Row]:
    """Yields a run's points, by tag and step."""
    curves = read_scalars(run.root, damaged=lambda line: say(f"warning: {line}"))
    if not curves:
        say(f"{run.root.name}: has no scalars yet")
    for tag, points in curves.items():
        for point in points:
            yield Row(run.root.name, tag, point.step, point.wall_time, shortest(point.value))


def print_text(kind: Format, rows: Iterator[Row]) -> None:
    try:
        write_text(sys.stdout, kind, rows)
        sys.stdout.flush()  # here a closed pipe is told as one
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PipelineError(f"stdout: cannot be written: {error.strerror}") from None


def write_text(stream: TextIO, kind: Format, rows: Iterator[Row]) -> None:
    """Writes row by row, so that a reader has the first ones at once."""
    if kind == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)
        return
    stream.write("[")
    for separator, row in zip(itertools.chain(["\n"], itertools.repeat(",\n")), rows, strict=False):
        value = row.value if math.isfinite(row.value) else None
        stream.write(separator + json.dumps({**row._asdict(), "value": value}))
    stream.write("\n]\n")


def _text_writer(kind: Format) -> Callable[[BinaryIO, Iterator[Row]], None]:
    def write(file: BinaryIO, rows: Iterator[Row]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        write_text(text, kind, rows)
        text.detach()  # flushed, and not closed with the wrapper

    return write


def _parquet_writer() -> Callable[[BinaryIO, Iterator[Row]], None]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        raise PipelineError(f"parquet needs pyarrow ({error}): pip install 'pipeline[export]'") from None
    kinds = (pa.string(), pa.string(), pa.int64(), pa.float64(), pa.float64())
    schema = pa.schema(list(zip(Row._fields, kinds, strict=True)))

    def write(file: BinaryIO, rows: Iterator[Row]) -> None:
        with parquet.ParquetWriter(file, schema) as writer:
            while batch := list(itertools.islice(rows, BATCH)):
                columns: list[Any] = list(zip(*batch, strict=True))
                writer.write_table(pa.table(columns, schema=schema))

    return write
