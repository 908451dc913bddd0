"""What quantizers of weights (`weight_quantizers.py`) and of activations (`activation_quantizers.py`) have in common.

A quantizer gives what it is given, rounded to at most 2**bits levels, in the same dtype; inside it computes in float32,
also under autocast. (In bfloat16 a product then has levels of 8 significant bits: up to 8 bits of the level itself, but
level times step is rounded once more.) What it computes is in `quantize_functions.py`; what it has learned or measured
is in its state dict.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import nn

from pipeline.models import quantize_functions as functions

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def not_compiled(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Keeps a function out of what `torch.compile` makes of a network, as `torch.compiler.disable` does.

    That one loads the compiler at once, which takes 1.3 s, for the many jobs too that compile nothing.
    """

    @functools.wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        disabled: Callable[Given, Returned] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled(*args, **kwargs)

    return called


class Grid(NamedTuple):
    """Where a quantizer's values lie: at scale * (level - zero_point), for whole levels from low to high.

    scale: float, > 0, a scalar, or of a shape that spreads over the weight; zero_point: likewise, whole numbers as
    floats.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor | int
    low: int
    high: int


class Quantizer(nn.Module):
    """Base of all: computes in float32 (a float64 stays one) and gives the dtype that it was given.

    kind: class and bits as text, in the state dict, by which a state of another quantizer is known.
    """

    kind: torch.Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("kind", torch.tensor(list(f"{type(self).__name__} {bits}".encode()), dtype=torch.uint8))

    def is_of_its_kind(self, kind: torch.Tensor | None) -> bool:
        """Whether a state with this `kind`, on the CPU, was such a quantizer's, with as many bits."""
        return kind is not None and torch.equal(kind, self.kind.cpu())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}kind", self.kind)  # of a version that did not save it
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantized(x.float()).to(x.dtype) if x.dtype.itemsize < 4 else self.quantized(x)

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


def levels(bits: int, *, is_signed: bool) -> tuple[int, int]:
    """Returns the lowest and the highest level: -8 and 7 of four bits with a sign, 0 and 15 without."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)


def first_step(mean_size: torch.Tensor, high: int) -> torch.Tensor:
    """Returns LSQ's first step, from the mean size of what is quantized."""
    return torch.where(mean_size > 0, 2 * mean_size / math.sqrt(high), 1 / high)


def symmetric_grid(largest: torch.Tensor, low: int, high: int) -> Grid:
    """Returns levels around 0, or from it on, the highest of which is the largest value."""
    return Grid((largest / high).clamp(min=functions.SMALLEST_SCALE), 0, low, high)


def affine_grid(lowest: torch.Tensor, highest: torch.Tensor, bits: int) -> Grid:
    """Returns 2**bits levels of a range that is widened to have 0 in it, which is one of them."""
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    most = 2**bits - 1
    scale = ((highest - lowest) / most).clamp(min=functions.SMALLEST_SCALE)
    return Grid(scale, (-lowest / scale).round().clamp(0, most), 0, most)
