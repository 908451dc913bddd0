"""The standard streams, where whoever started the program has closed them, or takes no more of what it prints."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Has the streams that are closed lead nowhere.

    Else the next files that are opened have their numbers, and a process that is started gets its own streams in their
    place: of a job's lease, which its attempt has to hold, nothing is left then.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115


def drop_unwritten_output() -> None:
    """Forgets what could not be printed to stdout: Python would try that again when it leaves, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
