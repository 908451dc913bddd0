"""Reports in the background of a worker: when a job has ended, a process of its own writes its report.

One at a time, at a low priority, without the job's lease. Whatever becomes of it, the job's end stands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipeline.home.paths import Home
from pipeline.worker.errands import Ended, Errand, Errands

LIMIT_S = 300.0  # of one page, beside jobs that have every processor


class BackgroundReports:
    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self.home, self.say = home, say
        self.errands = Errands(LIMIT_S, self._look_at)
        self._left_out: list[str] = []

    def ask(self, job_id: str) -> None:
        """Have the page of a job's run written soon; none where the job has no run."""
        if self.home.run(job_id).root.is_dir() and job_id not in self.errands.waiting:
            command = [sys.executable, "-P", "-m", "pipeline.results.report", str(self.home.root), job_id]
            self.errands.ask(Errand(job_id, command))

    def hurry(self) -> None:
        """Write what is being written, and no more; the first one where none is."""
        if self.errands.is_running:
            self._left_out += self.errands.give_up_waiting()

    def leave(self) -> None:
        """Write no more, and say what is left out."""
        left_out = self.errands.give_up() + self._left_out
        if left_out:
            left = ", ".join(left_out)
            self.say(f"no longer waits for the report of {left}; `pipeline report ID` writes it")

    def _look_at(self, ended: Ended) -> None:
        if ended.why:
            self.say(f"{ended.about}: its report was not written: {ended.last_line or ended.why}")
