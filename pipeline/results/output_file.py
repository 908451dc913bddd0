"""The file that a command is told to write: whether it can be one, asked before the work, and its writing as a whole.

A link is followed. What is there and is no regular file is left alone: in the place of /dev/null a file would stay.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PipelineError, UsageError
from pipeline.home import durable


def check(out: Path, *, example: Path | None = None, remedy: str = "") -> None:
    """Raises UsageError where `out` can be no file.

    example: a name to suggest in the place of a folder. remedy: what to do in place of naming another file.
    """
    try:
        target = follow(out)
        is_folder, is_other = target.is_dir(), target.exists() and not target.is_file()
        has_folder = target.parent.is_dir()
    except OSError as error:  # the name is too long, a folder is closed
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    if is_folder:
        instead = "name a file in it" + (f", as {example}" if example else "")
        raise UsageError(f"{out}: is a folder; {remedy or instead}")
    if is_other:
        raise UsageError(f"{out}: is not a regular file; {remedy or 'name another one'}")
    if not has_folder:
        raise UsageError(f"{out}: cannot be written: there is no folder {target.parent}; make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{out}: the folder {target.parent} cannot be written to; name another one")


def follow(out: Path) -> Path:
    """Returns the path that links lead to. Raises UsageError where they lead in a circle."""
    try:
        target = out.resolve()
    except RuntimeError:  # until Python 3.12; from then on such a link leads to itself
        target = out
    if target.is_symlink():
        raise UsageError(f"{out}: leads nowhere, by way of a link; name another file")
    return target


def write(out: Path, write_content: Callable[[BinaryIO], object]) -> None:
    """Writes the file, whole or not at all. Raises UsageError as `check` does, PipelineError where it fails."""
    check(out)
    with saying_what_fails(out):
        durable.replace(follow(out), write_content)


@contextlib.contextmanager
def saying_what_fails(out: Path) -> Iterator[None]:
    """Makes what the disk refuses a message for a person."""
    try:
        yield
    except OSError as error:
        raise PipelineError(f"{out}: cannot be written: {error.strerror or error}") from None
