"""Any network with rounded weights and inputs: its convolutions and linear layers become ones that quantize, in place.

Each layer stays the object that it was, with its parameters, hooks and name; its class becomes one that rounds. What
the quantizers learn lies below the layer: `features.conv1.weight` is as it was, and beside it are
`features.conv1.weight_quantizer.step` and `features.conv1.activation_quantizer.step`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.models.activation_quantizers import ActivationQuantizer, Observing, activation_quantizer
from pipeline.models.quantizers import Quantizer, not_compiled
from pipeline.models.weight_quantizers import WeightQuantizer, weight_quantizer

NAMED = 20  # layers in a message


class QuantizedLayer(nn.Module):
    """A layer that computes with its weight rounded, and its input too, as in Esser et al. (2020), figure 1."""

    weight: torch.Tensor
    weight_quantizer: WeightQuantizer
    activation_quantizer: ActivationQuantizer | None
    was_called = False

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the layer's input as its quantizer gives it."""
        self.was_called = True
        return x if self.activation_quantizer is None else self.activation_quantizer(x)


class QuantizedConv2d(QuantizedLayer, nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._conv_forward(self.rounded(input), self.weight_quantizer(self.weight), self.bias)
        return output


class QuantizedLinear(QuantizedLayer, nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.rounded(input), self.weight_quantizer(self.weight), self.bias)


def quantize(
    model: nn.Module,
    *,
    weights: Mapping[str, Any],
    activations: Mapping[str, Any] | None = None,
    skip: Sequence[str] = ("first", "last"),
) -> nn.Module:
    """Has each `nn.Conv2d` and `nn.Linear` round its weight, and its input, and returns the network itself.

    A class of somebody's own that inherits their `forward` counts; one with its own does not, and neither do the layers
    inside `nn.MultiheadAttention`, which takes their weights without calling them. Layers that share a weight share its
    quantizer. A layer that is called several times has one quantizer for all its inputs.

    weights: `scheme`, `bits` and `per`, as for `weight_quantizer`. activations: `scheme` and `bits`, as for
    `activation_quantizer`; None: they are left as they are.
    skip: layers that are left as they are: `first` and `last` of all in the order of `named_modules`, which is that of
    registration, and names of layers or of modules that they lie in.
    Raises ValueError where nothing is left to quantize, or `skip` names what is not there.
    """
    layers = _layers(model)
    chosen = _without(layers, skip)
    shared: dict[int, WeightQuantizer] = {}
    for layer in chosen.values():
        key = id(layer.weight) if isinstance(layer.weight, nn.Parameter) else id(layer)
        if key not in shared:
            shared[key] = weight_quantizer(layer.weight, **weights).to(layer.weight.device)
        made = None if activations is None else activation_quantizer(**activations).to(layer.weight.device)
        layer.__class__ = _quantized_class(type(layer))
        layer.weight_quantizer, layer.activation_quantizer = shared[key], made
        for quantizer in (shared[key], made):
            if quantizer is not None:
                quantizer.train(layer.training)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # else it takes the layers' weights in evaluation, without calling them
    model.register_forward_hook(_end_first_batch)
    return model


def begin_steps(model: nn.Module, *, known: Collection[str]) -> None:
    """Sets what the weight quantizers begin with anew, by weights that were loaded meanwhile.

    known: keys of the network's state dict that were loaded too, and are left as they are.
    """
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLayer) and f"{name}.weight_quantizer.step".lstrip(".") not in known:
            module.weight_quantizer.begin(module.weight.detach())


def keys_of_other_quantizers(model: nn.Module, state: Mapping[str, torch.Tensor]) -> set[str]:
    """Returns the keys of a state, on the CPU, that are of quantizers with other bits or schemes than here."""
    found: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, Quantizer) and not module.is_of_its_kind(state.get(f"{name}.kind")):
            found.update(key for key in state if key.startswith(f"{name}."))
    return found


def left_out(model: nn.Module) -> list[str]:
    """Says, after a first training batch, which layers compute in float32 all the same; mostly there is nothing to say.

    A network may take a layer's weight without calling it, or keep a part of itself in evaluation mode, where nothing
    is learned of a layer's input.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLayer)}
    called = {name: layer.activation_quantizer for name, layer in layers.items() if layer.was_called}
    unknown = [name for name, inputs in called.items() if isinstance(inputs, Observing) and not inputs.has_begun]
    said = []
    if len(called) < len(layers):
        said.append(f"not rounded, as the network does not call them: {_some([*(layers.keys() - called.keys())])}")
    if unknown:
        said.append(f"inputs not rounded, as these layers are not in training mode: {_some(unknown)}")
    return said


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _layers(model: nn.Module) -> dict[str, Any]:
    """The layers that can be quantized, by name, in the order of registration."""
    taken_apart = {
        id(inner)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for inner in module.modules()
    }
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).forward in (nn.Conv2d.forward, nn.Linear.forward) and id(module) not in taken_apart
    }


def _without(layers: dict[str, Any], skip: Sequence[str]) -> dict[str, Any]:
    if not layers:
        raise ValueError("there is no nn.Conv2d and no nn.Linear in the model that could be quantized")
    names = list(layers)
    ends = {"first": names[0], "last": names[-1]}
    skipped: set[str] = set()
    for asked in skip:
        found = {name for name in names if f"{name}.".startswith(f"{ends.get(asked, asked)}.")}
        if not found:
            listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            near = difflib.get_close_matches(asked, [name for name in (*ends, *names) if name not in skip], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            what = "no convolution or linear layer of that name"
            raise ValueError(f"skip names {asked!r}, and the model has {what}{hint} (it has: {listed})")
        skipped |= found
    chosen = {name: layer for name, layer in layers.items() if name not in skipped}
    if not chosen:
        raise ValueError(f"skip leaves nothing to quantize: the model's layers are {', '.join(names[:NAMED])}")
    return chosen


def _quantized_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a layer of this one becomes; of somebody's own class, one that is derived of it."""
    base = QuantizedConv2d if issubclass(kind, nn.Conv2d) else QuantizedLinear
    if kind in (nn.Conv2d, nn.Linear):
        return base
    made: type[nn.Module] = type(f"Quantized{kind.__name__}", (base, kind), {})
    return made


@not_compiled  # it is called once
def _end_first_batch(model: nn.Module, given: Any, gives: Any) -> None:  # noqa: ARG001
    """A hook of the whole network that ends each quantizer's first training batch, and goes with the last one's."""
    if not model.training:
        return
    observing = [module for module in model.modules() if isinstance(module, Observing)]
    for module in observing:
        module.end_first_batch()
    if not all(module.has_begun for module in observing):
        return
    for key in [key for key, hook in model._forward_hooks.items() if hook is _end_first_batch]:
        del model._forward_hooks[key]
