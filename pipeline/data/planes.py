"""Images as planes of float32, one a channel, in which augmentations compute; and blends of them.

What is computed there is exact: pixels are whole numbers, factors and weights are multiples of a power of two, and no
sum needs more than the 24 bits of a float32. So it has the same bits on every device, in whatever order it is added.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

FACTOR_STEPS = 2**12  # in 1; a factor of up to 15 is a multiple of this fraction

PART_VALUES = {"cpu": 2**18, "cuda": 2**24}
"""Pixels times channels that are computed together, on each kind of device.

Planes of 1 MiB stay in a CPU's cache. On a GPU a dozen of them take less than a gigabyte of its memory.
"""


def by_parts(
    change: Callable[..., torch.Tensor], images: torch.Tensor, *parameters: torch.Tensor, fill: torch.Tensor
) -> torch.Tensor:
    """Returns what `change(images, *parameters, fill=fill)` does, some images at a time.

    images: uint8 (N, H, W, C). parameters: (N, ...) each, a row an image.
    """
    size = max(1, PART_VALUES[images.device.type] // images.shape[1:].numel())
    parts = zip(*(torch.split(given, size) for given in (images, *parameters)), strict=True)
    return torch.cat([change(*part, fill=fill) for part in parts])


def to_planes(images: torch.Tensor) -> torch.Tensor:
    """Returns float32 (N, C, H, W), contiguous, of whole numbers. images: uint8 (N, H, W, C)."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def to_images(planes: torch.Tensor) -> torch.Tensor:
    """Returns uint8 (N, H, W, C), contiguous. planes: (N, C, H, W), of whole numbers from 0 to 255."""
    return planes.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def per_image(values: torch.Tensor) -> torch.Tensor:
    """Returns (N,) or (N, 1) as (N, 1, 1, 1), which goes with planes."""
    return values.view(-1, 1, 1, 1)


def blend(planes: torch.Tensor, other: torch.Tensor | float, factor: torch.Tensor) -> torch.Tensor:
    """Returns `planes` for a factor of 1, `other` for 0, what lies between and beyond for others, in whole numbers.

    factor: float64 (N,) or (N, 1), up to 15; it is rounded to multiples of 1/4096.
    """
    factor = per_image((factor * FACTOR_STEPS).round().float() / FACTOR_STEPS)
    return ((planes - other) * factor).add_(other).round_().clamp_(0, 255)


def to_grey(planes: torch.Tensor) -> torch.Tensor:
    """Returns (N, 1, H, W): red, green and blue weighted as in ITU-R BT.601; planes of grey images as they are."""
    if planes.shape[1] != 3:
        return planes
    red, green, blue = planes.unbind(1)
    return ((77 * red + 150 * green + 29 * blue) / 256).round_()[:, None]


def mean_of(grey: torch.Tensor) -> torch.Tensor:
    """Returns (N, 1, 1, 1): the mean over each image, as a whole number."""
    values = grey.flatten(1)
    total = values.sum(1, dtype=torch.float64)  # exact, as all are whole
    return per_image(divided(total, values.shape[1]).round().float())


def divided(values: torch.Tensor, by: float) -> torch.Tensor:
    """Returns `values / by`, correctly rounded on every device.

    Where `by` is a Python number, PyTorch multiplies by its reciprocal on a GPU, which is another number now and then:
    on an H200, 784 values whose mean was n + 1/2 were rounded the other way.
    """
    return values / torch.full((), by, dtype=values.dtype, device=values.device)
