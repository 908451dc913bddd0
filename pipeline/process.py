"""What every attempt does as a process of a worker, whatever it is at: how it writes its log, how it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def leave_at_once() -> None:
    """End this process and its process group, where it leads a session, as an attempt of a worker does."""
    if os.getsid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def write_line(line: str) -> None:
    """Write to the log: a worker sends an attempt's output there."""
    append_line(1, line)


def append_line(fd: int, line: str) -> None:
    """Write a line at once; what a full disk has no room for is lost. A stream would keep it, and fail again later."""
    left = (line + "\n").encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        while left:
            left = left[os.write(fd, left) :]


def drop_unwritten_output() -> None:
    """Forget what others have printed and a full disk did not take: Python would leave with exit code 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device is no path of ours
                os.dup2(nowhere.fileno(), stream.fileno())
