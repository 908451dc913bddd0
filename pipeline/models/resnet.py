"""Residual networks for small images: the quick one of nine layers, and ResNet-18 with a stem for small images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from pipeline.models.size import require_size


class ResNet9(nn.Module):
    """The network with which DAWNBench's record for CIFAR-10 was set: eight convolutions and one linear layer.

    Follows Page (2018), "How to Train Your ResNet", the final network of github.com/davidcpage/cifar10-fast: 3x3
    convolutions with batch norm of 64, 128, 256 and 512 channels, each but the first followed by a pooling, and a
    residual of two more after the second and the fourth. The maximum over the image is the original's 4x4 pooling of
    32-pixel images. The linear layer has no bias, and the logits are an eighth of what it gives.
    6,573,120 parameters for 3 channels and 10 classes. `width` stands in the place of the 64; the others grow with it.
    """

    SCALE = 0.125  # of the logits

    def __init__(self, *, num_classes: int, channels: int, image_size: int, width: int = 64) -> None:
        super().__init__()
        require_size(image_size, smallest=8)
        self.features = nn.Sequential(
            OrderedDict(
                prep=_conv_bn(channels, width),
                layer1=_conv_bn(width, 2 * width, pool=True),
                residual1=Residual(2 * width),
                layer2=_conv_bn(2 * width, 4 * width, pool=True),
                layer3=_conv_bn(4 * width, 8 * width, pool=True),
                residual3=Residual(8 * width),
            )
        )
        self.classifier = nn.Linear(8 * width, num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # nn.AdaptiveMaxPool2d would do the same, and has no deterministic gradient on a GPU.
        logits: torch.Tensor = self.classifier(self.features(images).amax((2, 3)))
        return logits * self.SCALE


class Residual(nn.Module):
    """Adds to its input what two convolutions, each with batch norm and ReLU, make of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_bn1 = _conv_bn(width, width)
        self.conv_bn2 = _conv_bn(width, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.conv_bn2(self.conv_bn1(images))
        return images + change


def _conv_bn(channels: int, width: int, *, pool: bool = False) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, width, 3, padding=1, bias=False), bn=nn.BatchNorm2d(width)
    )
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU()  # after the pooling: the same function and gradients, of a quarter of the values
    return nn.Sequential(layers)


class ResNet18(nn.Module):
    """ResNet-18 (He et al., 2016, arXiv:1512.03385, Table 1), whose first layers are for small images.

    The paper's stem, a 7x7 convolution of stride 2 and a pooling, leaves 56 of 224 pixels; of 32 it would leave 8. Here
    it is a 3x3 convolution of stride 1, as in the paper's section 4.2 and the usual reproductions on CIFAR-10. What
    leads past a block whose shape changes is a 1x1 convolution, the paper's option B. Convolutions start from He et
    al. (2015), fan out. 11,173,962 parameters for 3 channels and 10 classes. `width`: channels of the first stage; each
    further stage has twice as many.
    """

    def __init__(self, *, num_classes: int, channels: int, image_size: int, width: int = 64) -> None:  # noqa: ARG002
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.relu1(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: torch.Tensor = self.classifier(self.pool(features).flatten(1))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and what leads past them; `stride` is that of the first."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut.add_module("conv", nn.Conv2d(channels, width, 1, stride=stride, bias=False))
            self.shortcut.add_module("bn", nn.BatchNorm2d(width))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        change = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(images)))))
        activations: torch.Tensor = self.relu2(change + self.shortcut(images))
        return activations


def _stage(channels: int, width: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(block1=BasicBlock(channels, width, stride=stride), block2=BasicBlock(width, width, stride=1))
    )
