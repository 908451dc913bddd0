"""The jobs that the disk or the system did not let this process take or start: it leaves them to others for a while.

A process remembers that for itself: what another is refused, by its limits or its rights, need not be refused here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipeline.home import durable

PASS_OVER_S = 10.0  # and twice as long with each refusal in a row
MOST_DOUBLINGS = 5
HOPELESS = 3  # refusals in a row


@dataclass
class Refusals:
    _until: dict[str, float] = field(default_factory=dict)  # by id, on the monotonic clock
    _times: dict[str, int] = field(default_factory=dict)  # in a row
    total: int = 0  # refusals of any job

    def add(self, job_id: str, error: BaseException) -> None:
        """A full disk passes the job over as well, but is no reason to give it up."""
        self.total += 1
        doublings = min(self._times.get(job_id, 0), MOST_DOUBLINGS)
        self._until[job_id] = time.monotonic() + PASS_OVER_S * 2**doublings
        if not (isinstance(error, OSError) and error.errno in durable.DISK_FULL):
            self._times[job_id] = self._times.get(job_id, 0) + 1

    def end(self, job_id: str) -> None:
        """The system did let this process do it."""
        self._times.pop(job_id, None)

    def is_passed_over(self, job_id: str) -> bool:
        return self._until.get(job_id, 0.0) > time.monotonic()

    @property
    def hopeless(self) -> set[str]:
        """Those that were refused time after time."""
        return {job_id for job_id, times in self._times.items() if times >= HOPELESS}
