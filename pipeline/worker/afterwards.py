"""What follows the end of a job, beside the loop: its report is written, and somebody is told."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.home.paths import Home
from pipeline.home.records import End
from pipeline.worker.background_reports import BackgroundReports
from pipeline.worker.notifications import Notifications, take_addresses

LAST_LIMIT_S = 60.0  # of all that is left when the worker leaves
STOP_LIMIT_S = 5.0
POLL_S = 0.05


class Afterwards:
    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self.reports = BackgroundReports(home, say)
        self.notifications = Notifications(home, say, take_addresses())
        self.notifications.ask_whether_it_works()
        self.is_abandoned = False

    def ask(self, job_id: str, end: End) -> None:
        self.notifications.ask(job_id, end)
        self.reports.ask(job_id)

    def tick(self) -> None:
        """Look after the processes, and start the next ones."""
        for errands in (self.reports.errands, self.notifications.errands):
            errands.tick()

    def finish(self, *, is_stopped: bool) -> None:
        """Wait for all that was asked for, a minute at most, or until it is abandoned.

        A worker that is stopped has little time: some seconds, and no report is begun beside one that is being written.
        """
        deadline = time.monotonic() + (STOP_LIMIT_S if is_stopped else LAST_LIMIT_S)
        if is_stopped:
            self.reports.hurry()
        self.tick()
        while self._is_busy() and not self.is_abandoned and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.tick()
        self.reports.leave()
        self.notifications.leave()

    def abandon(self) -> None:
        """Let `finish` return at once. It may be called from a signal handler."""
        self.is_abandoned = True

    def _is_busy(self) -> bool:
        return self.reports.errands.is_busy or self.notifications.errands.is_busy
