"""What is seen of a quantized network: levels, step sizes, and what its size counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from pipeline.models.quantized import quantize
from pipeline.models.quantized_figures import size_in_bits, step_sizes, weight_levels

PER_CHANNEL = {"scheme": "lsq", "bits": 4, "per": "channel"}


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.two(self.one(x))
        return out


# Levels


@pytest.mark.parametrize(
    ("weights", "low", "high"),
    [
        (PER_CHANNEL, -8, 7),
        ({"scheme": "symmetric", "bits": 8}, -128, 127),
        ({"scheme": "affine", "bits": 2, "per": "channel"}, 0, 3),
        ({"scheme": "dorefa", "bits": 2}, -3, 3),
        ({"scheme": "binary", "bits": 1}, -1, 1),
        ({"scheme": "ternary", "bits": 2}, -1, 1),
    ],
    ids=lambda value: value["scheme"] if isinstance(value, dict) else None,
)
def test_levels_are_the_whole_numbers_that_the_rounded_weight_is_made_of(
    weights: dict[str, Any], low: int, high: int
) -> None:
    model = quantize(two_layers(), weights=weights, skip=["2"])
    (found,) = weight_levels(model).items()
    name, levels = found
    layer = model.get_submodule("0")
    assert (name, levels.low, levels.high) == ("0.weight", low, high)
    assert torch.equal(levels.values, layer.weight_quantizer.integers(layer.weight).values)
    assert low <= int(levels.values.min()) < int(levels.values.max()) <= high


def test_a_weight_that_layers_share_is_seen_once() -> None:
    model = quantize(Tied(), weights=PER_CHANNEL, activations={"bits": 4}, skip=[])
    model(torch.randn(3, 5))
    assert list(weight_levels(model)) == ["one.weight"]
    assert list(step_sizes(model)) == ["one.weight", "one.activation", "two.activation"]


def test_a_network_that_is_not_quantized_has_nothing_to_see() -> None:
    assert (weight_levels(two_layers()), step_sizes(two_layers()), size_in_bits(two_layers())) == ({}, {}, None)


def test_a_layer_that_is_the_whole_network_has_the_names_of_its_own() -> None:
    model = quantize(nn.Linear(3, 2), weights=PER_CHANNEL, skip=[])
    assert list(weight_levels(model)) == list(step_sizes(model)) == ["weight"]


# Step sizes


def test_the_step_of_a_weight_is_the_mean_over_its_channels() -> None:
    model = quantize(two_layers(), weights=PER_CHANNEL, skip=[])
    with torch.no_grad():
        model.get_submodule("0").weight_quantizer.step.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert step_sizes(model)["0.weight"] == pytest.approx(0.3)


def test_the_step_of_a_range_is_that_of_the_weight_as_it_is_now() -> None:
    model = quantize(two_layers(), weights={"scheme": "symmetric", "bits": 4}, skip=["2"])
    weight = model.get_submodule("0").weight
    with torch.no_grad():
        weight.mul_(3)
    assert step_sizes(model) == {"0.weight": pytest.approx(float(weight.detach().abs().max()) / 7)}


@pytest.mark.parametrize("scheme", ["lsq", "symmetric", "affine"])
def test_the_step_of_activations_is_seen_once_a_batch_was(scheme: str) -> None:
    model = quantize(two_layers(), weights=PER_CHANNEL, activations={"scheme": scheme, "bits": 4}, skip=["2"])
    assert list(step_sizes(model)) == ["0.weight"]
    images = torch.rand(8, 6)
    model(images)
    found = step_sizes(model)["0.activation"]
    expected = 2 * images.mean() / 15**0.5 if scheme == "lsq" else images.max() / 15  # nothing is negative
    assert found == pytest.approx(float(expected))


@pytest.mark.parametrize(("bits", "expected"), [(1, ["0.weight"]), (4, [])])
def test_the_steps_of_dorefa_are_left_out_where_nothing_changes_them(bits: int, expected: list[str]) -> None:
    both = {"scheme": "dorefa", "bits": bits}
    model = quantize(two_layers(), weights=both, activations=both, skip=["2"])
    model(torch.rand(8, 6))
    assert list(step_sizes(model)) == expected


# Size


@pytest.mark.parametrize(
    ("weights", "activations", "expected"),
    [
        (PER_CHANNEL, None, 6 * 4 + 2 * 32 + 2 * 32),
        ({"scheme": "lsq", "bits": 4}, None, 6 * 4 + 32 + 2 * 32),
        ({"scheme": "symmetric", "bits": 3}, {"scheme": "lsq"}, 6 * 3 + 32 + 2 * 32 + 32),
        ({"scheme": "affine", "bits": 4, "per": "channel"}, None, 6 * 4 + 2 * (32 + 32) + 2 * 32),
        ({"scheme": "affine", "bits": 4}, {"scheme": "affine"}, 6 * 4 + (32 + 32) + 2 * 32 + (32 + 32)),
        ({"scheme": "ternary", "bits": 2}, {"scheme": "symmetric"}, 6 * 2 + 32 + 2 * 32 + 32),
        ({"scheme": "binary", "bits": 1}, {"scheme": "dorefa"}, 6 * 1 + 32 + 2 * 32 + 32),
    ],
)
def test_the_size_counts_the_bits_of_weights_scales_and_zero_points(
    weights: dict[str, Any], activations: dict[str, Any] | None, expected: int
) -> None:
    """Of a layer of 3 inputs and 2 outputs with a bias."""
    model = quantize(nn.Linear(3, 2), weights=weights, activations=activations, skip=[])
    assert size_in_bits(model) == (expected, (6 + 2) * 32)


def test_the_size_counts_all_else_as_it_is_stored() -> None:
    """Not the count of batches that batch norm has seen."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model.register_buffer("table", torch.zeros(7))
    model.register_buffer("of_no_checkpoint", torch.zeros(9), persistent=False)
    plain = 32 * sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    assert plain == 32 * (36 + 4 + 4 * 4 + 8 + 2 + 7)
    quantize(model, weights=PER_CHANNEL, skip=["last"])
    assert size_in_bits(model) == (plain - 36 * 32 + 36 * 4 + 4 * 32, plain)


def test_the_size_counts_once_what_is_shared() -> None:
    model = quantize(Tied(), weights=PER_CHANNEL, activations={"bits": 4}, skip=[])
    assert size_in_bits(model) == (25 * 4 + 5 * 32 + 2 * 32, 25 * 32)
    layer = nn.Linear(5, 5, bias=False)
    twice = quantize(nn.Sequential(layer, layer), weights=PER_CHANNEL, skip=[])
    assert size_in_bits(twice) == (25 * 4 + 5 * 32, 25 * 32)


def test_a_weight_that_a_skipped_layer_shares_is_stored_both_ways() -> None:
    model = quantize(Tied(), weights=PER_CHANNEL, skip=["two"])
    assert size_in_bits(model) == (25 * 32 + 25 * 4 + 5 * 32, 25 * 32)


def test_the_size_of_a_weight_that_is_computed_is_that_of_what_comes_out() -> None:
    layer = parametrizations.weight_norm(nn.Linear(3, 2, bias=False))
    model = quantize(nn.Sequential(layer), weights=PER_CHANNEL, skip=[])
    assert size_in_bits(model) == (6 * 4 + 2 * 32, 6 * 32)
