"""Test-time augmentation: the logits of an image, averaged over views of it (Krizhevsky et al., 2012, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

View = tuple[float, torch.Tensor]  # its weight, and the images (N, C, H, W); the first one is as they are

NUM_VIEWS = {"none": 1, "mirror": 2, "mirror_shift": 6}


def mean_logits(forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, *, kind: str) -> torch.Tensor:
    """Returns the weighted mean of the logits of all views: (N, classes).

    images: (N, C, H, W). kind: one of `NUM_VIEWS`.
    """
    if kind == "none":
        return forward(images)
    return torch.stack([weight * forward(view) for weight, view in _views(images, kind)]).sum(0)


def _views(images: torch.Tensor, kind: str) -> Iterator[View]:
    """Yields the images and their mirror images; with `mirror_shift`, weighing half of all, moved by a pixel as well.

    That is Jordan (2024), arXiv:2404.00498, section 3.5: up and to the left, and down and to the right, the border
    reflected.
    """
    height, width = images.shape[2:]
    shifted = []
    if kind == "mirror_shift":
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        shifted = [padded[:, :, :height, :width], padded[:, :, 2:, 2:]]
    for weight, view in ((0.5 if shifted else 1.0, images), *((0.25, view) for view in shifted)):
        yield weight / 2, view
        yield weight / 2, view.flip(3)
