"""The numbers of a home's jobs, in the order of submission: `queue/sequence` has the last one that was given.

A lock on the file makes that one number a job, whoever submits at the same time. It is on stable storage before an id
is made of it, so none is given twice. Where the file is lost or damaged, the highest number that is found is the last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Sequence

from pipeline.home import durable
from pipeline.home.ids import make_id, number_of
from pipeline.home.paths import STATES, Home, QueuePaths

_WHOLE = re.compile(rb"0[0-9]{14}\n")  # written in place, within one block of any disk; an id has at most 12 digits


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


def was_given(paths: QueuePaths, job_id: str) -> bool:
    """Whether a text is an id whose number has been used, so that it can be no beginning of another. Raises OSError."""
    number = number_of(job_id)
    if not number:
        return False
    try:
        fd = durable.open_plain(paths.sequence)
    except FileNotFoundError:
        return False
    try:
        return number <= _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> int:
    """The last number; 0 where the file does not say."""
    content = os.pread(fd, 17, 0)
    return int(content) if _WHOLE.fullmatch(content) else 0


def _write(fd: int, last: int) -> None:
    content = f"{last:015d}\n".encode()
    if os.pwrite(fd, content, 0) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(fd, len(content))
    os.fsync(fd)


def _highest(home: Home) -> int:
    """The highest number of a ticket, of a job's records or of a run."""
    folders = [*map(home.queue.state, STATES), home.queue.jobs, home.runs]
    names = {name.removesuffix(".json") for folder in folders for name in durable.names_in(folder)}
    return max(map(number_of, names), default=0)
