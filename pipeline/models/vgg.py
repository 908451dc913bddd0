"""VGG (Simonyan and Zisserman, 2015, arXiv:1409.1556) with a head for small images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from pipeline.models.size import require_size

Widths = Sequence[int | Literal["M"]]

TABLE_1: dict[int, Widths] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    13: (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}
"""The paper's Table 1, columns A, B, D and E: channels of each 3x3 convolution, M for a 2x2 max pooling."""


class Vgg(nn.Module):
    """The convolutions of the paper's Table 1, then an average over the image, dropout and one linear layer.

    The paper's head is for 224-pixel images: two hidden layers of 4096 (124 million parameters) on a 7 x 7 map. On a
    32-pixel image the map is 1 x 1, and one linear layer is what small-image reproductions keep. The average makes
    the parameters independent of `image_size`. A convolution before batch norm has no bias, as batch norm would cancel
    it. For 3 channels and 10 classes:

        depth                      11          13          16          19
        parameters          9,225,610   9,410,122  14,719,818  20,029,514
        with batch norm     9,228,362   9,413,066  14,724,042  20,035,018

    `widths`, if given, stands in the place of a row of Table 1: `depth` is None then, or is not looked at.

    Layers are named as the authors' released models do: `conv3_2` is the second convolution of the third block. The
    last ReLU of a block comes after its max pooling: that is the same function with the same gradients, of a quarter of
    the values.
    Convolutions start from He et al. (2015), fan out, biases at 0, so that the network trains without batch norm.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        image_size: int,
        depth: int | None = 11,
        widths: Widths | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = widths or TABLE_1[depth or 11]
        channels_out = [width for width in widths if width != "M"]
        if not channels_out:
            raise ValueError("widths has no convolution: give at least one number of channels")
        require_size(image_size, smallest=2 ** (len(widths) - len(channels_out)))
        self.features = _features(widths, channels=channels, batch_norm=batch_norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels_out[-1], num_classes)
        self._initialize()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.pool(self.features(images)).flatten(1)
        logits: torch.Tensor = self.classifier(self.dropout(pooled))
        return logits

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=self.classifier.in_features**-0.5)
        nn.init.zeros_(self.classifier.bias)


def _features(widths: Widths, *, channels: int, batch_norm: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    block, number = 1, 1
    for width in widths:
        if width == "M":
            layers[f"pool{block}"] = nn.MaxPool2d(2)
            if number > 1:
                layers.move_to_end(f"relu{block}_{number - 1}")
            block, number = block + 1, 1
            continue
        layers[f"conv{block}_{number}"] = nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm)
        if batch_norm:
            layers[f"bn{block}_{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{block}_{number}"] = nn.ReLU()
        channels, number = width, number + 1
    return nn.Sequential(layers)
