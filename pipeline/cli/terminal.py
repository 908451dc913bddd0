"""What a person sees in a terminal: tables, and the worker's log with a live line under it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.home.ids import name_of
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Progress
from pipeline.queue.views import JobView
from pipeline.wording import in_words, table

RECENT = 20  # ended jobs that a table shows
LIVE_EVERY_S = 0.5
TENSORBOARD_URL = "PIPELINE_TENSORBOARD_URL"  # environment variable: where a container serves it


class TerminalDisplay:
    """The worker's Display: lines as they come and, on a terminal, one that is overwritten with where each job is."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.live = ""
        self.written_at = 0.0

    def say(self, line: str) -> None:
        self._write(f"worker: {line}")

    def log_line(self, job_id: str, line: str) -> None:
        self._write(f"{name_of(job_id)}: {line}")

    def progress(self, jobs: list[tuple[str, Progress]]) -> None:
        if not self.is_terminal or time.monotonic() - self.written_at < LIVE_EVERY_S:
            return
        self.written_at = time.monotonic()
        self._clear()
        self.live = "  |  ".join(f"{name_of(job_id)}: {live(progress)}" for job_id, progress in jobs)
        sys.stdout.write(self.live[: shutil.get_terminal_size().columns - 1])
        sys.stdout.flush()

    def close(self) -> None:
        self._clear()
        self.live = ""

    def _write(self, line: str) -> None:
        """Nobody may be reading any more, or the disk may be full: the jobs matter more."""
        with contextlib.suppress(OSError, UnicodeEncodeError):
            self._clear()
            sys.stdout.write(f"{line}\n")
            sys.stdout.write(self.live[: shutil.get_terminal_size().columns - 1] if self.live else "")
            sys.stdout.flush()

    def _clear(self) -> None:
        if self.live:
            sys.stdout.write("\r\x1b[2K")


def live(progress: Progress) -> str:
    """Where a job is, in a line."""
    if progress.note:
        return progress.note
    parts = [f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"]
    if progress.steps:
        parts.append(f"{100 * progress.step / progress.steps:.0f} %")
    for label, tag, scale, unit in (("loss", "train/loss", 1, ""), ("test accuracy", "test/accuracy", 100, " %")):
        if tag in progress.metrics:
            parts.append(f"{label} {progress.metrics[tag] * scale:.4g}{unit}")
    if progress.images_per_second:
        parts.append(f"{progress.images_per_second:,.0f} images/s")
    if progress.time_left_s:
        parts.append(f"{in_words(progress.time_left_s)} left")
    return "  ".join(parts)


def status_table(jobs: Sequence[JobView], *, all_ended: bool) -> list[str]:
    """Lines; of the ended jobs only the latest ones, unless all are asked for."""
    ended = [job for job in jobs if job.outcome is not None]
    hidden = 0 if all_ended else max(0, len(ended) - RECENT)
    shown = ended[hidden:] + [job for job in jobs if job.outcome is None]
    rows = [("ID", "STATE", "EPOCH", "ACCURACY", "WHY"), *(_row(job) for job in shown)]
    lines = table(rows)
    return [f"... and {hidden:,} that ended earlier (--all shows them)", *lines] if hidden else lines


def _row(job: JobView) -> tuple[str, ...]:
    accuracy = job.metrics.get("test/accuracy")
    state = job.outcome or "failed" if job.state == "failed" else job.state
    epoch = f"{job.epoch}/{job.epochs}" if job.epochs else ""
    return job.id, state, epoch, "" if accuracy is None else f"{100 * accuracy:.2f} %", " ".join(job.why.split())


def job_table(job: JobView, *, tensorboard: str) -> list[str]:
    """One job, a line a fact."""
    metrics = job.metrics
    rows = [("job", job.id), ("state", job.state), ("outcome", job.outcome or "none yet"), ("why", job.why)]
    for label, tag in (("test accuracy", "test/accuracy"), ("best test accuracy", "test/best_accuracy")):
        if tag in metrics:
            rows.append((label, f"{100 * metrics[tag]:.2f} %"))
    for label, tag in (("test loss", "test/loss"), ("train loss", "train/loss")):
        if tag in metrics:
            rows.append((label, f"{metrics[tag]:.4f}"))
    rows += [
        ("epoch", f"{job.epoch} of {job.epochs}"),
        ("step", str(job.step)),
        ("attempt", str(job.attempt)),
    ]
    times = {"submitted": job.submitted_at, "started": job.started_at, "finished": job.finished_at}
    rows += [(label, at) for label, at in times.items() if at]
    run = RunPaths(Path(job.run_dir))
    rows += [("run", str(run.root))]
    rows += [("report", str(run.report))] if run.report.exists() else []
    rows += [("TensorBoard", tensorboard)]
    return table(rows)


def command_to_look(home: Home) -> str:
    """What to type, here and now, to see a home's runs in TensorBoard."""
    if url := os.environ.get(TENSORBOARD_URL):
        return f"make up, then open {url}"
    program = Path(sys.argv[0])
    words = [str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)]
    words += [] if home == Home.find() else ["--home", str(home.root)]
    return f"{shlex.join([*words, 'up'])}, then open http://localhost:6006"
