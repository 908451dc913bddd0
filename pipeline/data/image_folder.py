"""A user's own images, `train/<class>/*`, `val/...`, `test/...` or `<class>/*`, in any format that Pillow reads.

Every image is decoded once, before training, so that a damaged file is named at the start and not in the fifth hour.
Those too many for memory are decoded again, each epoch, from disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data import splitting
from pipeline.data.cache import Log
from pipeline.data.dataset import Contents, Found, digest
from pipeline.data.folder_listing import SPLITS, Files, Listing, abbreviated, list_folder
from pipeline.data.image_file import open_file, read_image
from pipeline.data.splits import FileSplit, Split, within_folder
from pipeline.errors import DataError
from pipeline.home.paths import find_data
from pipeline.wording import plural

_CHUNK = 512  # images that a thread decodes at a time
_NAMED = 10  # damaged files in a message
_MAX_THREADS = 8  # small images hold Python's lock for most of their time: more threads only fight for it


def read(
    datasets: Path,
    *,
    image_size: int | None,
    log: Log,
    path: str,
    on_corrupt: Literal["fail", "skip"],
    in_memory: Literal["auto", "always", "never"],
    split: Mapping[str, Any] | None = None,
) -> Found:
    shares = {name: float(split[name]) for name in ("val", "test") if split[name]} if split else {}
    found = list_folder(resolve(path, datasets), shares)
    state = digest(pair for files in found.splits.values() for pair in files.named())

    def decode() -> Contents:
        listing = _with_shares(found, shares, seed=int(split["seed"])) if split else found
        side = image_size or _native_size(listing)
        count = sum(len(files.names) for files in listing.splits.values())
        streams = in_memory == "never" or (in_memory == "auto" and count * side * side * 3 > memory_bytes() // 4)
        log(f"reading {plural(count, 'image')} from {listing.root}" + ("; they stay on disk" if streams else ""))
        decoded = {
            name: _decode(files, side, resize=image_size is not None, keep=not streams)
            for name, files in listing.splits.items()
        }
        notes = _judge(listing, decoded, skip=on_corrupt == "skip")
        splits = {name: _split(listing.splits[name], one, side) for name, one in decoded.items()}
        return Contents(
            splits["train"], splits.get("test"), listing.classes, (*listing.notes, *notes), val=splits.get("val")
        )

    return Found(decode, lambda: state)


def _with_shares(listing: Listing, shares: Mapping[str, float], *, seed: int) -> Listing:
    """Returns a listing with shares of its training images held out, by what is in their files. Raises DataError."""
    train = listing.splits["train"]
    numbers = splitting.places(map(_digest, train.paths), seed=seed)
    labels = torch.tensor(train.labels, dtype=torch.int64)
    val, test = (shares.get(name, 0.0) for name in ("val", "test"))
    sides = splitting.sides(numbers, labels, listing.classes, val=val, test=test)
    parts = {"train": splitting.TRAIN, "val": splitting.VAL, "test": splitting.TEST}
    held_out = {
        name: train.chosen((sides == side).nonzero().flatten().tolist())
        for name, side in parts.items()
        if name == "train" or name in shares
    }
    splits = {**listing.splits, **held_out}
    return dataclasses.replace(listing, splits={name: splits[name] for name in SPLITS if name in splits})


def _digest(file: Path) -> bytes:
    """Of what is in it; of one that cannot be read, of its name: `_decode` meets it again, and says so."""
    try:
        with open_file(file) as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except (OSError, ValueError):
        return os.fsencode(file.name)


def resolve(path: str, datasets: Path) -> Path:
    """`path` as a job file gives it: absolute, or with `~`, or in the datasets' folder."""
    try:
        return find_data(datasets, Path(path).expanduser())
    except (OSError, RuntimeError) as error:  # a name that is too long; ~somebody whom nobody knows
        raise DataError(f"data.path: {path}: {error}") from error


def memory_bytes() -> int:
    """The machine's memory, or the container's limit; not what is free now, which differs from attempt to attempt."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # not there, or "max"
            total = min(total, int(Path(limit).read_text()))
    return total


@dataclass(frozen=True)
class _Decoded:
    """images: uint8 (N, side, side, 3), or None where they stay on disk. unreadable: reasons, by index."""

    images: torch.Tensor | None
    unreadable: dict[int, str]

    def kept(self, files: Files) -> list[int]:
        return [index for index in range(len(files.names)) if index not in self.unreadable]


def _decode(files: Files, side: int, *, resize: bool, keep: bool) -> _Decoded:
    """Decodes every file once. Raises DataError at the first image, in order, of a size other than `side`."""
    count = len(files.names)
    images = torch.empty(count, side, side, 3, dtype=torch.uint8) if keep else None
    pixels = None if images is None else images.numpy()

    def decode_chunk(start: int) -> list[tuple[int, str]]:
        unreadable = []
        for index in range(start, min(start + _CHUNK, count)):
            try:
                image = read_image(files.paths[index], side if resize else None)
            except DataError as error:
                unreadable.append((index, str(error)))
                continue
            _require_side(files.paths[index], image, side)
            if pixels is not None:
                pixels[index] = image
        return unreadable

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        chunks = pool.map(decode_chunk, range(0, count, _CHUNK))  # in order; an error cancels those not begun
        return _Decoded(images, {index: reason for chunk in chunks for index, reason in chunk})


def _native_size(listing: Listing) -> int:
    """The side of the first image that can be read, which all others must have."""
    for file in listing.splits["train"].paths:
        with suppress(DataError):  # `_decode` meets it again and names it
            image = read_image(file, None)
            break
    else:
        count = len(listing.splits["train"].names)
        raise DataError(f"no image among the {plural(count, 'file')} to train on below {listing.root}")
    _require_side(file, image, image.shape[0])
    return int(image.shape[0])


def _require_side(file: Path, image: NDArray[np.uint8], side: int) -> None:
    height, width = image.shape[:2]
    if (height, width) != (side, side):
        why = f"the first one has {side} x {side}" if height == width else "it is not square"
        raise DataError(
            f"{file} has {width} x {height} pixels and {why}: "
            f"set data.image_size, and every image is brought to that size"
        )


def _judge(listing: Listing, decoded: Mapping[str, _Decoded], *, skip: bool) -> list[str]:
    """Notes on what is left out. Raises DataError unless that is allowed, and if it leaves a class without images."""
    reasons = [reason for one in decoded.values() for _, reason in sorted(one.unreadable.items())]
    if not reasons:
        return []
    named = "\n".join(f"  {reason}" for reason in reasons[:_NAMED])
    more = f"\n  and {len(reasons) - _NAMED:,} more" if len(reasons) > _NAMED else ""
    if not skip:
        raise DataError(
            f"{plural(len(reasons), 'file')} of {listing.root} cannot be read; "
            f"repair or remove {'it' if len(reasons) == 1 else 'them'}, or set data.on_corrupt to skip:\n{named}{more}"
        )
    for split, one in decoded.items():
        files = listing.splits[split]
        left = {files.labels[index] for index in one.kept(files)}
        if empty := [name for label, name in enumerate(listing.classes) if label not in left]:
            raise DataError(f"no image of {listing.root}/{split} can be read for {abbreviated(empty)}:\n{named}{more}")
    return [f"{plural(len(reasons), 'file')} left out that cannot be read:\n{named}{more}"]


def _split(files: Files, decoded: _Decoded, side: int) -> Split | FileSplit:
    kept = decoded.kept(files)
    labels = torch.tensor([files.labels[index] for index in kept], dtype=torch.int64)
    paths = tuple(files.paths[index] for index in kept)
    if decoded.images is None:
        return FileSplit(paths, labels, side)
    images = decoded.images[kept] if decoded.unreadable else decoded.images
    return Split(images, labels, tuple(map(within_folder, paths)))
