"""The small network of the PyTorch tutorials, for images of any size from 16 pixels."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from pipeline.models.size import require_size


class Net(nn.Module):
    """Two 5x5 convolutions, each pooled, then three linear layers; LeNet-5 with ReLU and max pooling.

    Follows "Training a Classifier" of the PyTorch tutorials (pytorch.org/tutorials/beginner/blitz/cifar10_tutorial),
    whose first linear layer is sized for 32-pixel images; here it is sized for `image_size`. ReLU comes after the max
    pooling here: that is the same function with the same gradients, of a quarter of the values.
    62,006 parameters for 3 x 32 x 32 and 10 classes, 44,426 for 1 x 28 x 28.
    """

    def __init__(self, *, num_classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        require_size(image_size, smallest=16)
        side = ((image_size - 4) // 2 - 4) // 2  # each convolution takes 4 pixels, each pooling half
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, 6, 5),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(6, 16, 5),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(16 * side * side, 120),
                relu1=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu2=nn.ReLU(),
                fc3=nn.Linear(84, num_classes),
            )
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(images).flatten(1))
        return logits
