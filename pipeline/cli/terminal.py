"""Tables for people: aligned text where a program may read it, with colours and the width in mind on a terminal.

What a table says comes from job files and class names, so rich never looks for its markup in it. rich is loaded for a
terminal alone: it takes as long as the rest of `status`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.board import tags
from pipeline.cli.arguments import print_lines
from pipeline.home.paths import Home, RunPaths
from pipeline.wording import table

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.queue.checks import Check
    from pipeline.queue.views import JobView

RECENT = 20  # ended jobs that a table shows
TENSORBOARD_URL = "PIPELINE_TENSORBOARD_URL"  # environment variable: where a container serves it
COLOURS: Mapping[str, str] = {
    **{"pending": "yellow", "running": "cyan", "done": "green", "cancelled": "magenta"},
    **dict.fromkeys(("failed", "invalid", "timed_out", "lost"), "red"),
    **{"succeeded": "green", "ok": "green", "warning": "yellow", "error": "red"},
}
"""Of the states and outcomes of jobs, and the verdicts of checks."""

Rows = Sequence[Sequence[str]]


def print_jobs(jobs: Sequence[JobView], *, all_ended: bool) -> None:
    """A line a job; of the ended ones only the latest, unless all are asked for."""
    ended = [job for job in jobs if job.outcome is not None]
    hidden = 0 if all_ended else max(0, len(ended) - RECENT)
    shown = ended[hidden:] + [job for job in jobs if job.outcome is None]
    if hidden:
        print_lines([f"... and {hidden:,} that ended earlier (--all shows them)"])
    _print_table([_row(job) for job in shown], header=("ID", "STATE", "EPOCH", "ACCURACY", "WHY"))


def print_job(job: JobView, *, tensorboard: str) -> None:
    """One job, a line a fact."""
    _print_table([*_facts(job), ("TensorBoard", tensorboard)])


def print_checks(checks: Sequence[Check]) -> None:
    _print_table([(check.verdict, check.name, check.text) for check in checks])


def command_to_look(home: Home) -> str:
    """What to type, here and now, to see a home's runs in TensorBoard."""
    if url := os.environ.get(TENSORBOARD_URL):
        return f"make up, then open {url}"
    program = Path(sys.argv[0])
    words = [str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)]
    words += [] if home == Home.find() else ["--home", str(home.root)]
    return f"{shlex.join([*words, 'up'])}, then open http://localhost:6006"


def console() -> Console:
    """The terminal, as rich writes to it; NO_COLOR and TERM=dumb are heeded by rich itself."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def _row(job: JobView) -> tuple[str, ...]:
    accuracy = job.metrics.get(tags.TEST_ACCURACY)
    state = job.outcome or "failed" if job.state == "failed" else job.state
    epoch = f"{job.epoch}/{job.epochs}" if job.epochs else ""
    return job.id, state, epoch, "" if accuracy is None else f"{100 * accuracy:.2f} %", " ".join(job.why.split())


def _facts(job: JobView) -> list[tuple[str, str]]:
    """The train loss and accuracy are means over the latest epoch; of runs of before, over its last steps."""
    metrics = job.metrics
    rows = [("job", job.id), ("state", job.state), ("outcome", job.outcome or "none yet"), ("why", job.why)]
    train_loss = tags.EPOCH_LOSS if tags.EPOCH_LOSS in metrics else tags.TRAIN_LOSS
    train_accuracy = tags.EPOCH_ACCURACY if tags.EPOCH_ACCURACY in metrics else tags.TRAIN_ACCURACY
    accuracies = {"test accuracy": tags.TEST_ACCURACY, "best test accuracy": tags.BEST_ACCURACY}
    accuracies["train accuracy"] = train_accuracy
    rows += [(label, f"{100 * metrics[tag]:.2f} %") for label, tag in accuracies.items() if tag in metrics]
    losses = {"test loss": tags.TEST_LOSS, "train loss": train_loss}
    rows += [(label, f"{metrics[tag]:.4f}") for label, tag in losses.items() if tag in metrics]
    rows += [("epoch", f"{job.epoch} of {job.epochs}"), ("step", str(job.step)), ("attempt", str(job.attempt))]
    times = {"submitted": job.submitted_at, "started": job.started_at, "finished": job.finished_at}
    rows += [(label, at) for label, at in times.items() if at]
    run = RunPaths(Path(job.run_dir))
    rows += [("run", str(run.root))]
    rows += [("report", str(run.report))] if run.report.exists() else []
    return rows


def _print_table(rows: Rows, header: Sequence[str] | None = None) -> None:
    if sys.stdout.isatty():
        _print_on_terminal(rows, header)
    else:
        print_lines(table([header, *rows] if header else rows))


def _print_on_terminal(rows: Rows, header: Sequence[str] | None) -> None:
    """In colours; under a header the last column ends where the terminal does, and nothing else is ever cut."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    terminal, gap = console(), 2
    widths = [
        max(cell_len(cell) for cell in column) for column in zip(*rows, *([header] if header else []), strict=True)
    ]
    if header:
        widths[-1] = min(widths[-1], max(terminal.width - sum(widths[:-1]) - gap * (len(widths) - 1), len(header[-1])))
    shown = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), show_header=bool(header), header_style="bold")
    for name, width in zip(header or [""] * len(widths), widths, strict=True):
        shown.add_column(name, width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        shown.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    terminal.print(shown, width=sum(widths) + gap * (len(widths) - 1), crop=False)
