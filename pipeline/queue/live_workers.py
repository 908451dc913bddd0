"""Workers as others see them: their names, whether they live, whether their loop goes round, and how they are stopped.

All of it goes by their leases, so that it is the same across processes and containers.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import time
from collections.abc import Sequence

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.queue.job_queue import Queue

STILL_S = 15.0  # a loop that did not go round for so long hangs; it shows itself every 2 s
LEAVE_S = 60.0  # to write checkpoints and let go of the queue
LAST_S = 15.0  # for a report and TensorBoard, after that
POLL_S = 0.2


def new_name() -> str:
    """Nobody else's, and one that says on which host, or in which container, the worker runs."""
    return f"{host_name()}-{secrets.token_hex(4)}"


def host_name() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())[:40]


def check_health(queue: Queue) -> str:
    """The name of a worker that runs on this host and whose loop goes round. Raises QueueError where there is none."""
    names = [name for name in queue.live_workers() if name.rpartition("-")[0] == host_name()]
    if not names:
        raise QueueError(f"no worker runs on {host_name()} for {queue.home.root}")
    before = {name: _changed_at(queue, name) for name in names}
    deadline = time.monotonic() + STILL_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        for name in names:
            if _changed_at(queue, name) not in (before[name], 0):
                return name
    raise QueueError(f"{', '.join(names)}: holds its lease, but did nothing for {STILL_S:g} s")


def _may_live(queue: Queue, name: str) -> bool:
    """Whether its lease is held, or cannot be looked at now."""
    try:
        return Lease.is_held(queue.paths.worker_lease(name))
    except OSError:
        return True


def _changed_at(queue: Queue, name: str) -> int:
    """To be compared with itself alone: clocks differ."""
    try:
        return queue.paths.worker_lease(name).stat().st_mtime_ns
    except OSError:
        return 0


def ask_to_leave(queue: Queue) -> list[str]:
    """Have all workers of the queue stop: they save and requeue their jobs. Their names."""
    names = queue.live_workers()
    try:
        for name in names:
            durable.replace_json(queue.paths.stop_request(name), {})
    except OSError as error:
        raise QueueError(f"{queue.paths.control}: workers cannot be asked to stop: {error.strerror}") from None
    return names


def wait_until_gone(queue: Queue, names: Sequence[str]) -> None:
    """Until they, and what they have started, are gone. Raises QueueError where that takes too long."""
    deadline = time.monotonic() + LEAVE_S
    while left := [name for name in names if _may_live(queue, name)]:
        if time.monotonic() > deadline:
            raise QueueError(f"{', '.join(left)}: still there after {LEAVE_S:g} s")
        time.sleep(POLL_S)
    deadline = time.monotonic() + LAST_S
    while any(durable.is_there(queue.paths.stop_request(name)) for name in names) and time.monotonic() < deadline:
        time.sleep(POLL_S)  # removed as the last thing of all, after TensorBoard and reports; but not if it is killed
    for name in names:
        with contextlib.suppress(OSError):
            queue.paths.stop_request(name).unlink()
