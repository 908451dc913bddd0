"""Mixup and CutMix: a batch whose images are each mixed with another one of it, and whose loss is mixed alike.

What is drawn is a function of seed, epoch and batch, as all that is random here; it is a number or a box for the whole
batch, known to the CPU, so that nothing waits for the device.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch

from pipeline.training.losses import Loss


@dataclass(frozen=True)
class Mixer:
    """mixup, cutmix: the alpha of each; 0 where it is off. With both, a batch gets either."""

    mixup: float
    cutmix: float
    seed: int

    @property
    def is_on(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def mix(self, images: torch.Tensor, *, epoch: int, batch: int) -> tuple[torch.Tensor, float]:
        """Returns images (N, C, H, W), each mixed with the one before it, and the share of its own in it, a float32."""
        if not self.is_on or len(images) < 2:
            return images, 1.0
        draw = random.Random(f"{self.seed} {epoch} {batch}")
        cuts = bool(self.cutmix) and (not self.mixup or draw.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = _in_float32(draw.betavariate(alpha, alpha))
        others = images.roll(1, 0)
        if not cuts:
            return torch.lerp(others, images, share), share
        return _cut(images, others, share, draw)


def _cut(images: torch.Tensor, others: torch.Tensor, share: float, draw: random.Random) -> tuple[torch.Tensor, float]:
    """CutMix, Yun et al. (2019), arXiv:1905.04899: a box whose area is about 1 - share, cut off at the edges."""
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    top, bottom = _span(height, side, draw)
    left, right = _span(width, side, draw)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return mixed, _in_float32(1 - (bottom - top) * (right - left) / (height * width))


def _in_float32(share: float) -> float:
    """Rounded, so that a number here and a float32 on a device are the same share."""
    return torch.tensor(share, dtype=torch.float32).item()


def _span(length: int, share: float, draw: random.Random) -> tuple[int, int]:
    """A run of about that share of a length, its middle anywhere."""
    middle, half = draw.randrange(length), int(length * share) / 2
    return max(0, round(middle - half)), min(length, round(middle + half))


def mixed_loss(loss: Loss, logits: torch.Tensor, labels: torch.Tensor, share: float | torch.Tensor) -> torch.Tensor:
    """The loss of images that were mixed so, Zhang et al. (2018), arXiv:1710.09412.

    share: of its own in each image, as a number or as a float32 on the device.
    """
    if isinstance(share, float) and share == 1:
        return loss(logits, labels)
    return share * loss(logits, labels) + (1 - share) * loss(logits, labels.roll(1, 0))
