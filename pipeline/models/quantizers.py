"""Quantizers as modules: what computes with `quantize_functions.py`, and keeps step sizes, ranges and signs.

A quantizer gives what it is given, rounded to at most 2**bits levels, in the same dtype; inside it computes in float32,
also under autocast. (In bfloat16 a product then has levels of 8 significant bits: up to 8 bits of the level itself, but
level times step is rounded once more.) What it has learned or measured is in its state dict. Activations have a sign
where the first training batch has a negative value, and else all levels for what is positive.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

from pipeline.models import quantize_functions as functions

WeightScheme = Literal["symmetric", "affine", "lsq", "dorefa", "binary", "ternary"]
ActivationScheme = Literal["symmetric", "affine", "lsq", "dorefa"]
Per = Literal["tensor", "channel"]

AVERAGING = 0.01  # of a measured range: the newest batch's share, as in PyTorch's MovingAverageMinMaxObserver


def levels(bits: int, *, is_signed: bool) -> tuple[int, int]:
    """Returns the lowest and the highest level: -8 and 7 of four bits with a sign, 0 and 15 without."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)


class Quantizer(nn.Module):
    """Base of all: computes in float32 (a float64 stays one) and gives the dtype that it was given."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantized(x.float()).to(x.dtype) if x.dtype.itemsize < 4 else self.quantized(x)

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


# Of weights


class WeightQuantizer(Quantizer):
    """Of a layer's weight, (C, ...). per_channel: with a scale for each of its C output channels."""

    def __init__(self, bits: int, *, per_channel: bool) -> None:
        super().__init__(bits)
        self.per_channel = per_channel

    def begin(self, weight: torch.Tensor) -> None:
        """Sets what is learned of a scale by the weight that it is to begin with; mostly there is nothing to set."""

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, per={'channel' if self.per_channel else 'tensor'}"


class SymmetricWeight(WeightQuantizer):
    """Uniform levels around 0, as far as the largest weight of the tensor or channel reaches now."""

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        low, high = levels(self.bits, is_signed=True)
        largest = x.detach().abs().amax(functions.others(x, per_channel=self.per_channel), keepdim=True)
        scale = (largest / high).clamp(min=functions.SMALLEST_SCALE)
        return functions.fake_quantize(x, scale, 0, low=low, high=high)


class AffineWeight(WeightQuantizer):
    """Uniform levels from the smallest weight to the largest, 0 among them."""

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        axes = functions.others(x, per_channel=self.per_channel)
        lowest, highest = x.detach().amin(axes, keepdim=True), x.detach().amax(axes, keepdim=True)
        return _affine(x, lowest, highest, self.bits)


class LsqWeight(WeightQuantizer):
    """Multiples of a learned step, which begins at 2 * mean|w| / sqrt(highest level).

    A weight that is all zeros says nothing of a step: its levels begin as those of [-1, 1].
    """

    def __init__(self, bits: int, *, per_channel: bool, num_channels: int) -> None:
        super().__init__(bits, per_channel=per_channel)
        self.step = nn.Parameter(torch.ones(num_channels if per_channel else ()))

    @torch.no_grad()
    def begin(self, weight: torch.Tensor) -> None:
        sizes = weight.float().abs().mean(functions.others(weight, per_channel=self.per_channel))
        self.step.copy_(_first_step(sizes, levels(self.bits, is_signed=True)[1]))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        low, high = levels(self.bits, is_signed=True)
        num = x.numel() // self.step.numel()
        return functions.lsq(x, self.step, low=low, high=high, gradient_scale=1 / math.sqrt(num * high))


class DorefaWeight(WeightQuantizer):
    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.dorefa_sign(x) if self.bits == 1 else functions.dorefa_weight(x, bits=self.bits)


class BinaryWeight(WeightQuantizer):
    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.binary(x, per_channel=self.per_channel)


class TernaryWeight(WeightQuantizer):
    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.ternary(x, per_channel=self.per_channel)


def weight_quantizer(
    weight: torch.Tensor, *, scheme: WeightScheme = "lsq", bits: int = 8, per: Per = "tensor"
) -> WeightQuantizer:
    """Returns a quantizer that begins with this weight. Raises ValueError where these do not go together."""
    fixed = {"binary": 1, "ternary": 2}.get(scheme, bits)
    least = 1 if scheme in ("dorefa", "binary") else 2
    if bits != fixed or not least <= bits <= 8:
        expected = str(fixed) if bits != fixed else f"{least} to 8"
        raise ValueError(f"{scheme} weights have {expected} bits, not {bits}")
    if scheme == "dorefa" and per == "channel":
        raise ValueError("dorefa weights are quantized per tensor")
    kinds: dict[str, Any] = {
        "symmetric": SymmetricWeight,
        "affine": AffineWeight,
        "lsq": LsqWeight,
        "dorefa": DorefaWeight,
        "binary": BinaryWeight,
        "ternary": TernaryWeight,
    }
    own = {"num_channels": len(weight)} if scheme == "lsq" else {}
    made: WeightQuantizer = kinds[scheme](bits, per_channel=per == "channel", **own)
    made.begin(weight.detach())
    return made


# Of activations


class Observing(Quantizer):
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self._is_first_batch:
            self._observe_first_batch(x.detach())
        return super().forward(x) if self._has_begun else x

    @torch.compiler.disable  # type: ignore[untyped-decorator] # it waits for the device, and is done once
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

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._read_buffers()


class LsqActivation(Observing):
    """Multiples of a learned step, which begins at 2 * mean|x| / sqrt(highest level) of the first training batch."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.step = nn.Parameter(torch.ones(()))

    def begin(self, x: torch.Tensor, *, is_first: bool) -> None:
        if is_first:  # later, the backward pass of the call before needs it as it was
            self.step.copy_(_first_step(x.abs().mean(), levels(self.bits, is_signed=self._signed)[1]))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        low, high = levels(self.bits, is_signed=self._signed)
        num = max(1, x[0].numel())
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
        if self.training and not self._is_first_batch:
            low, high = x.detach().aminmax()
            self.low.lerp_(low.to(self.low.dtype), AVERAGING)
            self.high.lerp_(high.to(self.high.dtype), AVERAGING)
        return self.in_range(x)

    def in_range(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class SymmetricActivation(RangeActivation):
    """Uniform levels around 0; from 0 on where nothing is negative."""

    def in_range(self, x: torch.Tensor) -> torch.Tensor:
        low, high = levels(self.bits, is_signed=self._signed)
        largest = torch.maximum(self.high, -self.low) if self._signed else self.high
        scale = (largest / high).clamp(min=functions.SMALLEST_SCALE)
        return functions.fake_quantize(x, scale, 0, low=low, high=high)


class AffineActivation(RangeActivation):
    """Uniform levels from the smallest value to the largest, 0 among them."""

    def in_range(self, x: torch.Tensor) -> torch.Tensor:
        return _affine(x, self.low, self.high, self.bits)


class DorefaActivation(Quantizer):
    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.dorefa_activation(x, bits=self.bits)


def activation_quantizer(*, scheme: ActivationScheme = "lsq", bits: int = 8) -> Quantizer:
    """Raises ValueError where these do not go together."""
    least = 1 if scheme == "dorefa" else 2
    if not least <= bits <= 8:
        raise ValueError(f"{scheme} activations have {least} to 8 bits, not {bits}")
    kinds: dict[str, type[Quantizer]] = {
        "symmetric": SymmetricActivation,
        "affine": AffineActivation,
        "lsq": LsqActivation,
        "dorefa": DorefaActivation,
    }
    return kinds[scheme](bits)


def _first_step(mean_size: torch.Tensor, high: int) -> torch.Tensor:
    """Returns LSQ's first step, from the mean size of what is quantized."""
    return torch.where(mean_size > 0, 2 * mean_size / math.sqrt(high), 1 / high)


def _affine(x: torch.Tensor, lowest: torch.Tensor, highest: torch.Tensor, bits: int) -> torch.Tensor:
    """Rounds to 2**bits levels of a range that is widened to have 0 in it, which is one of them."""
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    most = 2**bits - 1
    scale = ((highest - lowest) / most).clamp(min=functions.SMALLEST_SCALE)
    zero_point = (-lowest / scale).round().clamp(0, most)
    return functions.fake_quantize(x, scale, zero_point, low=0, high=most)
