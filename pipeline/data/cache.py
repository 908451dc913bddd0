"""Decoded datasets on disk: `datasets/.cache/`, one file a dataset and its options, replaced when the files change.

    <name>-<digest of the request>.pt   tensors, statistics and the state of the files that they were made from
    <name>-<digest of the request>.seen what the file system says of a .pt file whose every byte was right
    <name>.lock                         held while a dataset is downloaded and decoded, by one process at a time
    <name>-....tmp                      being written; complete and fsynced before it is renamed

Everything here can be deleted at any time: it is made again. `cpu_choice.py` keeps what it has measured here too. A
folder that cannot be written costs time, not the job.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.home import durable

FORMAT = 2
"""Counts up when what a cache file holds, or how images are decoded, changes; older files are made again."""

Log = Callable[[str], None]

_DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, pickle.UnpicklingError, struct.error),
)
"""What `torch.load` raises on a file that is cut off, overwritten or not a torch file at all."""


class Cache:
    def __init__(self, datasets: Path, name: str, request: Mapping[str, object], *, log: Log) -> None:
        """`request`: everything that a user chose and that changes the result."""
        digest = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.folder = datasets / ".cache"
        self.file = self.folder / f"{name}-{digest}.pt"
        self.seen_file = self.file.with_suffix(".seen")
        self.lock_file = self.folder / f"{name}.lock"
        self.log = log

    def read(self, state: str) -> dict[str, Any] | None:
        """What was kept, or None if there is nothing of this state that can be read. The tensors are mapped, not read.

        `state`: of the dataset's files now; empty if it cannot be known, and then whatever was kept is right.
        """
        if not self.file.is_file():  # at a pipe, the training would wait for ever
            return None
        try:
            kept = torch.load(self.file, map_location="cpu", mmap=True, weights_only=True)
            if kept["format"] != FORMAT or state not in ("", kept["state"]):
                return None
            contents: dict[str, Any] = kept["contents"]
        except _DAMAGED as error:
            self.log(f"{self.file} cannot be read ({type(error).__name__}); reading the dataset again")
            return None
        return contents

    def write(self, contents: Mapping[str, Any], *, state: str) -> bool:
        """Returns whether the contents are kept."""
        temporary = self.file.with_suffix(".tmp")  # one writer at a time: the lock is held
        try:
            temporary.unlink(missing_ok=True)  # whatever it is
            with temporary.open("wb") as stream:
                torch.save({"format": FORMAT, "state": state, "contents": dict(contents)}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.file)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's own zip writer, on a full disk
            self.log(f"the decoded dataset is not kept, so that the next job reads it again: {error}")
            with contextlib.suppress(OSError):
                temporary.unlink()
            return False
        return True

    def look(self) -> str:
        """What the file system says of the file now, which a write changes; nothing where there is none."""
        try:
            status = self.file.stat()
        except OSError:
            return ""
        return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"

    def is_known_as_right(self, look: str) -> bool:
        """Whether every byte of the file was right when it looked so.

        Hashing 60,000 images of CIFAR-10 takes 0.4 to 1.3 s, at the start of every job. A bit that the disk itself has
        lost is not noticed so: it is one pixel.
        """
        try:
            return bool(look) and self.seen_file.read_text() == look
        except (OSError, ValueError):
            return False

    def note_as_right(self, look: str) -> None:
        """Remember that every byte of the file was right when it looked so."""
        with contextlib.suppress(OSError):  # then it is hashed again
            temporary = self.seen_file.with_suffix(".seen.tmp")
            temporary.write_text(look)
            temporary.replace(self.seen_file)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time, released by the kernel if it dies. Where no file can be made there is no lock."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = os.fdopen(durable.open_plain(self.lock_file, os.O_WRONLY | os.O_CREAT), "wb")
        except OSError as error:
            self.log(f"{self.folder} cannot be written ({error}); going on without it")
            yield
            return
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.log(f"waiting for another job that is reading {self.lock_file.stem}")
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield
