"""Random changes to training images, a whole chunk of batches at a time, on the device where the images are.

An augmentation is a function

    name(images, *, draws, fill, <its options>) -> images

images: uint8 (N, H, W, C), contiguous; it is not changed, and what is returned has its shape. draws: gives the random
numbers, a row an image, on the device; all come from there, so that an image of an epoch is changed in the same way on
every device and in any chunk. fill: uint8 (C,), the training set's mean colour. Nothing waits for the device.
"""

from __future__ import annotations

import torch

from pipeline.data.draws import Draws


def crop(
    images: torch.Tensor,
    *,
    draws: Draws,
    fill: torch.Tensor,  # noqa: ARG001
    padding: int,
) -> torch.Tensor:
    """Pad with black by `padding` pixels on each side, then cut the old size at any of the (2 padding + 1)^2 places.

    As `torchvision.transforms.RandomCrop(size, padding=padding)`.
    """
    num, height, width, channels = images.shape
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    padded = images.new_zeros(num, padded_height, padded_width, channels)
    padded[:, padding : padding + height, padding : padding + width] = images

    top, left = draws.integers(2 * padding + 1, columns=2).T[..., None]
    rows = torch.arange(num * padded_height, device=images.device).view(num, padded_height)[:, :height]
    starts = torch.add(left, rows + top, alpha=padded_width).flatten()
    # Every run of `width` pixels, wherever it begins, is a row of this view, and index_select copies a row at once: 50
    # times as fast as indexing pixels.
    runs = padded.as_strided((padded.numel() // channels - width + 1, width * channels), (channels, 1))
    return runs.index_select(0, starts).view(images.shape)


def flip(
    images: torch.Tensor,
    *,
    draws: Draws,
    fill: torch.Tensor,  # noqa: ARG001
) -> torch.Tensor:
    """Mirror left and right with probability 1/2, as `torchvision.transforms.RandomHorizontalFlip()`."""
    num, height, width, channels = images.shape
    values = torch.arange(width * channels, device=images.device).view(width, channels)
    to_mirrored = torch.arange(channels * (width - 1), -channels * width, -2 * channels, device=images.device)
    source = torch.addcmul(values, draws.integers(2)[..., None], to_mirrored[:, None]).view(num, 1, width * channels)
    rows = images.view(num, height, width * channels)
    return rows.gather(2, source.expand(rows.shape)).view(images.shape)


def cutout(images: torch.Tensor, *, draws: Draws, fill: torch.Tensor, size: int) -> torch.Tensor:
    """A square of `size` pixels, its centre anywhere in the image, set to the mean colour: 0 once normalized.

    DeVries and Taylor (2017), arXiv:1708.04552: the part of the square that lies outside is cut off.
    """
    _, height, width, _ = images.shape
    rows, columns = _covered(height, size, draws), _covered(width, size, draws)
    return torch.where((rows[:, :, None] & columns[:, None, :])[..., None], fill, images)


def _covered(length: int, size: int, draws: Draws) -> torch.Tensor:
    """bool (N, length): a run of `size` a row, its middle anywhere in it."""
    first = draws.integers(length) - size // 2
    column = torch.arange(length, device=first.device)
    return (first <= column) & (column < first + size)
