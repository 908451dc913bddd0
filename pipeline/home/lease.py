"""A lease is an advisory lock on a file: held while a process that has the file open lives, gone with the last of them.

The lock belongs to the open file, so a child that inherits it keeps it when its parent is killed. Process ids, host
names and clocks decide nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.home import durable


@dataclass
class Lease:
    path: Path
    fd: int

    @classmethod
    def acquire(cls, path: Path) -> Lease | None:
        """The lease, or None where somebody holds it."""
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, fd):
                    return cls(path, fd)
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its holder removed the file between our open and our lock; there may be a new one

    @classmethod
    def is_held(cls, path: Path) -> bool:
        """Whether a process alive holds it: no one holds what is no file. Raises OSError where that cannot be seen."""
        try:
            fd = durable.open_plain(path)
        except (FileNotFoundError, durable.NotAPlainFileError):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def touch(self) -> None:
        """Change the file's time, for those who look whether it changes; a full disk allows that too."""
        os.utime(self.fd)

    def release(self) -> None:
        """Remove the file, then let go: in this order nobody can lock a file that is about to vanish unseen."""
        with contextlib.suppress(OSError):  # a file that stays is in nobody's way
            self.path.unlink()
        os.close(self.fd)


def _is_at(path: Path, fd: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        current = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(current, os.fstat(fd))
