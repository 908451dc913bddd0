"""Images side by side, as one image, and small ones as PNG files."""

from __future__ import annotations

import base64
import io

import torch
from torch.nn import functional as F

SMALLEST = 64  # pixels a side below which an image is hard to make out
LARGEST = 224  # above, a grid would take minutes and hundreds of megabytes
THUMBNAIL = 96


def grid(images: torch.Tensor, *, columns: int) -> torch.Tensor:
    """Puts uint8 (N, H, W, C) in rows of `columns`, a white line between them: uint8 (C, rows H', columns W').

    Small images are enlarged by a whole number, pixel by pixel; those above 224 pixels are shrunk.
    """
    images = shrunk(images, LARGEST)
    factor = max(1, -(-SMALLEST // images.shape[1]))
    images = images.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    rows = -(-len(images) // columns)
    images = F.pad(images, (0, 0, 1, 1, 1, 1), value=255)
    images = torch.cat((images, images.new_full((rows * columns - len(images), *images.shape[1:]), 255)))
    num, height, width, channels = images.shape
    by_row = images.view(rows, columns, height, width, channels).permute(4, 0, 2, 1, 3)
    return by_row.reshape(channels, num // columns * height, columns * width)


def in_rgb(images: torch.Tensor) -> torch.Tensor:
    """Returns uint8 (N, H, W, C) of one or three channels as (N, H, W, 3)."""
    return images.expand(*images.shape[:3], 3)


def shrunk(images: torch.Tensor, size: int) -> torch.Tensor:
    """Shrinks uint8 (N, H, W, C) to at most `size` pixels a side."""
    if images.shape[1] <= size:
        return images
    small = images.new_empty(len(images), size, size, images.shape[3])
    for index, image in enumerate(images):  # one by one: as floats, large images are gigabytes
        pixels = image.permute(2, 0, 1)[None].float()
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        small[index] = pixels[0].round().clamp(0, 255).permute(1, 2, 0)
    return small


def png(image: torch.Tensor) -> bytes:
    """Returns uint8 (H, W, 1 or 3) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(2).numpy()).save(file, "PNG")
    return file.getvalue()


def thumbnail(image: torch.Tensor) -> str:
    """Returns a PNG file of at most 96 pixels a side, in base64. image: uint8 (H, W, C)."""
    return base64.b64encode(png(shrunk(image[None], THUMBNAIL)[0])).decode()


def spread(labels: torch.Tensor, count: int) -> list[int]:
    """Returns up to `count` indices, evenly spread over each class, class after class.

    It takes as many of each class as of any other, where there are so many; of more than `count` classes, one each of
    some.
    """
    classes, sizes = torch.unique(labels, return_counts=True)
    shown = _evenly(len(classes), count)
    classes, sizes = classes[shown], sizes[shown]
    each = 1
    while each < int(sizes.max()) and int(sizes.clamp(max=each + 1).sum()) <= count:
        each += 1
    chosen: list[int] = []
    for label in classes.tolist():
        of_class = (labels == label).nonzero().flatten()
        chosen += of_class[_evenly(len(of_class), each)].tolist()
    return chosen


def _evenly(length: int, count: int) -> torch.Tensor:
    """Returns up to `count` indices of a row of `length`, the first and the last among them."""
    return torch.linspace(0, length - 1, min(count, length), dtype=torch.float64).round().long()
