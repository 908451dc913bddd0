"""How an attempt is asked to stop: by SIGTERM, or by the end of a pipe that its worker holds open while it lives."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from pipeline.errors import Interrupted

ASKED = "asked to stop"
WORKER_DIED = "its worker died"
NO_ROOM = 75  # exit code of an attempt that found the disk full, as sysexits.h has it: try again later
LEASED_GPU = "PIPELINE_LEASED_GPU"  # environment variable of an attempt: the GPU that its worker has leased for it
GRACE_S = 30.0  # to write a checkpoint; below the grace period that Compose gives the worker


class Stop:
    """Set from a signal handler or a thread; the training loop looks at it after each step."""

    def __init__(self) -> None:
        self.why = ""

    def request(self, why: str) -> None:
        self.why = self.why or why

    def check(self) -> None:
        """Raises Interrupted where somebody has asked."""
        if self.why:
            raise Interrupted(self.why)


@contextlib.contextmanager
def listen(
    stop: Stop,
    *signals: signal.Signals,
    alive_fd: int | None = None,
    again: Callable[[], None] | None = None,
    abandoned: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Turn signals, and the end of file of `alive_fd`, into requests.

    `abandoned` is called where the process is still there a grace period after that end of file: nobody else is left
    who could kill it, and it holds its job's lease.

    Each further signal calls `again`; without one it acts as if nobody listened. A worker's attempt, which has
    an `alive_fd`, takes no notice: whoever stops a whole service signals both, and then the worker asks it as well.
    """
    acts_again = again is None and alive_fd is None

    def on_signal(number: int, frame: object) -> None:  # noqa: ARG001
        if not stop.why:
            stop.request(ASKED)
        elif again is not None:
            again()
        if acts_again:
            signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, on_signal) for number in signals}
    if alive_fd is not None:
        threading.Thread(target=_watch, args=(stop, alive_fd, abandoned), daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(stop: Stop, alive_fd: int, abandoned: Callable[[], None] | None) -> None:
    os.read(alive_fd, 1)  # nobody writes: it returns when the last writer is gone
    stop.request(WORKER_DIED)
    if abandoned is not None:
        time.sleep(GRACE_S)
        abandoned()
