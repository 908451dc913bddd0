"""Augmentations that move pixels, by the contract of `augment.py`: each is taken from elsewhere, bilinearly."""

from __future__ import annotations

import math

import torch

from pipeline.data import planes as p
from pipeline.data.draws import Draws
from pipeline.data.sampling import PLACES, affine_places, sample

CROP_TRIES = 10


def rotation(images: torch.Tensor, *, draws: Draws, fill: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turn around the centre by an angle of up to `degrees` to either side; what comes in is the mean colour.

    As `torchvision.transforms.RandomRotation(degrees, BILINEAR, fill=fill)`, but that an edge of the image fades into
    the fill over one pixel.
    """
    angle = (2 * draws.uniform().double() - 1).squeeze(1) * math.radians(degrees)
    return p.by_parts(_moved, images, turned(angle), fill=fill)


def turned(angle: torch.Tensor) -> torch.Tensor:
    """Returns maps that turn images anticlockwise: float64 (N, 2, 3), as `affine_places` takes them. angle: radians."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack((cos, -sin, zero, sin, cos, zero), dim=1).view(-1, 2, 3)


def _moved(images: torch.Tensor, matrix: torch.Tensor, *, fill: torch.Tensor) -> torch.Tensor:
    columns, rows = affine_places(matrix, *images.shape[1:3])
    return p.to_images(sample(p.to_planes(images), columns, rows, fill))


def random_resized_crop(
    images: torch.Tensor,
    *,
    draws: Draws,
    fill: torch.Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> torch.Tensor:
    """Cut out a part of the image and enlarge it to the image's size.

    As `torchvision.transforms.RandomResizedCrop`: the part's area is `scale` times the image's, its width `ratio` times
    its height, both drawn (the ratio's logarithm, that is), up to ten times until it fits, and if none does, it is the
    largest part in the middle. No antialias: it would do nothing, as a part is never made smaller.
    """
    height, width = images.shape[1:3]
    heights, widths = _crop_sizes(height, width, draws, scale=scale, ratio=ratio)
    place = draws.uniform(columns=2).double()
    is_middle = heights.isnan()
    middle_height, middle_width = _largest(height, width, ratio)
    heights = torch.where(is_middle, middle_height, heights)
    widths = torch.where(is_middle, middle_width, widths)
    tops = torch.where(is_middle, (height - middle_height) // 2, (place[:, 0] * (height - heights + 1)).floor())
    lefts = torch.where(is_middle, (width - middle_width) // 2, (place[:, 1] * (width - widths + 1)).floor())
    return p.by_parts(_cropped, images, torch.stack((tops, lefts, heights, widths), dim=1), fill=fill)


def _crop_sizes(
    height: int, width: int, draws: Draws, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Heights and widths, float64 (N,): the first of the tries that fits into the image; NaN where none does."""
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws.uniform(columns=CROP_TRIES).double())
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * draws.uniform(columns=CROP_TRIES).double()).exp()
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    chosen_height = chosen_width = torch.full_like(area[:, 0], math.nan)
    for number in reversed(range(CROP_TRIES)):
        chosen_height = torch.where(fits[:, number], heights[:, number], chosen_height)
        chosen_width = torch.where(fits[:, number], widths[:, number], chosen_width)
    return chosen_height, chosen_width


def _largest(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest part of the image that has an allowed ratio."""
    nearest = min(max(width / height, ratio[0]), ratio[1])
    return min(height, max(1, round(width / nearest))), min(width, max(1, round(height * nearest)))


def _box_maps(box: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Maps from an image's pixels to those of a box of it: float64 (N, 2, 3). box: float64 (N, 4), as in `_cropped`."""
    top, left, box_height, box_width = box.unbind(1)
    zero = torch.zeros_like(top)
    by_column = (p.divided(box_width, width), zero, left + (box_width - width) / 2)
    by_row = (zero, p.divided(box_height, height), top + (box_height - height) / 2)
    return torch.stack((*by_column, *by_row), dim=1).view(-1, 2, 3)


def _cropped(images: torch.Tensor, box: torch.Tensor, *, fill: torch.Tensor) -> torch.Tensor:
    """box: float64 (N, 4) of whole numbers: top, left, height, width. Nothing outside of it is looked at."""
    height, width = images.shape[1:3]
    columns, rows = affine_places(_box_maps(box, height, width), height, width)
    first = (PLACES * box[:, :2]).int().view(-1, 2, 1, 1)
    last = (PLACES * (box[:, :2] + box[:, 2:] - 1)).int().view(-1, 2, 1, 1)
    columns = columns.clamp(first[:, 1], last[:, 1])
    rows = rows.clamp(first[:, 0], last[:, 0])
    return p.to_images(sample(p.to_planes(images), columns, rows, fill))
