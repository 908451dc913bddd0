"""The network that learns CIFAR-10 to 94% in seconds, whose first layer is computed from the training images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from pipeline.models.size import require_size

PATCH = 2  # pixels a side, of the first convolution
WHITENING_EPS = 5e-4  # is added to each eigenvalue, so that a direction without variance is not divided by 0
PART_VALUES = 2**18  # of images whose patches are looked at together; more fall out of a CPU's cache


class AirNet(nn.Module):
    """The network of airbench94: a convolution that whitens, three groups of two convolutions, one linear layer.

    Follows Jordan (2024), "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, and the author's
    github.com/KellerJordan/cifar10-airbench, airbench94. The first layer, a 2x2 convolution without padding, has fixed
    weights that `initialize_from_images` computes; its bias is trained. All other convolutions begin as identities as
    far as they have inputs, and batch norms have a fixed scale of 1. The maximum over the image is the original's 3x3
    pooling of 32-pixel images. The linear layer has no bias, and the logits are a ninth of what it gives. Batch norms
    forget at PyTorch's rate, 0.1 a step; the original's at 0.4. The original trains the first layer's bias for three
    epochs alone, and does not centre the covariance, which is nearly the same of normalized images.
    1,972,792 parameters for 3 channels and 10 classes. `width`: channels of the first group; the others have four times
    as many. `whiten`: else the first layer begins at random and is trained like the others. Raises ValueError for
    images below 9 pixels.
    """

    SCALE = 1 / 9  # of the logits

    def __init__(
        self, *, num_classes: int, channels: int, image_size: int, width: int = 64, whiten: bool = True
    ) -> None:
        super().__init__()
        self.is_whitening = whiten
        require_size(image_size, smallest=PATCH - 1 + 2**3)
        whitened = 2 * channels * PATCH**2
        self.features = nn.Sequential(
            OrderedDict(
                whiten=_first_layer(channels, whitened, is_trained=not whiten),
                gelu=nn.GELU(),
                group1=_group(whitened, width),
                group2=_group(width, 4 * width),
                group3=_group(4 * width, 4 * width),
            )
        )
        self.classifier = nn.Linear(4 * width, num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(images).amax((2, 3)))
        return logits * self.SCALE

    @torch.no_grad()
    def initialize_from_images(self, images: torch.Tensor) -> None:
        """Sets the weights of the first layer, by which 2x2 patches of such images have the identity as covariance.

        images: float32 (N, C, H, W), normalized.

        They are the eigenvectors of the patches' covariance, largest eigenvalue first, each over the square root of its
        eigenvalue + 5e-4, and then their negatives, of which GELU leaves the other side. Page (2018), "How to Train
        Your ResNet 8: Bag of Tricks", and tysam-code/hlb-CIFAR10.
        """
        if not self.is_whitening:
            return
        layer = self.features.get_submodule("whiten")
        assert isinstance(layer, nn.Conv2d)
        # By the CPU: a GPU would load a library for it, and an eigenvector is right with either sign.
        values, vectors = torch.linalg.eigh(patch_covariance(images, PATCH).cpu())
        whitening = vectors.T / (values.clamp(min=0) + WHITENING_EPS).sqrt()[:, None]
        kernels = whitening.flip(0).view(-1, *layer.weight.shape[1:])
        layer.weight.copy_(torch.cat((kernels, -kernels)))


def patch_covariance(images: torch.Tensor, size: int) -> torch.Tensor:
    """Returns the covariance of all square patches of images: float64 (D, D), where D = channels * size * size.

    images: (N, C, H, W). They are looked at some at a time: patches overlap, and take `size` squared as much memory.
    """
    _, channels, height, width = images.shape
    rows, columns, dim = height - size + 1, width - size + 1, channels * size**2
    parts = torch.split(images, max(1, PART_VALUES // (channels * height * width)))
    # Into the same memory each time, as new memory costs more than all that is computed, and F.unfold takes new.
    places = images.new_empty(channels, size**2, len(parts[0]), rows, columns, dtype=torch.float64)
    total, products = places.new_zeros(dim), places.new_zeros(dim, dim)
    for part in parts:
        for place in range(size**2):
            y, x = divmod(place, size)
            view = part[:, :, y : y + rows, x : x + columns]
            places[:, place, : len(part)] = view.transpose(0, 1)
        patches = places[:, :, : len(part)].reshape(dim, -1)
        total += patches.sum(1)
        products += patches @ patches.T
    num_patches = len(images) * rows * columns
    mean = total / num_patches
    return products / num_patches - torch.outer(mean, mean)


def _first_layer(channels: int, whitened: int, *, is_trained: bool) -> nn.Conv2d:
    layer = nn.Conv2d(channels, whitened, PATCH)
    layer.weight.requires_grad_(is_trained)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _group(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=_convolution(channels, width),
            pool=nn.MaxPool2d(2),
            bn1=_batch_norm(width),
            gelu1=nn.GELU(),
            conv2=_convolution(width, width),
            bn2=_batch_norm(width),
            gelu2=nn.GELU(),
        )
    )


def _convolution(channels: int, width: int) -> nn.Conv2d:
    """Gives its input again as its first channels, before it has learned; the others begin as PyTorch has them."""
    layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.detach()[:channels])
    return layer


def _batch_norm(width: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(width, eps=1e-12)
    layer.weight.requires_grad_(False)  # stays at 1
    return layer
