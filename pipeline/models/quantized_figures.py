"""What there is to see of a quantized network: the levels of its weights, its step sizes, its size in bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from pipeline.models.activation_quantizers import AffineActivation, Observing
from pipeline.models.quantized import QuantizedLayer
from pipeline.models.quantizers import Quantizer
from pipeline.models.weight_quantizers import AffineWeight, DorefaWeight

BITS_OF_NUMBER = 32  # that a scale, a zero point and whatever is not quantized takes


class Levels(NamedTuple):
    """A rounded weight as the numbers of its levels.

    values: int16, of the weight's shape, each from low to high, but where the weight is no number.
    """

    values: torch.Tensor
    low: int
    high: int


class Size(NamedTuple):
    """The bits of what a network has learned: as it is quantized, and as it would be in float32."""

    bits: int
    bits_in_fp32: int


def weight_levels(model: nn.Module) -> dict[str, Levels]:
    """Returns the levels of each quantized weight by its name, on its device; one that is shared comes once."""
    found = {}
    for name, layer in _layers_of_own_weight(model):
        whole, grid = layer.weight_quantizer.whole(layer.weight)
        found[f"{name}.weight".lstrip(".")] = Levels(whole.to(torch.int16), grid.low, grid.high)
    return found


@torch.no_grad()
def step_sizes(model: nn.Module) -> dict[str, float]:
    """Returns the distance of two levels of each quantizer, by the layer's name and `weight` or `activation`.

    Of scales per channel it is the mean. Left out are quantizers of activations that have not seen a batch, and those
    of `dorefa` whose steps are always the same. Waits for the device, once.
    """
    scales = {}
    for name, layer in _layers_of_own_weight(model):
        weight = layer.weight_quantizer
        if not isinstance(weight, DorefaWeight) or weight.bits == 1:
            scales[f"{name}.weight".lstrip(".")] = weight.grid(layer.weight.detach().float()).scale
    for name, layer in _quantized_layers(model):
        inputs = layer.activation_quantizer
        if isinstance(inputs, Observing) and inputs.has_begun:
            scales[f"{name}.activation".lstrip(".")] = inputs.grid().scale
    if not scales:
        return {}
    return dict(zip(scales, torch.stack([scale.mean() for scale in scales.values()]).tolist(), strict=True))


def size_in_bits(model: nn.Module) -> Size | None:
    """Returns the size of what a network has learned; None of one that is not quantized.

    A value of a quantized weight counts the bits of its quantizer. Each scale counts 32, of which a weight has one, or
    one an output channel, and so does each zero point, which `affine` has beside a scale. A quantizer of activations
    has one scale, and with `affine` one zero point. Everything else counts 32 bits a value: biases, layers that are
    not quantized, batch norm with its running statistics. What is shared counts once. Whole numbers that are no
    weights count nothing, such as how many batches batch norm has seen. In float32 all of that counts 32 bits a value,
    without scales and zero points.

    A layer of 3 inputs and 2 outputs with a bias, in 4 bits per channel, has 6 * 4 + 2 * 32 + 2 * 32 = 152 bits of 256.
    """
    quantized: dict[int, int] = {}  # the bits of what a quantizer is for, by the quantizer's identity
    in_fp32: dict[int, int] = {}  # the bits of each weight and of all else, by its identity
    plain: dict[int, int] = {}  # the same of all else
    replaced: list[str] = []  # a quantized network does not store what has a name that begins so
    for name, layer in _quantized_layers(model, all_names=True):
        weight, inputs = layer.weight_quantizer, layer.activation_quantizer
        grids = len(layer.weight) if weight.per_channel else 1
        quantized[id(weight)] = layer.weight.numel() * weight.bits + grids * _bits_of_grid(weight)
        given = layer.weight if isinstance(layer.weight, nn.Parameter) else weight  # one that is computed is a new one
        in_fp32[id(given)] = layer.weight.numel() * BITS_OF_NUMBER
        if inputs is not None:
            quantized[id(inputs)] = _bits_of_grid(inputs)
        own = ("weight", "parametrizations.weight.", "weight_quantizer.", "activation_quantizer.")
        replaced += [f"{name}.{part}".lstrip(".") for part in own]
    if not quantized:
        return None
    for key, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not key.startswith(tuple(replaced)):
            plain[id(tensor)] = tensor.numel() * BITS_OF_NUMBER
    return Size(sum((*quantized.values(), *plain.values())), sum((in_fp32 | plain).values()))


def _bits_of_grid(quantizer: Quantizer) -> int:
    return BITS_OF_NUMBER * (2 if isinstance(quantizer, (AffineWeight, AffineActivation)) else 1)


def _quantized_layers(model: nn.Module, *, all_names: bool = False) -> Iterator[tuple[str, QuantizedLayer]]:
    """all_names: a layer that lies in the model twice comes by each of its names."""
    for name, module in model.named_modules(remove_duplicate=not all_names):
        if isinstance(module, QuantizedLayer):
            yield name, module


def _layers_of_own_weight(model: nn.Module) -> Iterator[tuple[str, QuantizedLayer]]:
    """Yields the first of the layers that share a weight."""
    seen = set()
    for name, layer in _quantized_layers(model):
        if id(layer.weight_quantizer) not in seen:
            seen.add(id(layer.weight_quantizer))
            yield name, layer
