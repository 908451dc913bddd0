"""What a worker shows: its lines as they come and, on a terminal, one under them with where each job is."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.board import tags
from pipeline.cli.terminal import console
from pipeline.folding import columns_of, cut, folded, width
from pipeline.home.ids import name_of
from pipeline.home.records import Progress
from pipeline.wording import in_words

if TYPE_CHECKING:
    from rich.live import Live

LIVE_EVERY_S = 0.5
FIRST_LEFT_OUT = ("rate", "loss", "val", "test", "left", "share")  # where the line is too short


class TerminalDisplay:
    """The worker's Display. Nobody may be reading any more, or the disk may be full: the jobs matter more."""

    def __init__(self) -> None:
        self.live = _live_line() if sys.stdout.isatty() else None
        self.updated_at = 0.0

    def say(self, line: str) -> None:
        self._write(f"worker: {line}")

    def log_line(self, job_id: str, line: str) -> None:
        self._write(f"{name_of(job_id)}: {line}")

    def progress(self, jobs: list[tuple[str, Progress]]) -> None:
        """Says where each job is, in the live line; from time to time, however often this is called."""
        if self.live is None or time.monotonic() - self.updated_at < LIVE_EVERY_S:
            return
        self.updated_at = time.monotonic()
        named = [(name_of(job_id), progress) for job_id, progress in jobs]
        self._update(side_by_side(named, columns_of(sys.stdout) or 80))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self.live is not None:
                self.live.stop()

    def _update(self, text: str) -> None:
        from rich.text import Text

        assert self.live is not None
        try:
            self.live.start()
            self.live.update(Text(text, no_wrap=True), refresh=True)
        except OSError:
            self.live = None  # the terminal is gone, and rich keeps what it could not write

    def _write(self, line: str) -> None:
        line = folded(line, sys.stdout)
        if self.live is None or not self.live.is_started:
            with contextlib.suppress(OSError):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
            return
        try:
            self.live.console.print(line, soft_wrap=True)
        except OSError:
            self.live = None


def _live_line() -> Live | None:
    """A line that is written over; None on a terminal that cannot, as TERM=dumb says."""
    from rich.live import Live

    terminal = console()
    if terminal.is_dumb_terminal:
        return None
    return Live(console=terminal, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)


def side_by_side(jobs: Sequence[tuple[str, Progress]], room: int) -> str:
    """Says where jobs are, by their names, in so many columns: what people miss least is left out first."""
    share = max(room // len(jobs) - 5, 10) if jobs else room
    jobs = [
        (name, dataclasses.replace(progress, note=cut(progress.note, max(share - width(name) - 2, 10))))
        for name, progress in jobs
    ]
    for left_out in range(len(FIRST_LEFT_OUT) + 1):
        without = FIRST_LEFT_OUT[:left_out]
        text = "  |  ".join(f"{name}: {describe(progress, without=without)}" for name, progress in jobs)
        if width(text) <= room:
            break
    return cut(text, room)


def describe(progress: Progress, *, without: Sequence[str] = ()) -> str:
    """Says where a job is, in a line. without: figures that are left out, of FIRST_LEFT_OUT."""
    if progress.note:
        return progress.note
    metrics = progress.metrics
    figures = {"epoch": f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"}
    if progress.steps:
        figures["share"] = f"{100 * progress.step / progress.steps:.0f} %"
    if tags.TRAIN_LOSS in metrics:
        figures["loss"] = f"loss {metrics[tags.TRAIN_LOSS]:.4g}"
    for name, tag in (("val", tags.VAL_ACCURACY), ("test", tags.TEST_ACCURACY)):
        if tag in metrics:
            figures[name] = f"{name} accuracy {100 * metrics[tag]:.4g} %"
    if progress.images_per_second:
        figures["rate"] = f"{progress.images_per_second:,.0f} images/s"
    if progress.time_left_s:
        figures["left"] = f"{in_words(progress.time_left_s)} left"
    return "  ".join(figure for name, figure in figures.items() if name not in without)
