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
from typing import Any

import torch
import torch.nn.functional as F

from pipeline.data.cache import Cache, Log
from pipeline.data.normalization import Normalization
from pipeline.errors import DataError

_SAMPLE = 2_000  # images of a FileSplit that mean and std are taken from
_CHUNK = 4_096  # images of 32 pixels that are converted to float at a time


@dataclass(frozen=True)
class Split:
    """A split in memory. images: uint8 (N, H, W, C), contiguous. labels: int64 (N,).

    files: what `file_of` returns of each image; None where images are no files.
    """

    images: torch.Tensor
    labels: torch.Tensor
    files: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        return self.images.shape[1]

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (B, H, W, C)."""
        return self.images[torch.as_tensor(indices, dtype=torch.int64)]

    def file_of(self, index: int) -> str | None:
        """Returns the file of an image as its folder of images names it, `test/cat/7.png`; None where it has none."""
        return None if self.files is None else self.files[index]


@dataclass(frozen=True)
class FileSplit:
    """A split whose images stay on disk, being too large for memory. labels: int64 (N,)."""

    files: tuple[Path, ...]
    labels: torch.Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.files)

    @property
    def channels(self) -> int:
        return 3

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (B, image_size, image_size, 3). Raises DataError if a file has gone or is damaged since the start."""
        from pipeline.data.image_file import read_image

        batch = torch.empty(len(indices), self.image_size, self.image_size, 3, dtype=torch.uint8)
        pixels = batch.numpy()
        for row, index in enumerate(indices):
            pixels[row] = read_image(self.files[int(index)], self.image_size)
        return batch

    def file_of(self, index: int) -> str:
        """Returns the file of an image as its folder of images names it: `test/cat/7.png`."""
        return within_folder(self.files[index])


def within_folder(file: Path) -> str:
    """Returns split, class and name of a file in a folder of images: `test/cat/7.png`."""
    return "/".join(file.parts[-3:])


@dataclass(frozen=True)
class Contents:
    """What a reader decodes. `notes`: what a user should be told, one sentence each."""

    train: Split | FileSplit
    test: Split | FileSplit
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


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
    test: Split | FileSplit
    classes: tuple[str, ...]
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...]

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
) -> Dataset:
    """The dataset `name` as its reader finds it, its images resized to `image_size`, or as they are if that is None.

    Leaves the decoded images in `datasets/.cache`, so that the next job starts at once. Any number of processes may
    ask for the same dataset at once: one downloads and decodes, the others wait. Raises DataError.
    """
    found = reader(datasets, image_size=image_size, log=log, **options)
    if found.state is None:
        return _made(name, found, image_size)
    cache = Cache(datasets, name, {"image_size": image_size, **options}, log=log)
    if dataset := _restore(cache, found.state()):
        return dataset
    with cache.locked():
        return _restore(cache, found.state()) or _make(name, found, found.state, cache, image_size)


def digest(files: Iterable[tuple[str | Path, os.stat_result]]) -> str:
    """A digest of names, sizes and modification times, for `Found.state`. Reads no file."""
    lines = (b"%s\0%d\0%d\n" % (os.fsencode(name), status.st_size, status.st_mtime_ns) for name, status in files)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _made(name: str, found: Found, image_size: int | None) -> Dataset:
    contents = found.decode()
    return _measure(
        dataclasses.replace(
            contents,
            train=_prepared(name, contents.train, contents.classes, image_size),
            test=_prepared(name, contents.test, contents.classes, image_size),
        )
    )


def _make(name: str, found: Found, state: Callable[[], str], cache: Cache, image_size: int | None) -> Dataset:
    dataset = _made(name, found, image_size)
    kept = {**vars(dataset), "train": _pack(dataset.train), "test": _pack(dataset.test), "seal": _seal(dataset)}
    if cache.write(kept, state=state()):
        cache.note_as_right(cache.look())
    return dataset


def _restore(cache: Cache, state: str) -> Dataset | None:
    """What the cache holds, if every byte of it is as it was written, which is looked at where somebody may have."""
    look = cache.look()  # before it is read: what is written meanwhile was not hashed
    kept = cache.read(state)
    if kept is None:
        return None
    try:
        seal = kept.pop("seal")
        dataset = Dataset(**{**kept, "train": _unpack(kept["train"]), "test": _unpack(kept["test"])})
        if seal == _seal(dataset):
            if cache.is_known_as_right(look):
                return dataset
            if dataset.fingerprint == _fingerprint(dataset.train, dataset.test, dataset.classes):
                cache.note_as_right(look)
                return dataset
    except (LookupError, TypeError, ValueError, AttributeError, OSError):  # OSError: a file of a FileSplit has gone
        pass
    cache.log(f"{cache.file} is not as it was written; reading the dataset again")
    return None


def _seal(dataset: Dataset) -> str:
    """A digest of all that the fingerprint does not cover."""
    files = [split.files for split in (dataset.train, dataset.test) if isinstance(split, Split)]
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


def _prepared(name: str, split: Split | FileSplit, classes: Sequence[str], image_size: int | None) -> Split | FileSplit:
    """The split as the engine relies on it: of square images in the size asked for, each with a label."""
    if not len(split) or not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(classes):
        raise DataError(f"{name}: a split has no images, or labels beyond its {len(classes)} classes")
    if isinstance(split, FileSplit):
        return split
    images = split.images
    if len(images) != len(split):
        raise DataError(f"{name}: a split has {len(images):,} images but {len(split):,} labels")
    if image_size is not None and images.shape[1:3] != (image_size, image_size):
        images = _resized(images, image_size)
    height, width = images.shape[1:3]
    if height != width:
        raise DataError(f"{name}: images of {width} x {height} pixels are not square; set data.image_size")
    return Split(images.contiguous(), split.labels.to(torch.int64), split.files)


def _resized(images: torch.Tensor, image_size: int) -> torch.Tensor:
    """Bilinear, antialiased, in float, rounded. images: uint8 (N, H, W, C)."""
    resized = torch.empty(len(images), image_size, image_size, images.shape[3], dtype=torch.uint8)
    chunk = max(1, _CHUNK * 32**2 // max(image_size, images.shape[1]) ** 2)
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].permute(0, 3, 1, 2).float()
        pixels = F.interpolate(pixels, size=(image_size, image_size), mode="bilinear", antialias=True)
        resized[start : start + chunk] = pixels.round_().clamp_(0, 255).permute(0, 2, 3, 1)
    return resized


def _measure(contents: Contents) -> Dataset:
    train, notes = contents.train, contents.notes
    images = train.images if isinstance(train, Split) else train.read(_sample(len(train)))
    if len(images) < len(train):
        notes = (*notes, f"mean and standard deviation are of {len(images):,} of the {len(train):,} training images")
    mean, std = _moments(images)
    fingerprint = _fingerprint(train, contents.test, contents.classes)
    return Dataset(train, contents.test, contents.classes, fingerprint, mean, std, notes)


def _sample(count: int) -> list[int]:
    """Up to 2,000 of `count` indices, evenly spread, as images lie sorted by class."""
    return torch.linspace(0, count - 1, min(count, _SAMPLE), dtype=torch.float64).round().long().tolist()


def _moments(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact mean and standard deviation per channel, in [0, 1]; at least one grey level, so that dividing is safe."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[3]):
        counts = torch.bincount(images[..., channel].flatten(), minlength=256).double()
        share = counts / counts.sum()
        mean = (share * levels).sum()
        means.append(mean.item())
        stds.append(max((share * (levels - mean) ** 2).sum().sqrt().item(), 1 / 255))
    return tuple(means), tuple(stds)


def _fingerprint(train: Split | FileSplit, test: Split | FileSplit, classes: Sequence[str]) -> str:
    total = hashlib.sha256(repr(tuple(classes)).encode("utf-8", "surrogatepass"))
    for split in (train, test):
        if isinstance(split, Split):
            total.update(repr(tuple(split.images.shape)).encode())
            total.update(split.images.numpy().data)
        else:
            named = ((Path(*file.parts[-3:]), file.stat()) for file in split.files)
            total.update(f"{split.image_size} {digest(named)}".encode())
        total.update(split.labels.numpy().data)
    return total.hexdigest()
