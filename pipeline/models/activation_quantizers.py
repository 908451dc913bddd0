"""Quantizers of a layer's input.

Activations have a sign where the first training batch has a negative value, and else all levels for what is positive.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

from pipeline.models import quantize_functions as functions
from pipeline.models.quantizers import Grid, Quantizer, affine_grid, first_step, levels, not_compiled, symmetric_grid

ActivationScheme = Literal["symmetric", "affine", "lsq", "dorefa"]

AVERAGING = 0.01  # of a measured range: the newest batch's share, as in PyTorch's MovingAverageMinMaxObserver


class ActivationQuantizer(Quantizer):
    def grid(self) -> Grid:
        """Returns where the values lie that an input is rounded to, as far as is known now."""
        raise NotImplementedError


class Observing(ActivationQuantizer):
    """An activation quantizer that learns from the first training batch what its input is like.

    Until it has seen one it changes nothing. A layer may be called several times in a batch: `end_first_batch` is to be
    called after the first one. Whether one has been seen is a buffer, and an attribute too, as to look at a buffer each
    step would be to wait for a GPU.
    """

    is_observed: torch.Tensor
    is_signed: torch.Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("is_observed", torch.tensor(False))
        self.register_buffer("is_signed", torch.tensor(False))
        self._signed = self._has_begun = False
        self._is_first_batch = True

    @property
    def has_begun(self) -> bool:
        """Whether it knows where to round to, and so rounds."""
        return self._has_begun

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self._is_first_batch and x.numel():
            self._observe_first_batch(x.detach())
        return super().forward(x) if self._has_begun else x

    @not_compiled  # it waits for the device, and is done once
    def _observe_first_batch(self, x: torch.Tensor) -> None:
        x = x.float()
        self._signed = self._signed or bool((x < 0).any())
        self.is_signed.fill_(self._signed)
        with torch.no_grad():
            self.begin(x, is_first=not self._has_begun)
        self._has_begun = True
        self.is_observed.fill_(True)

    def begin(self, x: torch.Tensor, *, is_first: bool) -> None:
        """Measures a first batch. is_first: else the layer has been called before in it."""
        raise NotImplementedError

    def end_first_batch(self) -> None:
        self._is_first_batch = not self._has_begun

    def _read_buffers(self) -> None:
        self._signed, self._has_begun = bool(self.is_signed), bool(self.is_observed)
        self._is_first_batch = not self._has_begun

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._read_buffers()


class LsqActivation(Observing):
    """Multiples of a learned step, which begins at 2 * mean|x| / sqrt(highest level) of the first training batch."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.step = nn.Parameter(torch.ones(()))

    def begin(self, x: torch.Tensor, *, is_first: bool) -> None:
        if is_first:  # later, the backward pass of the call before needs it as it was
            self.step.copy_(first_step(x.abs().mean(), levels(self.bits, is_signed=self._signed)[1]))

    def grid(self) -> Grid:
        scale = self.step.clamp(min=functions.SMALLEST_SCALE)
        return Grid(scale, 0, *levels(self.bits, is_signed=self._signed))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        low, high = levels(self.bits, is_signed=self._signed)
        num = max(1, math.prod(x.shape[1:]))
        return functions.lsq(x, self.step, low=low, high=high, gradient_scale=1 / math.sqrt(num * high))


class RangeActivation(Observing):
    """Uniform levels over the range of the training batches, a moving average of each one's smallest and largest."""

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def begin(self, x: torch.Tensor, *, is_first: bool) -> None:
        low, high = x.aminmax()
        self.low.copy_(low if is_first else torch.minimum(low, self.low))
        self.high.copy_(high if is_first else torch.maximum(high, self.high))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and not self._is_first_batch and x.numel():
            low, high = x.detach().aminmax()
            self.low.lerp_(low.to(self.low.dtype), AVERAGING)
            self.high.lerp_(high.to(self.high.dtype), AVERAGING)
        scale, zero_point, lowest, highest = self.grid()
        return functions.fake_quantize(x, scale, zero_point, low=lowest, high=highest)


class SymmetricActivation(RangeActivation):
    """Uniform levels around 0; from 0 on where nothing is negative."""

    def grid(self) -> Grid:
        largest = torch.maximum(self.high, -self.low) if self._signed else self.high
        return symmetric_grid(largest, *levels(self.bits, is_signed=self._signed))


class AffineActivation(RangeActivation):
    """Uniform levels from the smallest value to the largest, 0 among them."""

    def grid(self) -> Grid:
        return affine_grid(self.low, self.high, self.bits)


class DorefaActivation(ActivationQuantizer):
    def grid(self) -> Grid:
        most = 2**self.bits - 1
        return Grid(torch.tensor(1 / most), 0, 0, most)

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.dorefa_activation(x, bits=self.bits)


def activation_quantizer(*, scheme: ActivationScheme = "lsq", bits: int = 8) -> ActivationQuantizer:
    """Raises ValueError where these do not go together."""
    least = 1 if scheme == "dorefa" else 2
    if not least <= bits <= 8:
        raise ValueError(f"{scheme} activations have {least} to 8 bits, not {bits}")
    kinds: dict[str, type[ActivationQuantizer]] = {
        "symmetric": SymmetricActivation,
        "affine": AffineActivation,
        "lsq": LsqActivation,
        "dorefa": DorefaActivation,
    }
    return kinds[scheme](bits)
