"""What the worker says by a file of the run (`order.json`), wherever the attempt runs: to stop, or that it is replaced.

A cluster may give a job up while its process goes on: the node was cut off, or the process stood still. The next
attempt of the job has a higher number then, and this one may change nothing that the next one reads. So it asks before
each file that it replaces, and each second, and leaves as soon as it knows.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.home.records import Order
from pipeline.stop import ASKED, Stop

EVERY_S = 1.0
TRIES = 5


@dataclass
class Orders:
    """number: of this attempt. leave: ends the process at once, without a result."""

    run: RunPaths
    number: int
    leave: Callable[[], None]
    is_alone: bool = False  # whether no worker holds the job's lease for it

    def check(self) -> Order | None:
        """Leave where another attempt has this one's place. Raises OSError where it cannot be told for some seconds."""
        order = self._read()
        if order is not None and order.attempt > self.number:
            self.leave()
        return order

    def _read(self) -> Order | None:
        """A network filesystem may refuse a file just when it is replaced."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(OSError):
                return Order.read(self.run.order)
            time.sleep(EVERY_S)
        return Order.read(self.run.order)

    @contextlib.contextmanager
    def followed(self, stop: Stop) -> Iterator[None]:
        """Ask before each file that is replaced, and each second whether to stop. Nothing begins that is to stop.

        Nor does a second process of the same attempt: an engine that did not answer may have been asked twice for it.
        """
        order = self.check()
        if order is not None and order.attempt == self.number and order.stop:
            self.leave()
        if self.is_alone:
            self._claim()
        threading.Thread(target=self._watch, args=(stop,), name="orders", daemon=True).start()
        durable.ask_first, before = self.check, durable.ask_first
        try:
            yield
        finally:
            durable.ask_first = before

    def _claim(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # the run's folder is gone, which is said elsewhere
            try:
                os.close(os.open(self.run.claim(self.number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                self.leave()

    def _watch(self, stop: Stop) -> None:
        while True:
            with contextlib.suppress(OSError):
                order = self.check()
                if order is not None and order.attempt == self.number and order.stop:
                    stop.request(ASKED)
            time.sleep(EVERY_S)
