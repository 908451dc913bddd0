"""Checkpoints: `last`, from which a job goes on, `previous`, the one before it, and `best`, with the highest accuracy
on the held-out set.

All are whole: a crash leaves the old file or the new one. What the disk has changed since is found when a file is read,
and the job goes on from `previous`. They hold tensors and plain values only, and are read with `weights_only=True`, so
that a checkpoint from a stranger runs no code.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import secrets
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pipeline.errors import CheckpointError, DamagedError, DivergedError
from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.training.metrics import DIVERGED_HINT

FORMAT = 1
SEAL = b"sha256 "  # begins the comment at the end of a checkpoint, a zip file; its digest follows
DIGEST_CHARS = 64
CHUNK_BYTES = 1 << 20
_NUM = struct.Struct("<H")  # the length of a zip file's comment, before it
_UNFIT = (
    *(pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, struct.error),
)
"""What `torch.load` raises of a file that somebody else has made, beside RuntimeError."""

State = dict[str, Any]


def save(run: RunPaths, state: State, *, is_best: bool = False) -> None:
    """Replace `last`, which becomes `previous`, and `best` too if this is the best so far.

    `best` and `last` are one file under two names then, until `last` moves on; a kill at any point leaves a `last`.
    `last` is read for that (of vgg11_bn, 75 MB, 70 ms): a damaged one does not take the place of one that is whole.
    Raises OSError, also where the run's folder is gone: it is not made again for a checkpoint alone; and DivergedError
    rather than write weights that are not finite, where the state says whether they are.
    """
    state = dict(state)
    if not state.pop("is_finite", True):
        raise DivergedError(f"the weights are not finite after step {state['position']['step']}: {DIVERGED_HINT}")
    if not run.checkpoints.is_dir():
        run.checkpoints.mkdir()
        durable.fsync_folder(run.root)
    content = io.BytesIO()  # in memory first: of a full disk, torch.save says "unexpected pos 124096 vs 123992"
    torch.save({"format": FORMAT, **state}, content)
    _seal(content)
    temporary = durable.write_temporary(run.checkpoints, run.last.name, lambda file: file.write(content.getbuffer()))
    if is_best:
        _give_name(temporary, run.best)  # before `last`, which says how good the best is
    if _is_proven(run.last):
        _give_name(run.last, run.previous)
    durable.rename(temporary, run.last)
    durable.fsync_folder(run.checkpoints)


def _is_proven(path: Path) -> bool:
    """Whether there is a file that can be read and is whole, though not whether this version can go on from it."""
    try:
        return bool(_is_whole_file(path))
    except OSError:
        return False


def _give_name(path: Path, name: Path) -> None:
    """Gives a file a further name, which another file may have had."""
    link = path.with_name(f".{name.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    os.link(path, link)
    durable.rename(link, name)
    link.unlink(missing_ok=True)  # a rename does nothing where both are the same file


def load(path: Path, *, mmap: bool = False) -> State | None:
    """The state that was saved, on the CPU; None where there is no checkpoint.

    mmap: leave the tensors on the disk until they are used. Raises DamagedError where the file is not as it was saved,
    CheckpointError where it is no checkpoint of ours, and OSError where it cannot be read.
    """
    try:
        is_whole = _is_whole_file(path)
        is_ours = is_whole and _is_our_file(path)
    except durable.NotAPlainFileError:
        raise CheckpointError(f"{path}: is not a regular file") from None
    if is_whole is None:
        return None
    if not is_whole:
        raise DamagedError(f"{path}: is damaged")
    not_ours = CheckpointError(f"{path}: is not a checkpoint of this version")
    if not is_ours:
        raise not_ours
    try:
        state = torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
    except _UNFIT:  # though it is as it was written; torch's message advises to run what is in it
        raise not_ours from None
    except RuntimeError as error:
        if "PytorchStreamReader" in str(error):  # in the table of contents of a file without a seal
            raise DamagedError(f"{path}: is damaged") from None
        if "allocate memory" in str(error):
            raise
        raise not_ours from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise not_ours
    del state["format"]
    return state


def metrics_of(state: State) -> dict[str, float]:
    """The latest value of each scalar. Raises CheckpointError where a checkpoint has none."""
    metrics = state.get("metrics")
    if not isinstance(metrics, dict) or not all(isinstance(value, (int, float)) for value in metrics.values()):
        raise CheckpointError("the checkpoint has no metrics, or such as are no numbers")
    return metrics


def _seal(archive: io.BytesIO) -> None:
    """Adds the SHA-256 of all that is in a zip file as its comment, which is its end and disturbs no reader.

    `torch.load` looks at no checksum: of 200 flipped bits it took 195 for other weights. The zip file's own sums do not
    tell all: with the bit that makes a folder of a tensor, torch takes whatever is in memory. Of vgg11_bn's 75 MB the
    hash takes 42 ms (the zip file's sums 22 ms), where torch takes 75 ms to write it and 42 ms to read it.
    """
    with archive.getbuffer() as content:
        digest = hashlib.sha256(content[: -_NUM.size])
    comment = SEAL + digest.hexdigest().encode()
    archive.seek(-_NUM.size, os.SEEK_END)
    archive.write(_NUM.pack(len(comment)) + comment)


def _is_whole_file(path: Path) -> bool | None:
    """Whether a file is as it was written; None where there is none. Raises OSError where it cannot be read now."""
    try:
        with os.fdopen(durable.open_plain(path), "rb") as file:
            return _is_whole(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False  # a sector of the disk is gone


def _is_our_file(path: Path) -> bool:
    with os.fdopen(durable.open_plain(path), "rb") as file:
        return _answer(file, _is_ours)


def _is_whole(file: BinaryIO) -> bool:
    """Whether a file is as it was written."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(SEAL) - DIGEST_CHARS))
    seal = file.read()
    if not seal.startswith(SEAL):
        return _answer(file, _is_whole_archive)
    digest, left = hashlib.sha256(), size - len(seal) - _NUM.size
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
        digest.update(chunk)
        left -= len(chunk)
    return seal[len(SEAL) :] == digest.hexdigest().encode()


def _answer(file: BinaryIO, ask: Callable[[zipfile.ZipFile], bool]) -> bool:
    """What is asked of a zip file; False of what is none, or none that can be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            return ask(archive)
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that: a position before the beginning
            raise
        return False


def _is_whole_archive(archive: zipfile.ZipFile) -> bool:
    """As `_is_whole`, of a file without a seal, from an earlier version or cut short: by the zip file's own sums."""
    is_tested = _is_as_large_as_it_looks(archive) and archive.testzip() is None
    return is_tested and not any(entry.external_attr for entry in archive.infolist())


def _is_ours(archive: zipfile.ZipFile) -> bool:
    """Whether a file is of the kind that `save` writes: with one pickle, and tensors that are not packed.

    Of the kinds that torch reads beside that, older ones and compiled networks, it says how to run what is in them.
    """
    names = [name.rpartition("/")[2] for name in archive.namelist()]
    has_one_pickle = names.count("data.pkl") == 1 and "constants.pkl" not in names
    return has_one_pickle and _is_as_large_as_it_looks(archive)


def _is_as_large_as_it_looks(archive: zipfile.ZipFile) -> bool:
    """Whether nothing in a zip file is packed, or there twice: some kilobytes could stand for all of the memory."""
    entries = archive.infolist()
    is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    return not is_packed and sum(entry.file_size for entry in entries) <= archive.start_dir


def resume(run: RunPaths, *, log: Callable[[str], object]) -> State | None:
    """Returns the state from which the job goes on; None where it begins. Only for the holder of the job's lease.

    Where `last` is damaged or gone, `previous` takes its place, and `log` is told so. Raises CheckpointError.
    """
    state, why_not_last = _newest(run)
    if why_not_last:
        _give_name(run.previous, run.last)  # so that the damaged one is never made the previous one of the next
        durable.fsync_folder(run.checkpoints)
        log(f"{why_not_last}; the job goes on from the checkpoint before it, {run.previous.name}")
    return state


def saved_step(run: RunPaths) -> int | None:
    """Returns the step from which the job goes on; None where there is no checkpoint that can be read."""
    try:
        state, _ = _newest(run, mmap=True)
        return None if state is None else int(state["position"]["step"])
    except (OSError, CheckpointError, LookupError, TypeError, ValueError):
        return None


def is_usable(path: Path) -> bool:
    """Whether there is a checkpoint that can be loaded; reads all of it."""
    try:
        return load(path, mmap=True) is not None
    except (OSError, CheckpointError):
        return False


def _newest(run: RunPaths, *, mmap: bool = False) -> tuple[State | None, str]:
    """Returns the state of `last`, or of `previous` and why it is not that of `last`. Raises CheckpointError."""
    has_previous = durable.is_there(run.previous)
    remedy = f"the job goes on from {run.previous.name}" if has_previous else "the job begins anew"
    try:
        state, why = load(run.last, mmap=mmap), f"{run.last}: is missing"
    except DamagedError as error:
        state, why = None, str(error)
        if not has_previous:
            raise CheckpointError(f"{error}; remove it and {remedy}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it and {remedy}") from None
    if state is not None or not has_previous:
        return state, ""
    try:
        return load(run.previous, mmap=mmap), why
    except CheckpointError as error:
        raise CheckpointError(f"{why}; {error}; remove both and the job begins anew") from None
