"""A lease is an advisory lock on a file: held while a process that has the file open lives, gone with the last of them.

The lock belongs to the open file, so a child that inherits it keeps it when its parent is killed. Process ids, host
names and clocks decide nothing.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Lease:
    path: Path
    fd: int

    @classmethod
    def acquire(cls, path: Path) -> Lease | None:
        """The lease, or None where somebody holds it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = path.stat()
            if (current.st_dev, current.st_ino) == (os.fstat(fd).st_dev, os.fstat(fd).st_ino):
                return cls(path, fd)
        except (BlockingIOError, FileNotFoundError):
            pass  # held, or its holder removed the file between our open and our lock
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    @classmethod
    def is_held(cls, path: Path) -> bool:
        """Whether a process alive holds it."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def release(self) -> None:
        """Remove the file, then let go: in this order nobody can lock a file that is about to vanish unseen."""
        self.path.unlink(missing_ok=True)
        os.close(self.fd)
