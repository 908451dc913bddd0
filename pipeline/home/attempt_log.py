"""The log of an attempt: whatever it prints, kept to a size, and read on as it grows.

The attempt, and all that it starts, append to it directly. So it can be cut at any time: what comes after goes to the
new end.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.home import durable

LIMIT_BYTES = 64 * 1024**2  # some hundred thousand lines; a job that prints without end fills no disk
HEAD_BYTES = 32 * 1024**2  # that are kept when it has grown past that, and of its end
TAIL_BYTES = 1024**2


def keep_small(path: Path) -> bool:
    """Cuts out the middle of a log that has grown past its limit; whether it had to. Raises OSError."""
    fd = durable.open_plain(path, os.O_RDWR | os.O_APPEND)
    try:
        size = os.fstat(fd).st_size
        if size <= LIMIT_BYTES:
            return False
        tail = os.pread(fd, TAIL_BYTES, size - TAIL_BYTES)
        os.ftruncate(fd, HEAD_BYTES)
        left_out = size - HEAD_BYTES - len(tail)
        os.write(fd, f"\n... {left_out:,} bytes were left out here: a log is kept to {LIMIT_BYTES:,} ...\n".encode())
        os.write(fd, tail)
        return True
    finally:
        os.close(fd)


def read_on(fd: int, position: int, limit: int) -> tuple[bytes, int, int]:
    """The last `limit` bytes written after a position, the position after them, and how many bytes were passed over.

    Of a log that was cut meanwhile, what was written in place of its middle comes next.
    """
    size = os.fstat(fd).st_size
    begin = position if position <= size else min(position, HEAD_BYTES)
    passed_over = max(0, size - begin - limit)
    content = os.pread(fd, limit, begin + passed_over)
    return content, begin + passed_over + len(content), passed_over
