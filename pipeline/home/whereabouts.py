"""Where a home is when a command was given none: in `./var`, or in that of the checkout that it is typed in.

A checkout has its home in `var/`. From one of its sub-folders `./var` would be another home, and an empty one.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "var"  # of a checkout's home
INSTALLED_FROM = Path(__file__).resolve().parents[2]  # a checkout, where this program is installed editable


def default_root() -> Path:
    """Returns `./var` where that is a home; else that of the nearest folder above which has one, or is the checkout.

    Outside of all of these it is `./var`, as it may be made. A home that belongs to somebody else is found only where
    it is `./var` or the checkout's: its jobs may have code of theirs.
    """
    here = Path(FOLDER).absolute()
    if _has_queue(here):
        return here
    for folder in here.parents[:-1]:  # /var is no home
        if _is_checkout(folder) or (_has_queue(folder / FOLDER) and _is_ours(folder / FOLDER)):
            return folder / FOLDER
    return here


def _has_queue(root: Path) -> bool:
    return os.path.isdir(root / "queue")  # noqa: PTH112 - Path.is_dir raises where a folder above cannot be searched


def _is_checkout(folder: Path) -> bool:
    """Whether this program is installed from there: in an environment the package has no job files beside it."""
    return folder == INSTALLED_FROM and (folder / "jobs").is_dir()


def _is_ours(root: Path) -> bool:
    return root.stat().st_uid == os.getuid()
