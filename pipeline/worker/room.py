"""Room on the disk, as a worker sees it: no job is started while there is none.

How much a job needs nobody knows. So of a disk that a job found full, more must be free than there was then. Where the
system's count shows no full disk (a quota, inodes, a disk elsewhere), jobs are held for a time, longer with each miss.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.home import durable
from pipeline.queue.back_off import delay_s

ENOUGH_BYTES = 1024**3  # a disk with so much free is not called full by the count
MORE_BYTES = 16 * 1024**2  # that must have been freed since a job found the disk full; less of a small disk
SHARE = 16
FORGET_S = 600.0  # after which a miss is the first one again
LOOK_EVERY_S = 1.0
PROBE = ".room"


@dataclass
class Room:
    """folders: of the home, each on a disk of its own, perhaps. say: told once when room ends, once when it is back."""

    folders: Sequence[Path]
    say: Callable[[str], None]
    _needed: dict[Path, int] = field(default_factory=dict)  # bytes that must be free, of what was found full
    _held_until: float | None = None  # on the monotonic clock; None where no job has missed room
    _missed_at: float = 0.0
    _misses: int = 0

    def is_there(self) -> bool:
        """Whether a job may be started."""
        if self._held_until is None:
            return True
        now = time.monotonic()
        if now < self._held_until:
            return False
        if not all(map(self._has_room, self.folders)):
            self._held_until = now + LOOK_EVERY_S
            return False
        self._needed.clear()
        self._held_until = None
        self.say("there is room on the disk again")
        return True

    def was_missed(self) -> None:
        """Hold jobs back; to be called when a disk was found full."""
        now = time.monotonic()
        if self._held_until is not None:
            return
        for folder in self.folders:
            with contextlib.suppress(OSError):
                usage = shutil.disk_usage(folder)
                if usage.free < ENOUGH_BYTES:
                    self._needed[folder] = usage.free + min(MORE_BYTES, usage.total // SHARE)
        self._misses = self._misses + 1 if now < self._missed_at + FORGET_S else 1
        self._missed_at = now
        self._held_until = now + (0 if self._needed else delay_s(self._misses - 1))
        where = next(iter(self._needed), self.folders[0])
        self.say(f"no room on the disk of {where}: no job is started until there is more")

    def _has_room(self, folder: Path) -> bool:
        """By the count, and by writing: a quota, or a disk without inodes, does not show in the count.

        A folder that is not there, or cannot be written, is no matter of room: whoever needs it says so.
        """
        try:
            if shutil.disk_usage(folder).free < self._needed.get(folder, 0):
                return False
            durable.replace(folder / PROBE, lambda file: file.write(bytes(4096)))
            (folder / PROBE).unlink(missing_ok=True)  # another worker may have removed it
        except OSError as error:
            return error.errno not in durable.DISK_FULL
        return True
