"""What a worker repairs: everything at first, and until that was done once; then what dead workers leave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.queue import repair
from pipeline.queue.job_queue import Queue
from pipeline.queue.repair import Repaired, StuckJobs

EVERY_S = 5.0


@dataclass
class Repairs:
    """tell: takes each thing that was repaired, or could not be."""

    queue: Queue
    tell: Callable[[Repaired], None]
    stuck: StuckJobs = field(default_factory=StuckJobs)
    _is_all_repaired: bool = False
    _repaired_at: float = -math.inf  # on the monotonic clock

    def tick(self) -> bool:
        """Repairs, if it is time, and says whether it was. Raises OSError and QueueError; it is tried again then."""
        if time.monotonic() < self._repaired_at + EVERY_S:
            return False
        self._repaired_at = time.monotonic()
        self.queue.create()
        if self._is_all_repaired:
            done = repair.quarantine_foreign_files(self.queue)
            done += repair.repair_running(self.queue)
        else:
            done = repair.repair(self.queue)
            self._is_all_repaired = True
        self.stuck.count(done)
        for repaired in done:
            self.tell(repaired)
        return True
