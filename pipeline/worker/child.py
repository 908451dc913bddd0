"""A training process as its worker sees it: how it is asked to stop, killed, waited for, and what it gets to know.

A child runs in a session of its own, holds the job's lease with its worker, and sees the worker's death as the end of a
pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.home.records import Outcome, Result
from pipeline.queue.job_queue import Claim
from pipeline.stop import GRACE_S
from pipeline.worker.gpus import Place


@dataclass
class Child:
    """A training process. Its worker alone may signal it, which is safe until it has been waited for."""

    claim: Claim
    process: subprocess.Popen[bytes]
    alive_fd: int  # write end of the pipe whose end of file tells the child that this process is dead
    log: BinaryIO  # what the child writes, read behind it
    timeout_s: float | None
    place: Place | None = None  # on a GPU
    started_at: float = field(default_factory=time.monotonic)
    asked: Outcome | None = None  # what it was asked to stop for
    kill_at: float | None = None
    finished_at: float | None = None  # when its result was first seen
    result: Result | None = None  # how it ended, while that could not be recorded yet

    @property
    def id(self) -> str:
        return self.claim.id

    def ask_to_stop(self, outcome: Outcome) -> None:
        if self.asked is None:
            self.asked, self.kill_at = outcome, time.monotonic() + GRACE_S
            if self.process.returncode is None:
                os.kill(self.process.pid, signal.SIGTERM)  # Popen's send_signal might reap it unseen

    def leave_soon(self) -> None:
        """It has recorded its result; what hangs in the clean-up of a library after that is not waited for long."""
        self.finished_at = self.finished_at or time.monotonic()
        if time.monotonic() > self.finished_at + GRACE_S:
            self.kill()

    def kill(self) -> None:
        """The child and whatever it has started in its session."""
        if self.process.returncode is None:  # else its number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only a zombie is left
                os.killpg(self.process.pid, signal.SIGKILL)

    def exit_status(self) -> int | None:
        """As Popen's; None while it runs. What it leaves behind in its session is killed before it is reaped."""
        if self.process.returncode is None:
            if not self._has_exited():
                return None
            self.kill()
            self.process.wait()
        return self.process.returncode

    def _has_exited(self) -> bool:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13: what it leaves behind in its session is not killed
            return self.process.poll() is not None
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def close(self) -> None:
        os.close(self.alive_fd)
        self.log.close()
        if self.place is not None:
            self.place.lease.release()
        self.claim.lease.release()


def child_environment(slots: int) -> dict[str, str]:
    """What the user has set, and for the threads of several jobs, or of other programs, to live side by side.

    A thread that waits for another one spins by default; where there are fewer free processors than threads, that
    holds up the very thread that it waits for. With 5,000 turns, two jobs on two processors run 15 times as fast as
    with the default, and one alone 4 % slower at batch 4 (docs/benchmarks.md).
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, processors // slots))} if slots > 1 else {}
    return {**threads, "GOMP_SPINCOUNT": "5000", **os.environ}
