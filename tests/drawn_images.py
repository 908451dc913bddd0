"""Images to augment, and the random numbers for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pipeline.data.draws import Draws, EpochDraws, generator_of

FILL = torch.tensor([90, 100, 110], dtype=torch.uint8)


def seeded(num: int, seed: int = 0) -> Draws:
    return EpochDraws((seed, 0, 0), num, torch.device("cpu")).of(0, num)


def random_images(num: int, height: int = 6, width: int = 6, channels: int = 3) -> torch.Tensor:
    """No black, so that padding is told from pixels."""
    return torch.randint(1, 256, (num, height, width, channels), dtype=torch.uint8, generator=generator_of(1))


def smooth_images(num: int, height: int = 32, width: int = 32, channels: int = 3) -> torch.Tensor:
    """As photographs are: neighbours are alike. Some are pale, some of one level alone."""
    coarse = torch.rand(num, channels, 5, 5, generator=generator_of(2))
    contrast = torch.rand(num, 1, 1, 1, generator=generator_of(3)).round(decimals=1)
    planes = F.interpolate(coarse * contrast + (1 - contrast) / 2, size=(height, width), mode="bilinear")
    return (255 * planes).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def difference(one: torch.Tensor, other: torch.Tensor) -> int:
    """The largest difference between two uint8 tensors, in levels; 0 where they are empty."""
    return max((one.int() - other.int()).abs().flatten().tolist(), default=0)
