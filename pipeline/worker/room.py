"""Room on the disk, as a worker sees it: no job is claimed while there is none.

How much a job needs nobody knows. So of a disk that a job found full, more must be free than there was then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.home import durable

ENOUGH_BYTES = 1024**3  # so much is not called full, whatever a job says: it was another disk that was
MORE_BYTES = 16 * 1024**2  # that must have been freed since a job found the disk full; less of a small disk
SHARE = 16


@dataclass
class Room:
    """folders: of the home, each on a disk of its own, perhaps. say: told once when room ends, once when it is back."""

    folders: Sequence[Path]
    say: Callable[[str], None]
    _needed: dict[Path, int] = field(default_factory=dict)  # bytes that must be free, of what was found full
    _is_told: bool = False

    def is_there(self) -> bool:
        """Whether a job may be started. Raises OSError where the disk does not say."""
        full = [folder for folder, needed in self._needed.items() if not _has_room(folder, needed)]
        if full:
            return False
        self._needed.clear()
        if self._is_told:
            self._is_told = False
            self.say("there is room on the disk again")
        return True

    def was_missed(self) -> bool:
        """To be called when a disk was found full. Whether one of these is, as far as the system says."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                usage = shutil.disk_usage(folder)
                if usage.free < ENOUGH_BYTES and folder not in self._needed:
                    self._needed[folder] = usage.free + min(MORE_BYTES, usage.total // SHARE)
        if self._needed:
            self._tell(f"no room on the disk of {next(iter(self._needed))}: no job is started until there is more")
        return bool(self._needed)

    def _tell(self, line: str) -> None:
        if not self._is_told:
            self._is_told = True
            self.say(line)


def _has_room(folder: Path, needed: int) -> bool:
    """By the count, and by writing: a quota, or a disk without inodes, does not show in the count."""
    if shutil.disk_usage(folder).free < needed:
        return False
    probe = folder / f".room-{secrets.token_hex(4)}.tmp"
    try:
        durable.replace(probe, lambda file: file.write(bytes(4096)))
        os.unlink(probe)  # noqa: PTH108 - as it was made
    except OSError as error:
        if error.errno in durable.DISK_FULL:
            return False
        raise
    return True
