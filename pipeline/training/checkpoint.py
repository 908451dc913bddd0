"""Checkpoints: `last`, from which a job goes on, and `best`, with the highest accuracy on the held-out set.

Both are whole: a crash leaves the old file or the new one. They hold tensors and plain values only, and are read with
`weights_only=True`, so that a checkpoint from a stranger runs no code.
"""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import CheckpointError
from pipeline.home import durable
from pipeline.home.paths import RunPaths

FORMAT = 1


def save(run: RunPaths, state: dict[str, Any], *, is_best: bool = False) -> None:
    """Replace `last`, and `best` too if this is the best so far: one file under two names, until `last` moves on.

    Raises OSError, also where the run's folder is gone: it is not made again for a checkpoint alone.
    """
    if not run.checkpoints.is_dir():
        run.checkpoints.mkdir()
        durable.fsync_folder(run.root)
    content = io.BytesIO()  # in memory first: of a full disk, torch.save says "unexpected pos 124096 vs 123992"
    torch.save({"format": FORMAT, **state}, content)
    temporary = durable.write_temporary(run.checkpoints, run.last.name, lambda file: file.write(content.getbuffer()))
    if is_best:
        link = temporary.with_suffix(".best")
        os.link(temporary, link)
        link.replace(run.best)  # before `last`, which says how good the best is
    temporary.replace(run.last)
    durable.fsync_folder(run.checkpoints)


def load(path: Path) -> dict[str, Any] | None:
    """The state that was saved, on the CPU; None where there is no checkpoint.

    Raises CheckpointError where what is there is none, and OSError where it cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: is damaged ({error}); remove it and the job begins anew") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is not a checkpoint of this version; remove it and the job begins anew")
    del state["format"]
    return state


def saved_step(run: RunPaths) -> int | None:
    """Returns the step from which the job goes on; None where there is no checkpoint that can be read."""
    try:
        state = torch.load(run.last, map_location="cpu", mmap=True, weights_only=True)  # no tensor is read
        return int(state["position"]["step"])
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, pickle.UnpicklingError):
        return None
