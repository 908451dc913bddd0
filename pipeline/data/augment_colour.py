"""Augmentations that change colours, by the contract of `augment.py`, and what they are made of."""

from __future__ import annotations

import torch

from pipeline.data import planes as p
from pipeline.data.draws import Draws

HUE_STEPS = 1024  # in a sixth of the circle of hues; 255 levels are told apart


def color_jitter(
    images: torch.Tensor,
    *,
    draws: Draws,
    fill: torch.Tensor,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue, always in this order; of grey images the first two.

    As `torchvision.transforms.ColorJitter`, which changes the order for each image: the first three by factors from
    1 - x to 1 + x and not below 0, the hue by up to a share of the circle to either side. A change of 0 is none.
    """
    strengths = (brightness, contrast, saturation)
    factors = [_factor(draws.uniform().double(), strength) for strength in strengths]
    turns = (2 * draws.uniform().double() - 1) * hue
    return p.by_parts(_jittered, images, *factors, turns, fill=fill)


def _factor(uniform: torch.Tensor, strength: float) -> torch.Tensor:
    low, high = max(0.0, 1 - strength), 1 + strength
    return low + uniform * (high - low)


def _jittered(
    images: torch.Tensor,
    brightness: torch.Tensor,
    contrast: torch.Tensor,
    saturation: torch.Tensor,
    turns: torch.Tensor,
    *,
    fill: torch.Tensor,  # noqa: ARG001
) -> torch.Tensor:
    planes = p.blend(p.to_planes(images), 0.0, brightness)
    planes = p.blend(planes, p.mean_of(p.to_grey(planes)), contrast)
    if planes.shape[1] == 3:
        planes = p.blend(planes, p.to_grey(planes), saturation)
        planes = turn_hue(planes, turns)
    return p.to_images(planes)


def turn_hue(planes: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Returns planes (N, 3, H, W) of the same value and saturation whose hue is turned, in whole numbers.

    turns: float64 (N,) or (N, 1), of the whole circle, from -1/2 to 1/2. The hue is a multiple of 1/6144 of it, which
    leaves each pixel as it is where nothing is turned.
    """
    red, green, blue = planes.unbind(1)
    value = planes.amax(1)
    chroma = value - planes.amin(1)
    is_red, is_green = value == red, value == green
    difference = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    begins = torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0)) * HUE_STEPS
    within = (difference * HUE_STEPS / chroma.clamp(min=1)).round_()
    hues = begins + within + p.per_image((turns * 6 * HUE_STEPS).round().float()).squeeze(1)
    # The channel n sixths before its peak: f(n) = value - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + hue) mod 6
    turned = []
    for sixths in (5, 3, 1):
        k = hues + sixths * HUE_STEPS
        k = k - (k / (6 * HUE_STEPS)).floor_() * (6 * HUE_STEPS)
        share = torch.minimum(k, 4 * HUE_STEPS - k).clamp_(0, HUE_STEPS) / HUE_STEPS
        turned.append((value - chroma * share).round_())
    return torch.stack(turned, dim=1)


def smoothed(planes: torch.Tensor) -> torch.Tensor:
    """Returns each pixel's mean with its eight neighbours, itself five times, as a whole number; the border as it is.

    As Pillow's `ImageFilter.SMOOTH`.
    """
    across = planes[..., :-2] + planes[..., 1:-1] + planes[..., 2:]
    around = across[:, :, :-2] + across[:, :, 1:-1] + across[:, :, 2:]
    smooth = planes.clone()
    smooth[:, :, 1:-1, 1:-1] = ((around + 4 * planes[:, :, 1:-1, 1:-1]) / 13).round_()
    return smooth
