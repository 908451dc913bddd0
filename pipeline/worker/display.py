"""What a worker needs of whatever tells people what happens: a terminal, or nothing."""

from __future__ import annotations

from typing import Protocol

from pipeline.home.records import Progress


class Display(Protocol):
    """Takes what a worker says. No method raises: the jobs matter more."""

    def say(self, line: str) -> None:
        """Shows a line of the worker itself."""

    def log_line(self, job_id: str, line: str) -> None:
        """Shows a line of a job's log."""

    def progress(self, jobs: list[tuple[str, Progress]]) -> None:
        """Shows where each running job is; it is called with every turn of the loop."""
