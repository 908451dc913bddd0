"""The log of an attempt: whatever it prints, kept to a size, and read on as it grows.

The attempt, and all that it starts, append to it directly. So it can be cut at any time: what comes after goes to the
new end.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

from pipeline.home import durable

LIMIT_BYTES = 64 * 1024**2  # some hundred thousand lines; a job that prints without end fills no disk
HEAD_BYTES = 32 * 1024**2  # that are kept when it has grown past that, and of its end
TAIL_BYTES = 1024**2
BLOCK_BYTES = 64 * 1024  # a multiple of what file systems count in
COLLAPSE_RANGE = 8  # FALLOC_FL_COLLAPSE_RANGE in linux/falloc.h


def keep_small(path: Path) -> bool:
    """Cuts out the middle of a log that has grown past its limit; whether it had to. Raises OSError."""
    fd = durable.open_plain(path, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        if size <= LIMIT_BYTES:
            return False
        end = (size - TAIL_BYTES) // BLOCK_BYTES * BLOCK_BYTES
        if end > HEAD_BYTES and _collapse(fd, HEAD_BYTES, end - HEAD_BYTES):
            os.pwrite(fd, _left_out(end - HEAD_BYTES), HEAD_BYTES)  # over the first bytes of what came after
        else:
            _copy_the_tail(fd, size)
        return True
    finally:
        os.close(fd)


def _left_out(count: int) -> bytes:
    what = "byte was" if count == 1 else "bytes were"
    return f"\n... {count:,} {what} left out here: a log is kept to {LIMIT_BYTES:,} ...\n".encode()


def _collapse(fd: int, begin: int, length: int) -> bool:
    """Takes a range out of a file at one stroke, whoever appends to it meanwhile: ext4, XFS. Whether it could."""
    try:
        fallocate = ctypes.CDLL(None).fallocate
    except AttributeError:  # macOS
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(fd, COLLAPSE_RANGE, begin, length) == 0)


def _copy_the_tail(fd: int, size: int) -> None:
    """The same in two strokes: what is appended between them is lost, or comes before the tail."""
    tail = os.pread(fd, 2 * TAIL_BYTES, size - TAIL_BYTES)  # and what was appended since
    os.ftruncate(fd, HEAD_BYTES)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.write(fd, _left_out(size - HEAD_BYTES - TAIL_BYTES) + tail)


def read_on(fd: int, position: int, limit: int) -> tuple[bytes, int, int]:
    """The last `limit` bytes written after a position, the position after them, and how many bytes were passed over.

    Of a log that was cut meanwhile, what was written in place of its middle comes next.
    """
    size = os.fstat(fd).st_size
    begin = position if position <= size else min(position, HEAD_BYTES)
    passed_over = max(0, size - begin - limit)
    content = os.pread(fd, limit, begin + passed_over)
    return content, begin + passed_over + len(content), passed_over
