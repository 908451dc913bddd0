"""The classifiers of torchvision, for any number of classes and channels."""

from __future__ import annotations

import torch
from torch import nn


class ThreeChannels(nn.Module):
    """Gives a network that takes coloured images grey ones: each three times."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def build(*, name: str, num_classes: int, channels: int, image_size: int, weights: str) -> nn.Module:
    """Returns torchvision's model of that name, as it is made. Raises ValueError where images are too small.

    weights: which it is to begin with; they are loaded by who starts a training (`training/pretrained.py`).
    """
    del weights
    import torchvision.models

    sized = {"image_size": image_size} if name.startswith("vit_") else {}
    try:
        network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **sized)
        model = network if channels == 3 else ThreeChannels(network)
        with torch.no_grad():
            model.eval()(torch.zeros(1, channels, image_size, image_size))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(str(error).strip().splitlines()[0]) from None
    return model.train()
