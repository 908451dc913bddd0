"""Quantizers of a layer's weight."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from pipeline.models import quantize_functions as functions
from pipeline.models.quantizers import Grid, Quantizer, affine_grid, first_step, levels, symmetric_grid

WeightScheme = Literal["symmetric", "affine", "lsq", "dorefa", "binary", "ternary"]
Per = Literal["tensor", "channel"]


class Integers(NamedTuple):
    """A rounded weight as whole numbers: it is scale * (values - zero_point), the values taken as float32 first.

    values: of the weight's shape, int8, uint8 or int16; scale: float32, a scalar or (C,); zero_point: int32, likewise.
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor


class WeightQuantizer(Quantizer):
    """Of a layer's weight, (C, ...). per_channel: with a scale for each of its C output channels."""

    def __init__(self, bits: int, *, per_channel: bool) -> None:
        super().__init__(bits)
        self.per_channel = per_channel

    def begin(self, weight: torch.Tensor) -> None:
        """Sets what is learned of a scale by the weight that it is to begin with; mostly there is nothing to set."""

    def grid(self, weight: torch.Tensor) -> Grid:
        """Returns where the values lie that this weight, in float32, is rounded to."""
        raise NotImplementedError

    @torch.no_grad()
    def whole(self, weight: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Returns the rounded weight as whole numbers in float32, and the grid whose levels they are."""
        weight = weight.detach().float()
        grid = self.grid(weight)
        return (self.quantized(weight) / grid.scale).round() + grid.zero_point, grid

    @torch.no_grad()
    def integers(self, weight: torch.Tensor) -> Integers:
        """Returns the rounded weight as whole numbers, exact but for the rounding of a float32."""
        whole, grid = self.whole(weight)
        fits = next(
            dtype
            for dtype in (torch.int8, torch.uint8, torch.int16)
            if torch.iinfo(dtype).min <= grid.low and grid.high <= torch.iinfo(dtype).max
        )
        scale = grid.scale.flatten() if self.per_channel else grid.scale.reshape(())
        zero_point = torch.as_tensor(grid.zero_point, dtype=torch.int32, device=weight.device).flatten()
        return Integers(whole.to(fits), scale, zero_point.expand(scale.numel()).reshape(scale.shape).contiguous())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, per={'channel' if self.per_channel else 'tensor'}"


class FakeQuantizedWeight(WeightQuantizer):
    """Uniform levels, where the weight is now."""

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero_point, low, high = self.grid(x.detach())
        return functions.fake_quantize(x, scale, zero_point, low=low, high=high)


class SymmetricWeight(FakeQuantizedWeight):
    """Uniform levels around 0, as far as the largest weight of the tensor or channel reaches now."""

    def grid(self, weight: torch.Tensor) -> Grid:
        largest = weight.abs().amax(functions.others(weight, per_channel=self.per_channel), keepdim=True)
        return symmetric_grid(largest, *levels(self.bits, is_signed=True))


class AffineWeight(FakeQuantizedWeight):
    """Uniform levels from the smallest weight to the largest, 0 among them."""

    def grid(self, weight: torch.Tensor) -> Grid:
        axes = functions.others(weight, per_channel=self.per_channel)
        return affine_grid(weight.amin(axes, keepdim=True), weight.amax(axes, keepdim=True), self.bits)


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
        self.step.copy_(first_step(sizes, levels(self.bits, is_signed=True)[1]))

    def grid(self, weight: torch.Tensor) -> Grid:
        scale = functions.spread(self.step, weight).clamp(min=functions.SMALLEST_SCALE)
        return Grid(scale, 0, *levels(self.bits, is_signed=True))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        low, high = levels(self.bits, is_signed=True)
        num = x.numel() // self.step.numel()
        return functions.lsq(x, self.step, low=low, high=high, gradient_scale=1 / math.sqrt(num * high))


class DorefaWeight(WeightQuantizer):
    def grid(self, weight: torch.Tensor) -> Grid:
        """Of levels at equal distances from -1 to 1, without 0: the odd ones alone are taken."""
        if self.bits == 1:
            return _grid_of_signs(weight.abs().mean())
        most = 2**self.bits - 1
        return Grid(torch.full((), 1 / most, device=weight.device), 0, -most, most)  # a `tensor` would wait

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.dorefa_sign(x) if self.bits == 1 else functions.dorefa_weight(x, bits=self.bits)


class BinaryWeight(WeightQuantizer):
    def grid(self, weight: torch.Tensor) -> Grid:
        return _grid_of_signs(weight.abs().mean(functions.others(weight, per_channel=self.per_channel), keepdim=True))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.binary(x, per_channel=self.per_channel)


class TernaryWeight(WeightQuantizer):
    def grid(self, weight: torch.Tensor) -> Grid:
        rounded = functions.ternary(weight, per_channel=self.per_channel)
        return _grid_of_signs(rounded.abs().amax(functions.others(weight, per_channel=self.per_channel), keepdim=True))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        return functions.ternary(x, per_channel=self.per_channel)


def _grid_of_signs(size: torch.Tensor) -> Grid:
    return Grid(size.clamp(min=functions.SMALLEST_SCALE), 0, -1, 1)


def weight_quantizer(
    weight: torch.Tensor, *, scheme: WeightScheme = "lsq", bits: int = 8, per: Per = "tensor"
) -> WeightQuantizer:
    """Returns a quantizer that begins with this weight. Raises ValueError where these do not go together."""
    fixed = {"binary": 1, "ternary": 2}.get(scheme, bits)
    least = 1 if scheme in ("dorefa", "binary") else 2
    if bits != fixed or not least <= bits <= 8:
        expected = str(fixed) if bits != fixed else f"{least} to 8"
        raise ValueError(f"{scheme} weights have {expected} {'bit' if expected == '1' else 'bits'}, not {bits}")
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
