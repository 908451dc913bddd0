"""What differs between runs: in their frozen job files, in where they ran, and in their results. Best first."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.board import tags
from pipeline.board.events import Point, shortest
from pipeline.errors import UsageError
from pipeline.home.paths import Home, RunPaths
from pipeline.results.compared_run import MISSING, ComparedRun, Say, as_text, lower_is_better, read_run
from pipeline.results.environment import PREFIX, Fields
from pipeline.wording import in_bits, in_words, nearest, plural, table

LABELS = ("name", "description", "after")  # fields that change nothing in the training
MAY_BE_COMMON = ("EPOCHS", "STATE")  # columns that say little where they are the same for all
CELL_WIDTHS = (40, 24, 16, 12, 10)

Columns = list[tuple[str, list[str]]]  # heading, and a cell a run


@dataclass(frozen=True)
class Comparison:
    """What a comparison has found.

    runs: best first, those without the metric last. differing: dotted fields of the job files, in their order, then
    those of the environments. same: fields that have one value in all runs.
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
    otherwise, alike = compare_environments(read)
    telling = [*(name for name in differing if name not in LABELS), *otherwise]
    return Comparison(metric, read, telling or differing, same | alike)


def compare_environments(runs: Sequence[ComparedRun]) -> tuple[list[str], Fields]:
    """Returns the fields that differ, and those that are the same in all.

    Where a run does not say, as one of an older version, that is no difference: a field of which only some say the
    same is neither.
    """
    names = dict.fromkeys(name for run in runs for name in run.environment)
    known = {name: [run.environment[name] for run in runs if name in run.environment] for name in names}
    differing = [name for name, values in known.items() if len(set(map(as_text, values))) > 1]
    same = {n: values[0] for n, values in known.items() if n not in differing and len(values) == len(runs)}
    return differing, same


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
        "differing": {name: None if run.value(name) is ... else run.value(name) for name in comparison.differing},
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
    same = f"the same in all: {', '.join([*common, *_same_in_words(comparison)])}"
    return [*found, "", *textwrap.wrap(same, width)]


def _same_in_words(comparison: Comparison) -> list[str]:
    """Counts the fields; where `auto` came to the same as what another job file asks for, it says to what."""
    of_files = [name for name in comparison.same if not name.startswith(PREFIX)]
    of_environments = [name for name in comparison.same if name.startswith(PREFIX)]
    asked = {name.rpartition(".")[2] for name in comparison.differing}
    resolved = [f"{n} {as_text(comparison.same[n])}" for n in of_environments if n.removeprefix(PREFIX) in asked]
    counts = [f"{plural(len(of_files), 'field')} of their job files"]
    counts += [f"{len(of_environments)} of their environments"] if of_environments else []
    return [*resolved, *counts]


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
    texts = {name: [as_text(run.value(name)) for run in comparison.runs] for name in comparison.differing}
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
