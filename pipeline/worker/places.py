"""Which jobs a worker has a place for: one a slot, and beside them some sweeps, which compute nothing themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.worker.running_job import RunningJob

MOST_SWEEPS = 8  # at the same time: a process of 60 MB each
SWEEPS_EVERY_S = 5.0  # that are looked for while no slot is free: of 100,000 jobs that wait, a look takes 0.1 s


@dataclass
class Places:
    slots: int
    _looked_at: float = -math.inf  # on the monotonic clock

    def kinds(self, jobs: Sequence[RunningJob]) -> tuple[bool, bool]:
        """Whether a sweep may be claimed now beside these jobs, and whether any other job may.

        A sweep waits for no slot: one whose process was killed could wait for its own trial, which has the slot.
        """
        with_others = sum(job.takes_slot for job in jobs) < self.slots
        with_sweeps = sum(job.claim.is_sweep for job in jobs) < MOST_SWEEPS
        return with_sweeps and (with_others or self._is_time()), with_others

    def _is_time(self) -> bool:
        if time.monotonic() < self._looked_at + SWEEPS_EVERY_S:
            return False
        self._looked_at = time.monotonic()
        return True
