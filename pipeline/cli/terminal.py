"""Tables for people: aligned text where a program may read it, with colours and the width in mind on a terminal.

What a table says comes from job files and class names, so rich never looks for its markup in it. rich is loaded for a
terminal alone: it takes as long as the rest of `status`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.board import tags
from pipeline.cli.arguments import print_lines
from pipeline.home.paths import RunPaths
from pipeline.wording import against_fp32, in_bits, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pipeline.queue.checks import Check
    from pipeline.queue.views import JobView, Survey

GAP = 2  # blanks between two columns
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


def print_jobs(found: Survey, *, show_all: bool) -> None:
    """A line a job; of those that wait only the next ones, unless all are asked for."""
    waiting = [job for job in found.jobs if job.state == "pending"]
    waiting.sort(key=lambda job: -job.priority)  # and equals by age, as they are
    later = set() if show_all else {job.id for job in waiting[NEXT:]}
    if found.num_earlier:
        print_lines([f"... and {found.num_earlier:,} that ended earlier (--all shows them)"])
    ended = [job for job in found.jobs if job.outcome is not None]
    others = [job for job in found.jobs if job.outcome is None and job.id not in later]
    rows = list(_grouped([*ended, *others], show_all=show_all))
    _print_table(rows, header=("ID", "STATE", "EPOCH", "ACCURACY", "WHY"))
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


def console(*, width: int | None = None) -> Console:
    """The terminal, as rich writes to it; NO_COLOR and TERM=dumb are heeded by rich itself."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, width=width)


def _row(job: JobView) -> tuple[str, ...]:
    accuracy = job.metrics.get(tags.TEST_ACCURACY, job.metrics.get(tags.VAL_ACCURACY))
    state = job.outcome or "failed" if job.state == "failed" else job.state
    state = "pruned" if job.outcome == "pruned" else state
    epoch = f"{job.epoch}/{job.epochs}" if job.epochs and not job.is_sweep else ""
    return job.id, state, epoch, "" if accuracy is None else f"{100 * accuracy:.2f} %", " ".join(job.why.split())


def _facts(job: JobView) -> list[tuple[str, str]]:
    """The train loss and accuracy are means over the latest epoch; of runs of before, over its last steps."""
    metrics = job.metrics
    rows = [("job", job.id), ("state", job.state), ("outcome", job.outcome or "none yet"), ("why", job.why)]
    rows += [("where", job.where)] if job.where else []
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


def _print_table(rows: Rows, header: Sequence[str] | None = None) -> None:
    if sys.stdout.isatty() and len(rows) <= MOST_COLOURED:
        _print_on_terminal(rows, header)
    else:
        print_lines(table([header, *rows] if header else rows))


def _print_on_terminal(rows: Rows, header: Sequence[str] | None) -> None:
    from rich.cells import cell_len
    from rich.text import Text

    widths = [max(map(cell_len, column)) for column in zip(*rows, *([header] if header else []), strict=True)]
    cells = [[Text(cell, style=COLOURS.get(cell, "")) for cell in row] for row in rows]
    if header:
        _print_under_header(cells, header, widths)
        return
    terminal = console()
    for *labels, text in cells:
        for label, width in zip(labels, widths, strict=False):
            label.pad_right(width + GAP - label.cell_len)
        terminal.print(Text().join([*labels, text]), soft_wrap=True)  # a path goes on below, and can be copied


def _print_under_header(cells: Sequence[Sequence[Text]], header: Sequence[str], widths: list[int]) -> None:
    """The last column ends where the terminal does; nothing else is ever cut."""
    from rich.table import Table

    *others, last = widths
    room = console().width - sum(others) - GAP * len(others)
    widths = [*others, min(last, max(room, len(header[-1])))]
    shown = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for name, width in zip(header, widths, strict=True):
        shown.add_column(name, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        shown.add_row(*row)
    console(width=sum(widths) + GAP * len(others)).print(shown)
