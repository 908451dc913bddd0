"""What a worker repairs: everything at first, and until that was done once; then what dead workers leave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.queue import repair
from pipeline.queue.job_queue import Queue
from pipeline.queue.repair import Repaired, StuckJobs
from pipeline.worker.executors.interface import Executor

EVERY_S = 5.0


@dataclass
class Repairs:
    """tell: takes each thing that was repaired, or could not be."""

    queue: Queue
    executor: Executor
    tell: Callable[[Repaired], None]
    stuck: StuckJobs = field(default_factory=StuckJobs)
    _is_all_repaired: bool = False
    _repaired_at: float = -math.inf  # on the monotonic clock

    def tick(self) -> None:
        """Repairs, if it is time. Raises OSError and QueueError; the next time it is tried again."""
        if time.monotonic() < self._repaired_at + EVERY_S:
            return
        self._repaired_at = time.monotonic()
        self.queue.create()
        if self._is_all_repaired:
            done = repair.quarantine_foreign_files(self.queue)
            done += repair.repair_running(self.queue, self.is_alive)
        else:
            done = repair.repair(self.queue, self.is_alive)
            self._is_all_repaired = True
        self.stuck.count(done)
        for repaired in done:
            self.tell(repaired)

    def is_alive(self, entry: Mapping[str, Any]) -> bool:
        """Whether an attempt whose lease nobody holds still runs. Of another executor's, this worker cannot say."""
        if entry.get("executor", self.executor.name) != self.executor.name:
            return True
        return self.executor.is_alive(entry)
