"""Datasets: what the training engine gets as a `Dataset`, by its name, from the cache where it lies there.

To add a dataset, write a reader, a function

    read(datasets: Path, *, image_size: int | None, log: Log, <its options>) -> Found

and give it a line in the catalog. A reader looks first (cheaply: it runs at the start of every job) and decodes later
(only when the cache has nothing). Importing its module must not import torchvision, which takes a second: a
reader imports it where it decodes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.data import splitting
from pipeline.data.cache import Cache, Log
from pipeline.data.normalization import Normalization, moments
from pipeline.data.resizing import resize
from pipeline.data.splits import FileSplit, Split
from pipeline.errors import DataError
from pipeline.wording import plural

SAMPLE = 2_000  # images of a FileSplit that mean and std are taken from


@dataclass(frozen=True)
class Contents:
    """What a reader decodes. `notes`: what a user should be told, one sentence each.

    val: to choose the best epoch by; None where there is none. One of val and test there must be.
    """

    train: Split | FileSplit
    test: Split | FileSplit | None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    val: Split | FileSplit | None = None


@dataclass(frozen=True)
class Found:
    """What a reader sees before it decodes anything.

    `state` changes whenever the dataset's files do; empty if there are none to look at. It is asked again after
    `decode`, which may have downloaded them. None: nobody can tell, and it is decoded each time.
    """

    decode: Callable[[], Contents]
    state: Callable[[], str] | None = lambda: ""


@dataclass(frozen=True)
class Dataset:
    """A dataset, ready to train on.

    fingerprint: sha256 over pixels, labels and class names; for a FileSplit over names, sizes and times of the files.
    mean, std: per channel of the training set, of pixels in [0, 1]; for a FileSplit from 2,000 of its images.
    """

    train: Split | FileSplit
    test: Split | FileSplit | None
    classes: tuple[str, ...]
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...]
    val: Split | FileSplit | None = None

    @property
    def held_out_name(self) -> Literal["val", "test"]:
        """The split that every epoch is judged by, and the best one chosen: `val` where there is one."""
        return "test" if self.val is None else "val"

    @property
    def held_out(self) -> Split | FileSplit:
        """The images of that split."""
        split = self.test if self.val is None else self.val
        assert split is not None
        return split

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each split has, of those that there are."""
        return {name: len(split) for name, split in _splits(self).items() if split is not None}

    @property
    def normalization(self) -> Normalization:
        return Normalization(self.mean, self.std)


def load(
    name: str,
    reader: Callable[..., Found],
    options: Mapping[str, object],
    *,
    image_size: int | None,
    datasets: Path,
    log: Log,
    val: float | None = None,
    before_decoding: Callable[[], object] = lambda: None,
) -> Dataset:
    """The dataset `name` as its reader finds it, its images resized to `image_size`, or as they are if that is None.

    val: the share of the training images that are held out, to choose the best epoch by.
    before_decoding: is called where the cache does not have it.
    Leaves the decoded images in `datasets/.cache`, so that the next job starts at once. Any number of processes may
    ask for the same dataset at once: one downloads and decodes, the others wait. Raises DataError.
    """
    found = reader(datasets, image_size=image_size, log=log, **options)
    if found.state is None:
        before_decoding()
        return _made(name, found, image_size, val)
    held_out = {} if val is None else {"val": val}
    cache = Cache(datasets, name, {"image_size": image_size, **held_out, **options}, log=log)
    if dataset := _restore(cache, found.state()):
        return dataset
    before_decoding()
    with cache.locked():
        if dataset := _restore(cache, found.state()):
            return dataset
        dataset = _made(name, found, image_size, val)
        _keep(dataset, cache, state=found.state())
        return dataset


def digest(files: Iterable[tuple[str | Path, os.stat_result]]) -> str:
    """A digest of names, sizes and modification times, for `Found.state`. Reads no file."""
    lines = [f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n" for name, status in files]
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()  # encoded at once, in a third of the time


def _made(name: str, found: Found, image_size: int | None, val: float | None) -> Dataset:
    contents = found.decode()
    if val is not None:
        contents = _with_val(name, contents, val)
    ready: dict[str, Any] = {
        key: prepared(name, split, contents.classes, image_size)
        for key, split in _splits(contents).items()
        if split is not None
    }
    return _measure(dataclasses.replace(contents, **ready))


def _with_val(name: str, contents: Contents, share: float) -> Contents:
    """Holds out a share of the training images, to choose the best epoch by. Raises DataError."""
    train = contents.train
    if contents.val is not None or not isinstance(train, Split):
        raise DataError(f"{name}: data.val cannot hold out images of it, which has its own or reads them from disk")
    numbers = splitting.places(splitting.digests_of_images(train.images.contiguous()), seed=0)
    sides = splitting.sides(numbers, train.labels, contents.classes, val=share, test=0.0)
    parts = [
        Split(train.images[sides == side], train.labels[sides == side]) for side in (splitting.TRAIN, splitting.VAL)
    ]
    return dataclasses.replace(contents, train=parts[0], val=parts[1])


def _keep(dataset: Dataset, cache: Cache, *, state: str) -> None:
    packed = {name: None if split is None else _pack(split) for name, split in _splits(dataset).items()}
    if cache.write({**vars(dataset), **packed, "seal": _seal(dataset)}, state=state):
        cache.note_as_right(cache.look())


def _splits(dataset: Contents | Dataset) -> dict[str, Split | FileSplit | None]:
    return {"train": dataset.train, "val": dataset.val, "test": dataset.test}


def _restore(cache: Cache, state: str) -> Dataset | None:
    """What the cache holds, if every byte of it is as it was written, which is looked at where somebody may have."""
    look = cache.look()  # before it is read: what is written meanwhile was not hashed
    kept = cache.read(state)
    if kept is None:
        return None
    try:
        seal = kept.pop("seal")
        splits = {name: kept[name] and _unpack(kept[name]) for name in ("train", "val", "test")}
        dataset = Dataset(**{**kept, **splits})
        if seal == _seal(dataset):
            if cache.is_known_as_right(look):
                return dataset
            if dataset.fingerprint == _fingerprint(dataset):
                cache.note_as_right(look)
                return dataset
    except (LookupError, TypeError, ValueError, AttributeError, OSError):  # OSError: a file of a FileSplit has gone
        pass
    cache.log(f"{cache.file} is not as it was written; reading the dataset again")
    return None


def _seal(dataset: Dataset) -> str:
    """A digest of all that the fingerprint does not cover."""
    files = [split.files for split in (dataset.train, dataset.test, dataset.val) if isinstance(split, Split)]
    text = repr((dataset.fingerprint, dataset.mean, dataset.std, dataset.notes, files))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _pack(split: Split | FileSplit) -> dict[str, Any]:
    """As `torch.load(weights_only=True)` can give it back; a million paths as one string, which loads at once."""
    return {**vars(split), "files": None if split.files is None else "\0".join(map(str, split.files))}


def _unpack(kept: dict[str, Any]) -> Split | FileSplit:
    files = None if kept["files"] is None else tuple(kept["files"].split("\0"))
    if "images" in kept:
        return Split(**{**kept, "files": files})
    return FileSplit(**{**kept, "files": tuple(map(Path, files or ()))})


def prepared(name: str, split: Split | FileSplit, classes: Sequence[str], image_size: int | None) -> Split | FileSplit:
    """The split as the engine relies on it: of square images in the size asked for, each with a label."""
    if not len(split) or not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(classes):
        raise DataError(f"{name}: a split has no images, or labels beyond its {plural(len(classes), 'class')}")
    if isinstance(split, FileSplit):
        return split
    images = split.images
    if len(images) != len(split):
        raise DataError(f"{name}: a split has {plural(len(images), 'image')} but {plural(len(split), 'label')}")
    if image_size is not None and images.shape[1:3] != (image_size, image_size):
        images = resize(images, image_size)
    height, width = images.shape[1:3]
    if height != width:
        raise DataError(f"{name}: images of {width} x {height} pixels are not square; set data.image_size")
    return Split(images.contiguous(), split.labels.to(torch.int64), split.files)


def _measure(contents: Contents) -> Dataset:
    train, notes = contents.train, contents.notes
    images = train.images if isinstance(train, Split) else train.read(_sample(len(train)))
    if len(images) < len(train):
        notes = (*notes, f"mean and standard deviation are of {len(images):,} of the {len(train):,} training images")
    mean, std = moments(images)
    fingerprint = _fingerprint(contents)
    return Dataset(train, contents.test, contents.classes, fingerprint, mean, std, notes, contents.val)


def _sample(count: int) -> list[int]:
    """Up to 2,000 of `count` indices, evenly spread, as images lie sorted by class."""
    return torch.linspace(0, count - 1, min(count, SAMPLE), dtype=torch.float64).round().long().tolist()


def _fingerprint(dataset: Contents | Dataset) -> str:
    total = hashlib.sha256(repr(tuple(dataset.classes)).encode("utf-8", "surrogatepass"))
    for split in (dataset.train, dataset.test, dataset.val):
        if split is None:
            continue
        if isinstance(split, Split):
            total.update(repr(tuple(split.images.shape)).encode())
            total.update(split.images.numpy().data)
        else:
            named = ((Path(*file.parts[-3:]), file.stat()) for file in split.files)
            total.update(f"{split.image_size} {digest(named)}".encode())
        total.update(split.labels.numpy().data)
    return total.hexdigest()
