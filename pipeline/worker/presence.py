"""How a worker shows that it lives: by a lease on its name, touched as long as its loop goes round."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field

from pipeline.errors import QueueError
from pipeline.home.lease import Lease
from pipeline.home.paths import QueuePaths
from pipeline.queue.live_workers import new_name

BEAT_EVERY_S = 2.0


@dataclass
class Presence:
    paths: QueuePaths
    name: str = field(default_factory=new_name)
    _lease: Lease | None = None
    _beaten_at: float = -math.inf  # on the monotonic clock

    def begin(self) -> None:
        """Raises QueueError where files cannot be locked."""
        try:
            while (lease := Lease.acquire(self.paths.worker_lease(self.name))) is None:
                self.name = new_name()  # somebody is looking whether it is held, and is in the way
        except OSError as error:
            where = self.paths.leases
            raise QueueError(f"{where}: files cannot be locked here, so no worker can run: {error}") from None
        self._lease = lease
        self.beat()

    def beat(self) -> None:
        """Show that the loop goes round, to whoever asks for this worker's health."""
        if self._lease is not None and time.monotonic() > self._beaten_at + BEAT_EVERY_S:
            self._beaten_at = time.monotonic()
            with contextlib.suppress(OSError):
                self._lease.touch()

    def end(self) -> None:
        if self._lease is not None:
            self._lease.release()
