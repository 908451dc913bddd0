"""A network of few bits as files have it: each rounded weight as whole numbers, with what turns them into floats.

A quantized layer that holds `weight` in float32, and quantizers with a state of their own, comes to hold

    weight          whole numbers, int8, uint8 or int16     weight_scale, weight_zero_point    a scalar or (C,) each
    (its input)     in float32                              input_scale, input_zero_point      scalars

so that its weight is weight_scale * (weight - weight_zero_point). The names are those of compressed-tensors. The bits,
the formulas and each layer's levels are in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models.activation_quantizers import ActivationQuantizer, Observing
from pipeline.models.quantize_functions import spread
from pipeline.models.quantized import QuantizedLayer
from pipeline.models.quantizers import Grid
from pipeline.models.weight_quantizers import Integers
from pipeline.results.classifier import Classifier
from pipeline.wording import plural

WEIGHT = "weight_scale * (weight - weight_zero_point)"
INPUT = "input_scale * (clamp(round(input / input_scale) + input_zero_point, low, high) - input_zero_point)"


class DecodedWeight(nn.Module):
    """Takes a weight's whole numbers, (C, ...), and gives its floats."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, integers: Integers) -> None:
        super().__init__()
        self.register_buffer("scale", integers.scale.detach().clone())
        self.register_buffer("zero_point", integers.zero_point)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return spread(self.scale, values) * (values - spread(self.zero_point, values))


class RoundedInput(nn.Module):
    """Rounds a layer's input to the levels of a grid."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.low, self.high = grid.low, grid.high
        self.register_buffer("scale", grid.scale.detach().clone())
        self.register_buffer("zero_point", torch.as_tensor(grid.zero_point).to(torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = ((x / self.scale).round() + self.zero_point).clamp(self.low, self.high)
        return (levels - self.zero_point) * self.scale


class OnnxWeight(DecodedWeight):
    """The same as ONNX's DequantizeLinear, for torch's exporter alone: it computes nothing."""

    def __init__(self, integers: Integers) -> None:
        super().__init__(integers._replace(zero_point=integers.zero_point.to(integers.values.dtype)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        axis: dict[str, Any] = {"axis": 0} if self.scale.ndim else {}
        return _dequantized(values, self.scale, self.zero_point, axis)


class OnnxInput(RoundedInput):
    """The same as ONNX's QuantizeLinear and DequantizeLinear, for torch's exporter alone: it computes nothing.

    They saturate at the ends of int8 or uint8. Where the levels end before these, the values are clipped first.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.dtype = torch.int8 if grid.low < 0 else torch.uint8
        self.zero_point = self.zero_point.to(self.dtype)
        ends = torch.iinfo(self.dtype)
        self.is_clipped = (grid.low, grid.high) != (ends.min, ends.max)
        self.lowest, self.highest = (float((end - grid.zero_point) * grid.scale.detach()) for end in grid[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_clipped:
            x = x.clamp(self.lowest, self.highest)
        levels: torch.Tensor = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, self.scale, self.zero_point), dtype=self.dtype, shape=x.shape
        )
        return _dequantized(levels, self.scale, self.zero_point, {})


def _dequantized(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, attributes: dict[str, Any]
) -> torch.Tensor:
    floats: torch.Tensor = torch.onnx.ops.symbolic(
        "DequantizeLinear", (values, scale, zero_point), attributes, dtype=torch.float32, shape=values.shape
    )
    return floats


def network(classifier: Classifier, *, for_onnx: bool = False) -> nn.Module:
    """Returns the classifier's network; of a quantized one another, whose quantized layers hold integers.

    Raises PipelineError where a layer's weight is not its own to hold.
    """
    if classifier.spec.model.quantize is None:
        return classifier.network
    fresh = classifier.input.untrained(classifier.spec)
    fresh.load_state_dict(classifier.network.state_dict())
    made: dict[int, tuple[torch.Tensor, nn.Module]] = {}
    for name, layer in _layers(fresh):
        if not isinstance(layer.weight, nn.Parameter):
            raise PipelineError(
                f"not exported: the weight of the layer {name!r} is computed from other parameters, as by weight_norm, "
                f"so that no integers can stand in its place; trained with {name!r} in model.quantize.skip, it is "
                "left as it is, and can be exported"
            )
        key = id(layer.weight_quantizer)
        if key not in made:
            integers = layer.weight_quantizer.integers(layer.weight)
            made[key] = integers.values, (OnnxWeight if for_onnx else DecodedWeight)(integers)
        del layer.weight
        values, decoding = made[key]
        layer.register_buffer("weight", values)
        layer.register_module("weight_quantizer", decoding)
        if layer.activation_quantizer is not None:
            grid = input_grid(layer.activation_quantizer)
            rounding = None if grid is None else (OnnxInput if for_onnx else RoundedInput)(grid)
            layer.register_module("activation_quantizer", rounding)
    return fresh


def input_grid(quantizer: ActivationQuantizer | None) -> Grid | None:
    """Returns where a layer's input is rounded to; None where it is not, as one that never saw a batch."""
    if quantizer is None or (isinstance(quantizer, Observing) and not quantizer.is_observed):
        return None
    return quantizer.grid()


def tensors(classifier: Classifier) -> dict[str, torch.Tensor]:
    """Returns all that the network holds, by name, its quantized layers' as the module's docstring says."""
    holding = network(classifier)
    state = dict(holding.state_dict())
    for name, _ in _layers(holding, each_name=True):
        for inside, outside in (("weight_quantizer", "weight"), ("activation_quantizer", "input")):
            for part in ("scale", "zero_point"):
                key = f"{name}.{inside}.{part}".lstrip(".")
                if key in state:
                    state[f"{name}.{outside}_{part}".lstrip(".")] = state.pop(key)
    return state


def facts(classifier: Classifier) -> dict[str, Any]:
    """Returns what one must know to compute with the integers; nothing where there are none."""
    asked = classifier.spec.model.quantize
    if asked is None:
        return {}
    layers = {}
    for name, layer in _layers(classifier.network, each_name=True):
        grid = input_grid(layer.activation_quantizer)
        layers[name] = {
            "weight_levels": list(layer.weight_quantizer.grid(layer.weight.detach())[2:]),
            "input_levels": None if grid is None else list(grid[2:]),
        }
    return {
        "quantization": {
            "weights": asked.weights.options(),
            "activations": None if asked.activations is None else asked.activations.options(),
            "weight": WEIGHT,
            "input": INPUT,
            "layers": layers,
        }
    }


def summary(classifier: Classifier) -> str:
    """Says which integers a file of this network holds; nothing where it holds none."""
    if classifier.spec.model.quantize is None:
        return ""
    layers = [layer for _, layer in _layers(classifier.network)]
    weights = layers[0].weight_quantizer
    dtype = str(weights.integers(layers[0].weight).values.dtype).removeprefix("torch.")
    said = f"; weights of {plural(weights.bits, 'bit')} as {dtype} in {plural(len(layers), 'layer')}"
    rounded = [layer.activation_quantizer for layer in layers if input_grid(layer.activation_quantizer)]
    if rounded and rounded[0] is not None:
        said += f", inputs of {plural(rounded[0].bits, 'bit')} in {len(rounded)}"
    return said


def decoded(held: Mapping[str, torch.Tensor], layers: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns a file's tensors as floats, as a network without quantizers has them. layers: as `facts` gives them."""
    state = dict(held)
    for name in layers:
        at = f"{name}.".lstrip(".")
        values, scale, zero_point = (state.pop(f"{at}weight{part}") for part in ("", "_scale", "_zero_point"))
        state[f"{at}weight"] = spread(scale, values) * (values - spread(zero_point, values))
        for part in ("scale", "zero_point"):
            state.pop(f"{at}input_{part}", None)
    return state


def round_inputs(floats: nn.Module, held: Mapping[str, torch.Tensor], layers: Mapping[str, Any]) -> None:
    """Has the layers of a network without quantizers round their inputs as a file says."""
    for name, levels in layers.items():
        if levels["input_levels"] is not None:
            scale, zero_point = (held[f"{name}.input_{part}".lstrip(".")] for part in ("scale", "zero_point"))
            layer = floats.get_submodule(name)
            layer.rounded_input = RoundedInput(Grid(scale, zero_point, *levels["input_levels"]))
            layer.register_forward_pre_hook(lambda layer, given: (layer.rounded_input(given[0]),))


class Trace(NamedTuple):
    """A model's answer, and what it rounded inputs of layers to on the way, in any order."""

    logits: torch.Tensor
    rounded: list[torch.Tensor]


def tracing(model: nn.Module) -> Callable[[torch.Tensor], Trace] | None:
    """Returns a call of the model that keeps what is rounded; None where it rounds nothing."""
    rounding = [module for module in model.modules() if isinstance(module, RoundedInput)]
    if not rounding:
        return None

    def trace(images: torch.Tensor) -> Trace:
        rounded: list[torch.Tensor] = []
        hooks = [each.register_forward_hook(lambda _module, _given, gives: rounded.append(gives)) for each in rounding]
        logits = model(images)
        for hook in hooks:
            hook.remove()
        return Trace(logits, rounded)

    return trace


def _layers(network: nn.Module, *, each_name: bool = False) -> Iterator[tuple[str, QuantizedLayer]]:
    """Yields the quantized layers. each_name: one that the network has under several names comes with each of them."""
    for name, module in network.named_modules(remove_duplicate=not each_name):
        if isinstance(module, QuantizedLayer):
            yield name, module
