"""A dataset of the user's own: code that is called as torchvision's datasets are, read into memory.

    code(root=<the home's datasets>, train=True or False, <its options>)

gives something with a length whose items are (image, label). An image is a PIL image, or an array or tensor: uint8
(H, W), (H, W, C) or, of a tensor, (C, H, W); or such of floats from 0 to 1. `classes`, where it has that, names them.
It is read at the start of each job: nobody but its author knows when its files change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.cache import Log
from pipeline.data.dataset import Contents, Found
from pipeline.data.splits import Split
from pipeline.errors import DataError

MAX_CLASSES = 65_536
Pixels = NDArray[np.uint8]


def read(
    given: Callable[..., Mapping[str, Any]],
    code: Callable[..., Any],
    datasets: Path,
    *,
    image_size: int | None,
    log: Log,
    **options: object,
) -> Found:
    """given: returns those of the program's arguments that the code takes."""

    def decode() -> Contents:
        splits = [code(**given(root=datasets, train=train), **options) for train in (True, False)]
        train, test = (_split(split, image_size) for split in splits)
        shapes = [tuple(split.images.shape[1:]) for split in (train, test)]
        if shapes[0] != shapes[1]:
            raise DataError(f"its images to train on are {shapes[0]}, and the others {shapes[1]}; set data.image_size")
        log(f"read {len(train):,} + {len(test):,} images with {code.__name__}")
        return Contents(train, test, _classes(splits[0], train, test))

    return Found(decode, state=None)


def _split(items: Any, image_size: int | None) -> Split:
    """Raises DataError where an item is no image with its label."""
    count = len(items)
    if not count:
        raise DataError("a split has no images")
    labels = torch.empty(count, dtype=torch.int64)
    images: torch.Tensor | None = None
    for number in range(count):
        item = items[number]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"item {number} is a {type(item).__name__}; it must be (image, label)")
        pixels = _pixels(item[0], f"image {number}")
        if image_size is not None and pixels.shape[:2] != (image_size, image_size):
            pixels = _resized(pixels, image_size)
        if images is None:
            images = torch.empty((count, *pixels.shape), dtype=torch.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"image {number} is {pixels.shape}, and those before it are {tuple(images.shape[1:])}; "
                "set data.image_size, or make them alike"
            )
        images[number] = torch.from_numpy(pixels)
        labels[number] = _label(item[1], number)
    assert images is not None
    return Split(images, labels)


def _label(label: Any, number: int) -> int:
    value = label.item() if isinstance(label, (torch.Tensor, np.generic)) else label
    if not isinstance(value, (int, float)) or value != int(value) or not 0 <= value < MAX_CLASSES:
        allowed = f"it must be a whole number from 0 to {MAX_CLASSES - 1}"
        raise DataError(f"the label of item {number} is {label!r}; {allowed}")
    return int(value)


def _pixels(image: Any, what: str) -> Pixels:
    """uint8 (H, W, C)."""
    if isinstance(image, Image.Image):
        array = np.array(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
    elif isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 and array.shape[0] in (1, 3) else array
    else:
        array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise DataError(f"{what} has the shape {array.shape}; it must be (H, W), (H, W, 1) or (H, W, 3)")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"{what} has values from {array.min():g} to {array.max():g}; floats must be from 0 to 1: leave the "
                "normalization to the pipeline"
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"{what} is of {array.dtype}; it must be of uint8, or of floats from 0 to 1")
    return np.ascontiguousarray(array)


def _resized(pixels: Pixels, image_size: int) -> Pixels:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized = np.array(image.resize((image_size, image_size), Image.Resampling.BILINEAR))
    return resized[..., None] if resized.ndim == 2 else resized


def _classes(items: Any, train: Split, test: Split) -> tuple[str, ...]:
    """Those that it names; else the numbers of its labels."""
    named = getattr(items, "classes", None)
    if named is not None:
        return tuple(map(str, named))
    return tuple(map(str, range(1 + max(int(train.labels.max()), int(test.labels.max())))))
