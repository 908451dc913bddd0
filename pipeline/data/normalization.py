"""Normalization: pixels as a network takes them, of mean 0 and standard deviation 1 over the training set, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Normalization:
    """mean, std: per channel of the training set, of pixels in [0, 1]; every std is above 0."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and standard deviation as float32 (C, 1, 1), which go with images (N, C, H, W)."""
        return torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)

    def denormalize(self, images: torch.Tensor) -> torch.Tensor:
        """Returns pixels, uint8 (N, H, W, C) on the CPU, from what a network takes, (N, C, H, W)."""
        mean, std = self.tensors()
        pixels = images.float().cpu() * std + mean
        return (255 * pixels).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def mean_color(self) -> torch.Tensor:
        """Returns the mean as a pixel: uint8 (C,)."""
        return (255 * torch.tensor(self.mean, dtype=torch.float64)).round().to(torch.uint8)


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Returns float32 (N, C, H, W) as a network takes it, from images in [0, 1]. mean, std: (C, 1, 1)."""
    return (images - mean) / std


class PixelNormalizer:
    """Does what `normalize` does, from uint8 pixels and fast: one multiplication and one addition a value.

    It computes a row of pixels at a time, since three channels alone are too short a run for vector instructions.
    """

    def __init__(
        self, normalization: Normalization, *, image_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """image_size: pixels of a row. dtype: of what is returned; it is computed in float32."""
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (normalization.mean, normalization.std))
        self.scale = (1 / (255 * std)).repeat(image_size).float().to(device)
        self.shift = (-mean / std).repeat(image_size).float().to(device)
        self.dtype = dtype

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns (N, C, H, W), channels_last. images: uint8 (N, H, W, C), contiguous, on the device."""
        rows = torch.addcmul(self.shift, images.flatten(2), self.scale).to(self.dtype)
        return rows.view(images.shape).permute(0, 3, 1, 2)


def moments(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact mean and standard deviation per channel, in [0, 1]; at least one grey level, so that dividing is safe.

    images: uint8 (N, H, W, C).
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[3]):
        counts = torch.bincount(images[..., channel].flatten(), minlength=256).double()
        share = counts / counts.sum()
        mean = (share * levels).sum()
        means.append(mean.item())
        stds.append(max((share * (levels - mean) ** 2).sum().sqrt().item(), 1 / 255))
    return tuple(means), tuple(stds)
