"""Images of one size as such of another."""

from __future__ import annotations

import torch
import torch.nn.functional as F

CHUNK = 4_096  # images of 32 pixels that are converted to float at a time


def resize(images: torch.Tensor, image_size: int) -> torch.Tensor:
    """Bilinear, antialiased, in float, rounded. images: uint8 (N, H, W, C)."""
    resized = torch.empty(len(images), image_size, image_size, images.shape[3], dtype=torch.uint8)
    chunk = max(1, CHUNK * 32**2 // max(image_size, images.shape[1]) ** 2)
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].permute(0, 3, 1, 2).float()
        pixels = F.interpolate(pixels, size=(image_size, image_size), mode="bilinear", antialias=True)
        resized[start : start + chunk] = pixels.round_().clamp_(0, 255).permute(0, 2, 3, 1)
    return resized
