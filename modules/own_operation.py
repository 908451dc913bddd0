"""An operation of one's own, with its backward written by hand: a ReLU that ends at a height which is learned.

    .venv/bin/python modules/own_operation.py       compares its gradients with finite differences
    make submit JOB=own_operation                   trains a small network with it, on the digits

docs/lessons.md goes through it. The backward is made of operations that autograd knows, so it can be differentiated in
its turn, as a penalty on gradients needs. One that cannot be belongs under `@once_differentiable`: whoever asks for its
derivative is told so, where it might be wrong in silence.
"""

from collections import OrderedDict
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.autograd import Function, gradcheck, gradgradcheck


class _LearnedClip(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        y = x.clamp(min=0).minimum(alpha)
        ctx.save_for_backward(y, alpha)  # not x: the layer behind keeps y as well, so that it takes no memory
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, alpha = ctx.saved_tensors
        return dy * ((y > 0) & (y < alpha)), (dy * (y >= alpha)).sum()


def learned_clip(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Cuts off what is below 0 or above alpha.

        y = min(max(x, 0), alpha)

    Gradients: of x, dy where 0 < x < alpha, else 0; of alpha, the sum of dy where x >= alpha.

    With alpha = 1.5, x = (-0.5, 1, 2) gives (0, 1, 1.5). For dy = (3, 5, 7) the gradient of x is (0, 5, 0), that of
    alpha is 7.

    Choi et al. (2018), "PACT: Parameterized Clipping Activation for Quantized Neural Networks", arXiv:1805.06085,
    equations 1 and 3. They round the result to few levels, which a range that ends somewhere makes possible.
    alpha: a scalar, > 0.
    """
    return _LearnedClip.apply(x, alpha)


class LearnedClip(nn.Module):
    """The operation as a layer, which holds alpha. The graph in TensorBoard shows it by this name."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return learned_clip(x, self.alpha)


class ClipNet(nn.Sequential):
    """Two convolutions with batch norm and a learned clip each, and a linear layer."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        width: Annotated[int, Field(ge=1, le=1024, description="Channels of the first convolution.")] = 32,
        alpha: Annotated[float, Field(gt=0, le=100, description="Where both clips end at first.")] = 2.0,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(channels, width, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(width),
            clip1=LearnedClip(alpha),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            bn2=nn.BatchNorm2d(2 * width),
            clip2=LearnedClip(alpha),
            pool2=nn.AdaptiveAvgPool2d(2),
            flatten=nn.Flatten(),
            classifier=nn.Linear(4 * 2 * width, num_classes),
        )
        super().__init__(layers)


def check() -> None:
    """Compares the gradients, and theirs, with finite differences. Raises GradcheckError where they differ.

    It takes float64, as differences in float32 are too rough, and no x at 0 or alpha, where there is no derivative.
    """
    x = torch.linspace(-2, 3, 10, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    gradcheck(learned_clip, (x, alpha))
    gradgradcheck(learned_clip, (x, alpha))


if __name__ == "__main__":
    check()
    print("learned_clip: first and second derivatives are those of finite differences")
