"""A program on a terminal of its own, and what it writes there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence


def run_on_terminal(command: Sequence[str], *, columns: int, environment: dict[str, str]) -> str:
    """What a program writes to a terminal of so many columns, colours and all; line ends are the terminal's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    try:
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**clean, **environment}):
            os.close(theirs)
            return _read_all(ours)
    finally:
        os.close(ours)


def _read_all(fd: int) -> str:
    parts = []
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while part := os.read(fd, 65536):
            parts.append(part)
    return b"".join(parts).decode()
