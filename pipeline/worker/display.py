"""Where a worker tells people what happens."""

from __future__ import annotations

from typing import Protocol

from pipeline.home.records import Progress


class Display(Protocol):
    """None of it raises: the jobs matter more."""

    def say(self, line: str) -> None:
        """Of the worker itself."""

    def log_line(self, job_id: str, line: str) -> None:
        """Of a job's log."""

    def progress(self, jobs: list[tuple[str, Progress]]) -> None:
        """Where each running job is; called with every turn of the loop."""
