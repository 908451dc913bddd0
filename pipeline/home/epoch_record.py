"""The figures of each epoch: `runs/<id>/epochs.jsonl`, a line of JSON an epoch.

The attempt adds a line when an epoch was evaluated, before the checkpoint that follows; a later attempt that repeats
the epoch adds it again, and the last line of the latest attempt counts. A line that a kill or a full disk has cut short
is left out, and the next one begins on a line of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.home import durable
from pipeline.home.records import Record

MAX_BYTES = 64 * 1024 * 1024  # that are read: of a longer file its end


@dataclass(frozen=True)
class Line(Record):
    epoch: int
    step: int
    metrics: dict[str, float]
    attempt: int = 0  # of older versions


def append(path: Path, *, epoch: int, step: int, metrics: Mapping[str, float], attempt: int = 0) -> None:
    """Adds an epoch, not fsynced; what is not finite is left out. Raises OSError, also where it is no plain file."""
    finite = {tag: value for tag, value in metrics.items() if math.isfinite(value)}
    line = (
        durable.to_json({"epoch": epoch, "step": step, "metrics": finite} | ({"attempt": attempt} if attempt else {}))
        + b"\n"
    )
    durable.ask_first()
    fd = durable.open_plain(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        while line:  # at once, but on a disk that fills up: its error comes with the next write
            line = line[os.write(fd, line) :]
    finally:
        os.close(fd)


def read(path: Path) -> dict[int, dict[str, float]]:
    """Returns the figures of each epoch by its number, ascending; none where there is no plain file. Raises OSError."""
    try:
        fd = durable.open_plain(path)
    except (FileNotFoundError, NotADirectoryError, durable.NotAPlainFileError):
        return {}
    with os.fdopen(fd, "rb") as file:
        file.seek(max(0, os.fstat(fd).st_size - MAX_BYTES))
        content = file.read(MAX_BYTES)
    found: dict[int, Line] = {}
    for text in content.split(b"\n"):
        if (line := _parse(text)) and not (line.epoch in found and found[line.epoch].attempt > line.attempt):
            found[line.epoch] = line
    return {epoch: line.metrics for epoch, line in sorted(found.items())}


def _parse(text: bytes) -> Line | None:
    """Returns None of what is no line of ours."""
    try:
        value = durable.parse_json(text)
    except (ValueError, RecursionError):
        return None
    line = Line.from_json(value) if isinstance(value, dict) else None
    return line if line and line.epoch >= 1 and all(map(math.isfinite, line.metrics.values())) else None
