"""A run, or a sweep, as one page for people: an HTML file that needs nothing but itself, written whole or not at all.

    python -m pipeline.results.report HOME ID

writes `runs/<id>/report.html`, at a low priority: so a worker has it done when a job has ended. Nothing here
loads torch. What a run lacks, or what is damaged in it, the page says; no state of a run is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.board import events, tags
from pipeline.board.conditions import describe_conditions, object_at
from pipeline.errors import PipelineError
from pipeline.home.evaluation_record import EvaluationRecord
from pipeline.home.paths import Home, RunPaths
from pipeline.results import output_file, report_charts, report_classes, report_facts, report_page, runs, sweep_report
from pipeline.results.report_facts import RunFacts
from pipeline.results.report_page import percent
from pipeline.wording import against_fp32, in_bits

NICENESS = 5
MAX_IMAGES_CHARS = 600_000
OLD_TEMPORARY_S = 3600
LONG_NAME = 4  # letters that fit above a column of counts

Curves = Mapping[str, Sequence[events.Point]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.results.report")
    parser.add_argument("home", type=Path)
    parser.add_argument("id")
    arguments = parser.parse_args()
    os.nice(NICENESS)
    home = Home(arguments.home)
    try:
        write(home, home.run(arguments.id))
    except PipelineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def write(home: Home, run: RunPaths, out: Path | None = None) -> Path:
    """Writes the page of a run, and returns its path; by default it lies in the run.

    Raises UsageError where `out` can be no file, PipelineError where it cannot be written.
    """
    path = run.report if out is None else output_file.follow(out)
    output_file.check(path, remedy="remove it" if out is None else "")
    try:
        page = render(home, run, is_beside=out is None)
    except OSError as error:
        raise PipelineError(f"{error.filename or run.root}: cannot be read: {error.strerror}") from None
    if out is None:
        remove_old_temporaries(path)
    try:
        output_file.write(path, lambda file: file.write(page.encode(errors="backslashreplace")))
    except PipelineError as error:
        hint = "; --out names another place" if out is None else ""
        raise PipelineError(f"{error}{hint}") from None
    return path


def remove_old_temporaries(path: Path) -> None:
    """Removes what writers of the page that were killed have left beside it."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):  # a folder, or gone meanwhile
            if time.time() - temporary.lstat().st_mtime > OLD_TEMPORARY_S:
                temporary.unlink()


def render(home: Home, run: RunPaths, *, is_beside: bool = True) -> str:
    """is_beside: whether the page will lie in the run's folder, from where other runs can be linked to."""
    if runs.is_sweep(run):
        return sweep_report.render(home, run, is_beside=is_beside)
    job, notes = report_facts.read(home, run), list[str]()
    curves, evaluated = _curves(run, notes), _evaluated(run, notes)
    if not job.spec and job.spec_text:
        notes.append("spec.yaml is damaged, so some of the conditions are missing.")
    return report_page.render(
        "report.html.jinja",
        job,
        run,
        notes=notes,
        headline=headline(job, curves, evaluated),
        charts=report_charts.charts(curves, job.epoch_of),
        is_smoothed=bool(object_at(job.spec, "train").get("label_smoothing")),
        no_curves=_why_no_curves(job, run),
        no_evaluation=_why_no_evaluation(job),
        conditions=describe_conditions(job.spec, job.manifest),
        environments=report_facts.environments(job),
        **_classes(evaluated),
    )


def _curves(run: RunPaths, notes: list[str]) -> Curves:
    try:
        return events.read_scalars(run.root, damaged=lambda line: notes.append(f"A curve is incomplete: {line}."))
    except PipelineError as error:
        notes.append(f"The curves cannot be read: {error}.")
        return {}


def _evaluated(run: RunPaths, notes: list[str]) -> EvaluationRecord | None:
    evaluated = None
    with contextlib.suppress(OSError):
        evaluated = EvaluationRecord.read(run.evaluation)
    if evaluated is None:
        if os.path.lexists(run.evaluation):
            notes.append("evaluation.json is damaged, so the figures of the classes are missing.")
        return None
    problem = report_classes.problem(evaluated)
    if problem:
        notes.append(f"evaluation.json is damaged, so the figures of the classes are missing: {problem}.")
        return None
    return evaluated


def headline(job: RunFacts, curves: Curves, evaluated: EvaluationRecord | None) -> list[tuple[str, str, str]]:
    """Returns the figures that people look for first: a label, the figure, and what belongs to it."""
    metrics = job.metrics
    rows = [*_held_out_headline(job, curves, evaluated)]
    rows += _training_headline(metrics)
    early = ", stopped early" if job.state == "succeeded" and job.epoch < job.epochs else ""
    rows.append(("Epochs", f"{job.epoch:,}", f"of {job.epochs:,}{early}" if job.epochs else ""))
    rows.append(("Steps", f"{job.step:,}", f"of {job.steps:,}" if job.steps else ""))
    if tags.MODEL_BITS in metrics and tags.MODEL_BITS_IN_FP32 in metrics:
        bits, bits_in_fp32 = metrics[tags.MODEL_BITS], metrics[tags.MODEL_BITS_IN_FP32]
        rows.append(("Size", in_bits(bits), against_fp32(bits, bits_in_fp32)))
    rates = [point.value for point in curves.get(tags.IMAGES_PER_SECOND, []) if math.isfinite(point.value)]
    if rates:
        rows.append(("Throughput", f"{statistics.median(rates):,.0f}", "images a second, median"))
    return rows


def _held_out_headline(
    job: RunFacts, curves: Curves, evaluated: EvaluationRecord | None
) -> Iterator[tuple[str, str, str]]:
    """Of the images that each epoch is judged by; and of the test set, where it was looked at once, at the end."""
    metrics = job.metrics
    name = "val" if tags.VAL_ACCURACY in metrics or curves.get(tags.VAL_ACCURACY) else "test"
    loss_tag, accuracy_tag, best_tag = tags.HELD_OUT[name]
    if name == "val" and tags.TEST_ACCURACY in metrics:
        yield "Test accuracy", percent(metrics[tags.TEST_ACCURACY]), "of the best epoch by val"
    accuracy = metrics.get(accuracy_tag, evaluated.accuracy if evaluated else None)
    loss = metrics.get(loss_tag, evaluated.loss if evaluated else None)
    if accuracy is not None:
        yield f"{name.capitalize()} accuracy", percent(accuracy), "latest"
    told = [point for point in curves.get(accuracy_tag, []) if math.isfinite(point.value)]
    chosen = "chosen on the test set" if name == "test" else ""
    if told:
        best = max(told, key=lambda point: point.value)
        where = job.epoch_of(best.step).strip(" ()")
        yield f"Best {name} accuracy", percent(best.value), ", ".join(filter(None, (where, chosen)))
    elif best_tag in metrics:
        yield f"Best {name} accuracy", percent(metrics[best_tag]), chosen
    if tags.TOP5[name] in metrics:
        yield f"{name.capitalize()} top-5 accuracy", percent(metrics[tags.TOP5[name]]), "latest"
    if loss is not None:
        yield f"{name.capitalize()} loss", f"{loss:.4f}", "latest"


def _training_headline(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Returns loss and accuracy of the latest epoch as it was trained on; of a run of before, of its last steps."""
    is_known = tags.EPOCH_LOSS in metrics
    names = (tags.EPOCH_ACCURACY, tags.EPOCH_LOSS) if is_known else (tags.TRAIN_ACCURACY, tags.TRAIN_LOSS)
    accuracy, loss = (metrics.get(name) for name in names)
    what = "mean of the latest epoch" if is_known else "mean of the latest steps"
    rows = [] if accuracy is None else [("Train accuracy", percent(accuracy), what)]
    return rows if loss is None else [*rows, ("Train loss", f"{loss:.4f}", what)]


def _why_no_curves(job: RunFacts, run: RunPaths) -> str:
    if run.events():
        return "nothing was logged before it ended" if job.finished_at else "nothing is logged yet"
    if job.step:
        return "the run has no event files any more"
    return "it ended before its first step" if job.finished_at else "it has not taken a step yet"


def _why_no_evaluation(job: RunFacts) -> str:
    if job.epoch:
        return "The run has no evaluation.json: it was written by an earlier version, or the file was removed."
    ended = "it ended before that" if job.finished_at else "it is not there yet"
    return f"There is no evaluation: the first one comes at the end of the first epoch, and {ended}."


def _classes(evaluated: EvaluationRecord | None) -> dict[str, Any]:
    """Returns what the page says of the classes; nothing where nothing was evaluated."""
    if evaluated is None:
        return {"evaluated": None}
    rows, limit = evaluated.class_scores(), report_classes.PLAIN_ROWS
    mean = report_classes.mean(rows)
    if len(rows) > limit:
        rows = report_classes.hardest_first(rows)
    fits = len(rows) <= report_classes.MATRIX_CLASSES
    return {
        "evaluated": evaluated,
        "class_rows": rows[:limit],
        "more_rows": rows[limit:],
        "mean": mean,
        "matrix": report_classes.matrix(evaluated) if fits else [],
        "has_long_names": any(len(name) > LONG_NAME for name in evaluated.classes),
        "confused": [] if fits else report_classes.most_confused(evaluated),
        "mistakes": report_classes.shown_mistakes(evaluated, max_chars=MAX_IMAGES_CHARS),
    }


if __name__ == "__main__":
    sys.exit(main())
