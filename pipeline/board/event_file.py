"""The names of event files, `events.out.tfevents.<time>.<host>.<process>.0.<attempt>`: each attempt has one.

TensorBoard reads the files of a run in the order of their names, and the start of a session hides what came before it.
So the name of a file sorts after those that are there, also where the clock was set back since the attempt before.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from pipeline.home import durable
from pipeline.home.paths import RunPaths

_TIME = re.compile(r"events\.out\.tfevents\.([0-9]{1,100})(?![0-9])")  # of a file of ours ten digits, until 2286
_MAX_NUMBER_DIGITS = 9


def attempt_number(path: Path) -> int:
    """Returns what an attempt has written into the name of its file; 0 where another program wrote it."""
    text = path.suffix.removeprefix(".")
    return int(text) if text.isdecimal() and len(text) <= _MAX_NUMBER_DIGITS else 0


def create(folder: Path) -> Path:
    """Makes the file of a new attempt, empty, whose name is durable and sorts after those that are there."""
    durable.ask_first()  # a later file hides the curve of those before it
    files = RunPaths(folder).events()
    number = max(map(attempt_number, files), default=0) + 1
    seconds = time_after((file.name for file in files), time.time())
    path = folder / f"events.out.tfevents.{seconds}.{socket.gethostname()[:64]}.{os.getpid()}.0.{number}"
    path.open("xb").close()
    durable.fsync_folder(folder)  # else a power cut could leave the next checkpoint and not its curve
    return path


def time_after(names: Iterable[str], now: float) -> str:
    """Returns the time as a file's name has it; where a name would not sort before that, the next number that does."""
    latest = max((found[1] for name in names if (found := _TIME.match(name))), default="")
    text = f"{int(now):010}"
    if text <= latest:
        text = str(int(latest) + 1).zfill(len(latest))
    return text if text > latest else f"{latest}0"  # 9, 90, 91
