"""Pictures side by side, as one picture, and small ones as PNG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from torch.nn import functional as F

SMALLEST = 64  # pixels a side below which a picture is hard to make out
THUMBNAIL = 96


def grid(images: torch.Tensor, *, columns: int) -> torch.Tensor:
    """uint8 (N, H, W, C) as rows of `columns`, a white line between them: uint8 (C, rows H', columns W').

    Small pictures are enlarged by a whole number, pixel by pixel.
    """
    factor = max(1, -(-SMALLEST // images.shape[1]))
    images = images.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    rows = -(-len(images) // columns)
    images = F.pad(images, (0, 0, 1, 1, 1, 1), value=255)
    images = torch.cat((images, images.new_full((rows * columns - len(images), *images.shape[1:]), 255)))
    num, height, width, channels = images.shape
    by_row = images.view(rows, columns, height, width, channels).permute(4, 0, 2, 1, 3)
    return by_row.reshape(channels, num // columns * height, columns * width)


def denormalized(images: torch.Tensor, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """From what a network sees, (N, C, H, W) of mean 0 and deviation 1, to uint8 (N, H, W, C) on the CPU."""
    pixels = images.float().cpu().permute(0, 2, 3, 1)
    pixels = pixels * torch.tensor(std, dtype=torch.float32) + torch.tensor(mean, dtype=torch.float32)
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8)


def in_rgb(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W, C) of one or three channels as (N, H, W, 3)."""
    return images.expand(*images.shape[:3], 3)


def shrunk(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, H, W, C) with at most `size` pixels a side."""
    if images.shape[1] <= size:
        return images
    pixels = images.permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def png(image: torch.Tensor) -> bytes:
    """uint8 (H, W, 1 or 3) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(2).numpy()).save(file, "PNG")
    return file.getvalue()


def thumbnail(image: torch.Tensor) -> str:
    """A PNG file of at most 96 pixels a side, in base64. image: uint8 (H, W, C)."""
    return base64.b64encode(png(shrunk(image[None], THUMBNAIL)[0])).decode()


def spread(labels: torch.Tensor, count: int) -> list[int]:
    """Up to `count` indices, as many of each class as of any other, evenly spread over it; class after class."""
    num_classes = len(torch.unique(labels)) or 1
    each = max(1, count // num_classes)
    chosen: list[int] = []
    for label in torch.unique(labels).tolist():
        of_class = (labels == label).nonzero().flatten()
        places = torch.linspace(0, len(of_class) - 1, min(each, len(of_class)), dtype=torch.float64).round().long()
        chosen += of_class[places].tolist()
    return chosen
