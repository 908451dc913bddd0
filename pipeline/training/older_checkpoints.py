"""Checkpoints of older versions, taken up by the networks of this one.

Until 28 November 2026 the layers of `cnn_bn` and `vgg` that stand before a batch norm had a bias. Batch norm subtracts
the mean of its input, and a bias with it: in training the bias changes nothing. In evaluation it subtracts the running
mean, which contains the bias; less the bias, that is the running mean of the layer without one. So the state of an old
checkpoint becomes one of this version that computes the same, but for the rounding of a float32. Networks of the user's
own are left alone: a run has their code as it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pipeline.models.cnn_bn import CnnBn
from pipeline.models.vgg import Vgg

NOTE = (
    "the checkpoint is of an older version, in which layers before batch norm had a bias; it is folded into the "
    "running mean"
)


def up_to_date(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Returns tensors by their names as this version has them: `weights` itself, but where it is of an older one."""
    biases = _old_biases(model, weights)
    if not biases:
        return weights
    folded = {name: value for name, value in weights.items() if name not in biases}
    for bias, mean in biases.items():
        folded[mean] = weights[mean] - weights[bias].to(weights[mean])
    return folded


def without_biases(
    model: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, torch.Tensor], state: dict[str, Any]
) -> dict[str, Any]:
    """Returns the state of an optimizer without what it keeps for the biases that `up_to_date` takes out of `weights`.

    A state names its parameters by numbers, group by group in the order in which the optimizer got them; what is left
    keeps its order, which is all that PyTorch goes by. A bias came directly after its weight. All of them were in one
    group: one of `parameter_groups.py`, or where an optimizer of the user's own keeps what is not decayed.
    Raises ValueError or LookupError where it is the state of another optimizer.
    """
    biases = {bias: f"{bias.removesuffix('bias')}weight" for bias in _old_biases(model, weights)}
    of_weight = {weight: bias for bias, weight in biases.items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    old_order: list[str] = []
    for name in names.values():
        old_order += (name, of_weight[name]) if name in of_weight else (name,)
    place = {name: number for number, name in enumerate(old_order)}
    groups, dropped = [], set()
    for saved, now in zip(state["param_groups"], optimizer.param_groups, strict=True):
        numbers, here = list(saved["params"]), [names[id(parameter)] for parameter in now["params"]]
        if len(numbers) > len(here):
            if here != sorted(here, key=place.__getitem__):
                raise ValueError("the optimizer does not keep its parameters in the order of the network")
            then = sorted([*here, *biases], key=place.__getitem__)
            gone = {number for number, name in zip(numbers, then, strict=True) if name in biases}
            numbers = [number for number in numbers if number not in gone]
            dropped |= gone
        groups.append({**saved, "params": numbers})
    kept = {number: value for number, value in state["state"].items() if number not in dropped}
    return {**state, "state": kept, "param_groups": groups}


def _old_biases(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Returns the name of each bias in `weights` that the network has no more, with that of its batch norm's mean."""
    found = {}
    for layer, norm in _before_batch_norm(model):
        bias, mean = f"{layer}.bias", f"{norm}.running_mean"
        if bias in weights and mean in weights and weights[bias].shape == weights[mean].shape:
            found[bias] = mean
    return found


def _before_batch_norm(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yields the names of each layer without a bias and of the batch norm behind it, in networks that had one."""
    if type(model) not in (CnnBn, Vgg):
        return
    for part, sequence in model.named_children():
        for (name, layer), (behind, norm) in itertools.pairwise(sequence.named_children()):
            is_linear = isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is None
            if is_linear and isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
                yield f"{part}.{name}", f"{part}.{behind}"
