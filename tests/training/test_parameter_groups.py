"""Groups of parameters: what has a learning rate or a weight decay of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    take,
)
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.training import parameter_groups

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.01}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.hidden = nn.Linear(2, 3)
        self.ln = nn.LayerNorm(3)
        self.token = nn.Parameter(torch.zeros(1, 1, 3))
        self.head = nn.Linear(3, 4)


def groups(optimizer: dict[str, Any], **model: Any) -> dict[str, dict[str, Any]]:
    """What each parameter's group has beside its parameters, by the parameter's name."""
    network = Small()
    spec = make_spec({"name": "cnn_bn", **model}, train={"optimizer": {**SGD, **optimizer}})
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = parameter_groups.of(network, spec)
    parts = {names[id(p)]: {k: v for k, v in g.items() if k != "params"} for g in found for p in g["params"]}
    assert parts.keys() == set(names.values())
    assert sum(len(group["params"]) for group in found) == len(names)
    return parts


def test_a_job_that_asks_for_nothing_has_one_group_in_the_order_of_the_network() -> None:
    network = Small()
    found = parameter_groups.of(network, make_spec())
    assert all(a is b for a, b in zip(found, network.parameters(), strict=True))


def test_norms_and_biases_have_a_decay_of_their_own() -> None:
    """As torchvision's references: the bias of a norm layer is decayed as the norm layer."""
    parts = groups({"norm_weight_decay": 0.0, "bias_weight_decay": 0.002})
    assert {name for name, part in parts.items() if part.get("weight_decay") == 0.0} == {
        *("bn.weight", "bn.bias", "ln.weight", "ln.bias")
    }
    assert {name for name, part in parts.items() if part.get("weight_decay") == 0.002} == {
        *("conv.bias", "hidden.bias", "head.bias")
    }
    assert all(part["lr_scale"] == 1 for part in parts.values())


def test_a_decay_for_biases_alone_leaves_norm_layers_as_they_are() -> None:
    parts = groups({"bias_weight_decay": 0.0})
    assert "weight_decay" not in parts["bn.bias"]
    assert parts["conv.bias"]["weight_decay"] == 0


def test_biases_have_a_rate_of_their_own_those_of_norm_layers_too() -> None:
    parts = groups({"bias_lr": 64.0})
    assert {name for name, part in parts.items() if part["lr_scale"] == 64} == {
        *("conv.bias", "bn.bias", "hidden.bias", "ln.bias", "head.bias")
    }


def test_the_rate_of_the_backbone_and_that_of_biases_are_multiplied() -> None:
    parts = groups({"bias_lr": 4.0}, backbone_lr=0.5)
    rates = {name: parts[name]["lr_scale"] for name in ("conv.weight", "conv.bias", "head.weight", "head.bias")}
    assert rates == {"conv.weight": 0.5, "conv.bias": 2.0, "head.weight": 1.0, "head.bias": 4.0}


def test_the_backbone_comes_first() -> None:
    """An optimizer's state goes by the order: one of an earlier version still fits."""
    network = Small()
    backbone, head = parameter_groups.of(network, make_spec({"name": "cnn_bn", "backbone_lr": 0.5}))
    assert [len(backbone["params"]), len(head["params"])] == [9, 2]
    assert head["params"][0] is network.head.weight


@pytest.mark.parametrize("optimizer", [{"bias_lr": 8.0}, {"norm_weight_decay": 0.0, "bias_weight_decay": 0.0}])
def test_a_step_changes_each_parameter_by_the_rate_and_the_decay_of_its_group(
    optimizer: dict[str, Any], digits: Dataset
) -> None:
    """Against SGD's own formula, w - lr (g + decay w)."""
    schedule = {"schedule": {"name": "constant"}, "precision": "fp32"}
    engine = engine_of(make_spec(train={"optimizer": {**SGD, **optimizer}, **schedule}), digits)
    before = {name: value.detach().clone() for name, value in engine.model.named_parameters()}
    take(engine, 1)
    for name, value in engine.model.named_parameters():
        is_norm, is_bias = ".bn" in name, name.endswith("bias")
        lr = 0.1 * (optimizer.get("bias_lr", 1.0) if is_bias else 1.0)
        decay = optimizer.get("norm_weight_decay" if is_norm else "bias_weight_decay" if is_bias else "", 0.01)
        assert value.grad is not None
        expected = before[name] - lr * (value.grad + decay * before[name])
        torch.testing.assert_close(value.detach(), expected)
