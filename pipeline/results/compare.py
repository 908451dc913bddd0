"""What differs between runs: in their frozen job files, and in their results. Best first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.board import tags
from pipeline.board.events import Point, shortest
from pipeline.errors import UsageError
from pipeline.home.paths import Home, RunPaths
from pipeline.results.compared_run import ComparedRun, Say, lower_is_better, read_run
from pipeline.wording import in_bits, in_words, nearest, table

LABELS = ("name", "description", "after")  # fields that change nothing in the training
MAY_BE_COMMON = ("EPOCHS", "STATE")  # columns that say little where they are the same for all
CELL_WIDTHS = (40, 24, 16, 12, 10)
MISSING = "-"

Columns = list[tuple[str, list[str]]]  # heading, and a cell a run


@dataclass(frozen=True)
class Comparison:
    """What a comparison has found.

    runs: best first, those without the metric last. differing: dotted fields of the job files, in their order.
    """

    metric: str
    runs: list[ComparedRun]
    differing: list[str]
    same: dict[str, Any]


def compare(home: Home, runs: Sequence[RunPaths], metric: str, *, say: Say) -> Comparison:
    """Reads the runs and puts them in order. Raises UsageError where none has the metric, or there is only one run."""
    if len(runs) < 2:
        raise UsageError(f"{runs[0].root.name}: that is one run, and it takes two; `pipeline show` shows one")
    read = [read_run(home, run, say=say) for run in runs]
    tags_there = {tag for run in read for tag in run.curves}
    if metric == tags.TEST_ACCURACY and metric not in tags_there and tags.VAL_ACCURACY in tags_there:
        metric = tags.VAL_ACCURACY  # of runs that have no test set, or have not come to it
    check_metric(metric, read, say=say)
    read.sort(key=lambda run: _rank(run, metric))  # stable
    fields = list(dict.fromkeys(name for run in read for name in run.fields))
    texts = {name: {as_text(run.fields.get(name, ...)) for run in read} for name in fields}
    differing = [name for name in fields if len(texts[name]) > 1]
    same = {name: read[0].fields[name] for name in fields if len(texts[name]) == 1}
    return Comparison(metric, read, [name for name in differing if name not in LABELS] or differing, same)


def as_text(value: Any) -> str:
    """Returns a value as one would write it in a job file; `...` stands for a field that is not there."""
    if value is ...:
        return MISSING
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(as_text(inner) for inner in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_text(inner)}' for key, inner in value.items())}}}"
    return str(value)


def check_metric(metric: str, runs: Sequence[ComparedRun], *, say: Say) -> None:
    """Raises UsageError where no run has it; the one that nobody asked for may be missing before the first epoch."""
    without = [run.id for run in runs if metric not in run.curves]
    if len(without) < len(runs):
        for job_id in without:
            say(f"{job_id}: has no {metric}")
        return
    known = {tag for run in runs for tag in run.curves}
    if not known or metric == tags.TEST_ACCURACY:
        say(f"no run has {metric} yet")
        return
    near = [tag for tag in known if not tag.startswith(tags.class_accuracy("")) or tag.startswith(metric[:10])]
    raise UsageError(f"{metric}: no run has such a metric{nearest(metric, near)}")


def _rank(run: ComparedRun, metric: str) -> tuple[bool, float]:
    best = run.best(metric)
    if best is None:
        return True, 0.0
    return False, best.value if lower_is_better(metric) else -best.value


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison for programs; None stands for what is not a finite number, or not there."""
    metric = comparison.metric
    return {
        "metric": metric,
        "lower_is_better": lower_is_better(metric),
        "differing": comparison.differing,
        "same": comparison.same,
        "runs": [_run_to_json(run, comparison) for run in comparison.runs],
    }


def _best_to_json(run: ComparedRun, metric: str, best: Point) -> dict[str, Any]:
    epoch = run.epoch_at(run.step_of(metric, best))
    return {"value": shortest(best.value), "step": best.step, "epoch": epoch}


def _run_to_json(run: ComparedRun, comparison: Comparison) -> dict[str, Any]:
    best = run.best(comparison.metric)
    return {
        "id": run.id,
        "state": run.state,
        "epoch": run.epoch,
        "epochs": run.epochs,
        "seconds": run.seconds,
        "best": best and _best_to_json(run, comparison.metric, best),
        "final": {tag: _finite(run.final(tag)) for tag in run.curves},
        "differing": {name: run.fields.get(name) for name in comparison.differing},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def lines(comparison: Comparison, labels: Mapping[str, str], *, width: int) -> list[str]:
    """Returns tables for people: a run a row where that fits, else a run a column, numbered where names do not fit."""
    columns = [*result_columns(comparison), *field_columns(comparison)]
    common = [f"{head.lower()} {cells[0]}" for head, cells in columns if _is_common(head, cells)]
    shown = [(head, cells) for head, cells in columns if not _is_common(head, cells) and set(cells) != {MISSING}]
    names = [labels[run.id] for run in comparison.runs]
    by_run = list(zip(*[(head, *cells) for head, cells in [("RUN", names), *shown]], strict=True))
    by_column = list(zip(*by_run, strict=True))
    found = next((table(rows) for rows in (by_run, by_column) if _width(rows) <= width), None)
    found = found or _numbered(names, shown, width)
    fields = f"{len(comparison.same)} fields of their job files"
    return [*found, "", f"the same in all: {', '.join([*common, fields])}"]


def _is_common(head: str, cells: list[str]) -> bool:
    return head in MAY_BE_COMMON and len(set(cells)) == 1


def _numbered(names: list[str], columns: Columns, width: int) -> list[str]:
    """Puts a run in a column, its cells cut as far as it takes; those that do not fit even so come below the others."""
    numbers = [f"#{number}" for number in range(1, len(names) + 1)]
    for limit in (*CELL_WIDTHS, CELL_WIDTHS[0]):
        rows = [["RUN", *numbers], *([head, *_cut_all(cells, limit)] for head, cells in columns)]
        if _width(rows) <= width:
            break
    found = table(list(zip(numbers, names, strict=True)))
    begin = 1
    while begin <= len(names):
        end = begin + 1
        while end <= len(names) and _width([[row[0], *row[begin : end + 1]] for row in rows]) <= width:
            end += 1
        found += ["", *table([[row[0], *row[begin:end]] for row in rows])]
        begin = end
    return found


def _cut_all(cells: list[str], limit: int) -> list[str]:
    """Cuts cells at the end or else at the beginning, so that what differs still does; else leaves them as they are."""
    for head, tail in ((limit - 1, 0), (0, limit - 1)):
        short = [c if len(c) <= limit else f"{c[:head]}…{c[len(c) - tail :]}" for c in cells]
        if len(set(short)) == len(set(cells)):
            return short
    return cells


def _width(rows: Sequence[Sequence[str]]) -> int:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def result_columns(comparison: Comparison) -> Columns:
    metric, runs = comparison.metric, comparison.runs
    best = [run.best(metric) for run in runs]
    others = [tag for tag in (tags.TEST_ACCURACY, tags.TEST_LOSS) if tag != metric]
    train_loss = tags.EPOCH_LOSS if any(run.curves.get(tags.EPOCH_LOSS) for run in runs) else tags.TRAIN_LOSS
    return [
        (f"BEST {metric}", [number(metric, point.value if point else None) for point in best]),
        ("AT", [_where(run, comparison.metric, point) for run, point in zip(runs, best, strict=True)]),
        ("FINAL", [number(metric, run.final(metric)) for run in runs]),
        *((tag, [number(tag, run.final(tag)) for run in runs]) for tag in others),
        *([] if train_loss == metric else [(train_loss, [number(train_loss, run.final_train_loss) for run in runs])]),
        ("SIZE", [MISSING if bits is None else in_bits(bits) for bits in (run.final(tags.MODEL_BITS) for run in runs)]),
        ("EPOCHS", [f"{run.epoch}/{run.epochs}" for run in runs]),
        ("TIME", [MISSING if run.seconds is None else in_words(run.seconds) for run in runs]),
        ("STATE", [run.state for run in runs]),
    ]


def field_columns(comparison: Comparison) -> Columns:
    texts = {name: [as_text(run.fields.get(name, ...)) for run in comparison.runs] for name in comparison.differing}
    return [
        (name, _cut_all([" ".join(text.split()) for text in cells], CELL_WIDTHS[0])) for name, cells in texts.items()
    ]


def _where(run: ComparedRun, metric: str, point: Point | None) -> str:
    if point is None:
        return MISSING
    epoch = run.epoch_at(run.step_of(metric, point))
    return f"epoch {round(epoch, 1):g}" if epoch else f"step {point.step:,}"


def number(tag: str, value: float | None) -> str:
    if value is None:
        return MISSING
    if "accuracy" in tag and math.isfinite(value):
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.4g}"
