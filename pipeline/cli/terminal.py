"""Tables for people: aligned text where a program may read it, with colours and the width in mind on a terminal.

What a table says comes from job files and class names, so rich never looks for its markup in it. rich is loaded for a
terminal alone: it takes as long as the rest of `status`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.board import tags
from pipeline.cli.arguments import print_lines
from pipeline.cli.short_ids import LEAST_ID, ShortIds
from pipeline.folding import GAP, LEAST, columns_of, fold, joined, pad, side_by_side, widths_of
from pipeline.home.paths import RunPaths
from pipeline.wording import against_fp32, in_bits, table

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.queue.checks import Check
    from pipeline.queue.views import JobView, Survey

HEADER = ("ID", "STATE", "EPOCH", "ACCURACY", "WHY")
LEAST_WHY = 28  # columns, before ids are cut for it
RECENT = 20  # ended jobs that a table shows
NEXT = 100  # waiting jobs that it shows
MOST_COLOURED = 1000  # rows: rich takes a second for 5,000
COLOURS: Mapping[str, str] = {
    **{"pending": "yellow", "running": "cyan", "done": "green", "cancelled": "magenta"},
    **dict.fromkeys(("failed", "invalid", "timed_out", "lost"), "red"),
    **{"pruned": "blue", "succeeded": "green", "ok": "green", "warning": "yellow", "error": "red"},
}
"""The colours of jobs' states and outcomes, and of the verdicts of checks."""

Rows = Sequence[Sequence[str]]


def print_jobs(found: Survey, *, show_all: bool, all_ids: Callable[[], Iterable[str]]) -> None:
    """A line a job; of those that wait only the next ones, unless all are asked for.

    On a terminal that is narrower, why is told on further lines, and ids are cut before that is.
    """
    waiting = [job for job in found.jobs if job.state == "pending"]
    waiting.sort(key=lambda job: -job.priority)  # and equals by age, as they are
    later = set() if show_all else {job.id for job in waiting[NEXT:]}
    if found.num_earlier:
        print_lines([f"... and {found.num_earlier:,} that ended earlier (--all shows them)"])
    ended = [job for job in found.jobs if job.outcome is not None]
    others = [job for job in found.jobs if job.outcome is None and job.id not in later]
    rows = list(_grouped([*ended, *others], show_all=show_all))
    if (room := columns_of(sys.stdout)) is None:
        print_lines(table([HEADER, *rows]))
    else:
        _print_fitted(rows, room, ShortIds(all_ids))
    if later:
        print_lines([f"... and {len(later):,} that wait for longer (--all shows them)"])


def _grouped(jobs: Sequence[JobView], *, show_all: bool) -> Iterator[tuple[str, ...]]:
    """The rows of jobs, the trials of a sweep below it; of those, what has ended is left out unless all are shown."""
    sweeps = {job.id for job in jobs if job.is_sweep}
    trials: dict[str, list[JobView]] = {}
    for job in jobs:
        if job.trial is not None and job.sweep in sweeps:
            trials.setdefault(str(job.sweep), []).append(job)
    for job in jobs:
        if job.trial is not None and job.sweep in sweeps:
            continue
        yield _row(job)
        for trial in trials.get(job.id, ()):
            if show_all or trial.outcome is None:
                job_id, *rest = _row(trial)
                yield (f"  {job_id}", *rest)


def print_job(job: JobView, *, tensorboard: str) -> None:
    """One job, a line a fact."""
    print_facts([*_facts(job), ("TensorBoard", tensorboard)])


def print_facts(rows: Rows) -> None:
    _print_table(rows)


def print_checks(checks: Sequence[Check]) -> None:
    _print_table([(check.verdict, check.name, check.text) for check in checks])


def console() -> Console:
    """The terminal, as rich writes to it; NO_COLOR and TERM=dumb are heeded by rich itself."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def _row(job: JobView) -> tuple[str, ...]:
    epoch = f"{job.epoch}/{job.epochs}" if job.epochs and not job.is_sweep else ""
    return job.id, state_of(job), epoch, accuracy_of(job), " ".join(job.why.split())


def state_of(job: JobView) -> str:
    """Its state, or how it ended where that says more."""
    state = job.outcome or "failed" if job.state == "failed" else job.state
    return "pruned" if job.outcome == "pruned" else state


def accuracy_of(job: JobView) -> str:
    accuracy = job.metrics.get(tags.TEST_ACCURACY, job.metrics.get(tags.VAL_ACCURACY))
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def _facts(job: JobView) -> list[tuple[str, str]]:
    """The train loss and accuracy are means over the latest epoch; of runs of before, over its last steps."""
    metrics = job.metrics
    rows = [("job", job.id), ("state", job.state), ("outcome", job.outcome or "none yet"), ("why", job.why)]
    places = {"where": job.where, "worker": job.worker, "GPU": job.gpu}
    rows += [(label, place) for label, place in places.items() if place]
    rows += [("after", ", ".join(job.after))] if job.after else []
    train_loss = tags.EPOCH_LOSS if tags.EPOCH_LOSS in metrics else tags.TRAIN_LOSS
    train_accuracy = tags.EPOCH_ACCURACY if tags.EPOCH_ACCURACY in metrics else tags.TRAIN_ACCURACY
    accuracies = {
        "test accuracy": (tags.TEST_ACCURACY, ", of the best epoch by val" if tags.VAL_BEST in metrics else ""),
        "best test accuracy": (tags.BEST_ACCURACY, ", chosen on the test set"),
        "test top-5 accuracy": (tags.TOP5["test"], ""),
        "val accuracy": (tags.VAL_ACCURACY, ""),
        "best val accuracy": (tags.VAL_BEST, ""),
        "val top-5 accuracy": (tags.TOP5["val"], ""),
        "train accuracy": (train_accuracy, ""),
    }
    rows += [(label, f"{100 * metrics[tag]:.2f} %{of}") for label, (tag, of) in accuracies.items() if tag in metrics]
    losses = {"test loss": tags.TEST_LOSS, "val loss": tags.VAL_LOSS, "train loss": train_loss}
    rows += [(label, f"{metrics[tag]:.4f}") for label, tag in losses.items() if tag in metrics]
    if tags.MODEL_BITS in metrics and tags.MODEL_BITS_IN_FP32 in metrics:
        bits, bits_in_fp32 = metrics[tags.MODEL_BITS], metrics[tags.MODEL_BITS_IN_FP32]
        rows += [("size", f"{in_bits(bits)} {against_fp32(bits, bits_in_fp32)}")]
    rows += [] if job.is_sweep else [("epoch", f"{job.epoch} of {job.epochs}"), ("step", str(job.step))]
    rows += [("attempt", str(job.attempt))]
    times = {"submitted": job.submitted_at, "started": job.started_at, "finished": job.finished_at}
    rows += [(label, at) for label, at in times.items() if at]
    run = RunPaths(Path(job.run_dir))
    rows += [("run", str(run.root))]
    rows += [("report", str(run.report))] if run.report.exists() else []
    return rows


def _print_table(rows: Rows) -> None:
    """Rows without a header; on a terminal the last cell is broken at words, and a path goes on below, to be copied."""
    room = columns_of(sys.stdout)
    if room is None:
        print_lines(table(rows))
        return
    widths = widths_of(rows)
    widths[-1] = max(LEAST, room - sum(widths[:-1]) - GAP * (len(widths) - 1))
    _print_folded(rows, widths)


def _print_fitted(rows: Rows, room: int, short: ShortIds) -> None:
    """A table of jobs in so many columns. Why is told beside the rest as long as there is some room, else below."""
    ids, *others, why = widths_of([HEADER, *rows])
    left = room - sum(others) - GAP * (len(others) + 1)  # for id and why
    id_width = min(ids, max(LEAST_ID, left - min(why, LEAST_WHY)))
    why_width = min(why, left - id_width)
    rows = [(short.cut(job_id, id_width), *rest) for job_id, *rest in rows]
    if why_width >= min(why, LEAST):
        _print_folded([HEADER, *rows], [id_width, *others, why_width], has_header=True)
        return
    below = [row for *cells, said in rows for row in [(*cells, ""), *[(f"  {line}",) for line in _below(said, room)]]]
    _print_folded([(*HEADER[:-1], ""), *below], [id_width, *others, 0], has_header=True)


def _below(text: str, room: int) -> list[str]:
    return fold(text, max(LEAST, room - 2)) if text else []


def _print_folded(rows: Rows, widths: Sequence[int], *, has_header: bool = False) -> None:
    """Prints rows whose cells are broken at words. A row of one cell is a line by itself."""
    lines = [(row, cells) for row in rows for cells in (side_by_side(row, widths) if len(row) > 1 else [row])]
    if len(rows) > MOST_COLOURED:
        print_lines([joined(cells, widths) if len(cells) > 1 else cells[0] for _, cells in lines])
        return
    from rich.text import Text

    terminal = console()
    for row, cells in lines:
        styles = ["bold" if has_header and row is rows[0] else COLOURS.get(cell, "") for cell in cells]
        padded = [pad(cell, to) for cell, to in zip(cells, widths, strict=False)]
        padded[-1] = padded[-1].rstrip()
        blanks = [*[" " * GAP] * (len(cells) - 1), ""]
        parts = [Text(cell + blank, style) for cell, blank, style in zip(padded, blanks, styles, strict=True)]
        terminal.print(Text().join(parts), soft_wrap=True)
