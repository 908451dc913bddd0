"""The numbers of a home's jobs, in the order of submission: `queue/sequence` has the last one that was given.

A lock on the file makes that one number a job, whoever submits at the same time. It is on stable storage before an id
is made of it, so none is given twice. Where the file is lost or damaged, the highest number that is found is the last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence

from pipeline.home import durable
from pipeline.home.ids import make_id, number_of
from pipeline.home.paths import STATES, Home

_BYTES = 16  # decimal digits, and a line end: written in place, within one block of any disk


def new_ids(home: Home, names: Sequence[str]) -> list[str]:
    """Ids for jobs of these names, none of which was ever used in the home. Raises OSError."""
    fd = durable.open_plain(home.queue.sequence, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        last = _read(fd) or _highest(home)
        ids = _after(last, names)
        if any(os.path.lexists(home.run_text(job_id)) for job_id in ids):  # of another home with the same runs, say
            last = max(last, _highest(home))
            ids = _after(last, names)
        _write(fd, last + len(ids))
    finally:
        os.close(fd)
    return ids


def _after(last: int, names: Sequence[str]) -> list[str]:
    return [make_id(name, last + nth) for nth, name in enumerate(names, start=1)]


def _read(fd: int) -> int:
    """The last number; 0 where the file does not say."""
    with contextlib.suppress(ValueError):
        return max(0, int(os.pread(fd, _BYTES + 1, 0)))
    return 0


def _write(fd: int, last: int) -> None:
    content = f"{last:0{_BYTES - 1}d}\n".encode()
    if os.pwrite(fd, content, 0) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, len(content))
    os.fsync(fd)


def _highest(home: Home) -> int:
    """The highest number of a ticket, of a job's records or of a run."""
    folders = [*map(home.queue.state, STATES), home.queue.jobs, home.runs]
    names = {name.removesuffix(".json") for folder in folders for name in durable.names_in(folder)}
    return max(map(number_of, names), default=0)
