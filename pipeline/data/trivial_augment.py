"""TrivialAugment, by the contract of `augment.py`: to each image one operation of fourteen, of a random strength.

Which image drew what is known on the device alone, and nothing waits for it. So all images go through three stages,
which leave those as they are that drew something else: moved by a map, blended with another image, and each pixel
looked up in a table.
"""

from __future__ import annotations

import math

import torch

from pipeline.data import planes as p
from pipeline.data.augment_colour import smoothed
from pipeline.data.augment_geometry import turned
from pipeline.data.draws import Draws
from pipeline.data.sampling import affine_places, sample

OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
STRENGTHS = 31  # from 0 to 30
MOST_SHEAR, MOST_PIXELS, MOST_DEGREES, MOST_BLEND = 0.99, 32, 135, 0.99


def trivial_augment(images: torch.Tensor, *, draws: Draws, fill: torch.Tensor) -> torch.Tensor:
    """Change each image by one operation of a random strength.

    Müller and Hutter (2021), arXiv:2103.10158, the wide ranges, as `torchvision.transforms.TrivialAugmentWide`; but
    what is moved is taken bilinearly, not from the nearest pixel, and what comes in is the mean colour, not black.
    It is moved by up to 32 pixels whatever the image's size, so that of one of 32 or less nothing may be left.
    """
    operation, strength = draws.integers(len(OPERATIONS)), draws.integers(STRENGTHS)
    sign = 2 * draws.integers(2) - 1
    return p.by_parts(_changed, images, operation, strength, sign, fill=fill)


def _changed(
    images: torch.Tensor, operation: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor, *, fill: torch.Tensor
) -> torch.Tensor:
    """operation, strength, sign: int64 (N, 1)."""
    columns, rows = affine_places(_maps(operation, strength, sign, *images.shape[1:3]), *images.shape[1:3])
    planes = sample(p.to_planes(images), columns, rows, fill)
    planes = _blended(planes, operation, sign * strength)
    return p.to_images(_looked_up(planes, operation, strength))


def _drew(operation: torch.Tensor, name: str) -> torch.Tensor:
    """Which images drew an operation: bool, of the shape of `operation`."""
    return operation == OPERATIONS.index(name)


def _maps(operation: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Where each image's pixels come from: float64 (N, 2, 3), as `affine_places` takes it."""
    operation, strength, sign = (drawn.squeeze(1) for drawn in (operation, strength, sign))
    share = p.divided((sign * strength).double(), STRENGTHS - 1)
    maps = turned(torch.where(_drew(operation, "rotate"), share, 0.0) * math.radians(MOST_DEGREES))
    shift = -(sign * (MOST_PIXELS * strength // (STRENGTHS - 1))).double()
    for axis, letter, length in ((0, "x", height), (1, "y", width)):
        shear = torch.where(_drew(operation, f"shear_{letter}"), share, 0.0) * MOST_SHEAR
        maps[:, axis, 1 - axis] += shear
        maps[:, axis, 2] += shear * length / 2 + torch.where(_drew(operation, f"translate_{letter}"), shift, 0.0)
    return maps


def _blended(planes: torch.Tensor, operation: torch.Tensor, signed_strength: torch.Tensor) -> torch.Tensor:
    """Brightness, colour, contrast and sharpness: each goes away from another image, or towards it."""
    blends = ("brightness", "color", "contrast", "sharpness")
    drew = torch.stack([_drew(operation, name) for name in blends])
    factor = 1 + torch.where(drew.any(0), signed_strength.double(), 0.0) * (MOST_BLEND / (STRENGTHS - 1))
    # Sums, in which all but one image are times 0: several times as fast as torch.where. For brightness it is black.
    _, color, contrast, sharpness = map(p.per_image, drew.float())
    grey = p.to_grey(planes)
    other = smoothed(planes).mul_(sharpness).add_(grey * color + p.mean_of(grey) * contrast)
    return p.blend(planes, other, factor)


def _looked_up(planes: torch.Tensor, operation: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Posterize, solarize, autocontrast and equalize: what a pixel becomes depends on its level alone."""
    pixels = planes.flatten(2).long()
    drawn, strength = operation[..., None], strength[..., None].int()
    level = torch.arange(256, dtype=torch.int32, device=planes.device)
    dropped = (strength + 2) // 5  # the nearest to strength / 5: up to 6 of 8 bits
    table = torch.where(_drew(drawn, "posterize"), level >> dropped << dropped, level)
    is_bright = 2 * level >= 510 - 17 * strength  # at least 255 - 8.5 strength
    table = torch.where(_drew(drawn, "solarize") & is_bright, 255 - level, table)
    table = torch.where(_drew(drawn, "autocontrast"), _stretched(pixels, level), table)
    table = torch.where(_drew(drawn, "equalize"), _equalized(pixels, level), table)
    return table.to(torch.uint8).gather(2, pixels).view(planes.shape)


def _stretched(pixels: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """A table for each channel, int32 (N, C, 256): the darkest level becomes 0, the brightest 255."""
    darkest, brightest = (edge.int() for edge in torch.aminmax(pixels, dim=2, keepdim=True))
    spread = brightest - darkest
    stretched = (255 * (level - darkest) / spread.clamp(min=1)).round_().clamp_(0, 255).int()
    return torch.where(spread == 0, level, stretched)


def _equalized(pixels: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """A table for each channel, int32 (N, C, 256), after which levels are as frequent as can be; as Pillow's."""
    counts = level.new_zeros(*pixels.shape[:2], len(level))
    counts.scatter_add_(2, pixels, level.new_ones(1).expand_as(pixels))
    of_brightest = counts.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - of_brightest) // 255
    below = counts.cumsum(2, dtype=torch.int32) - counts
    equalized = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step == 0, level, equalized)
