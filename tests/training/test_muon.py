"""Muon: what it makes of a gradient, and that it is PyTorch's where that takes the parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.training import muon, optimizers, parameter_groups

OPTIONS: dict[str, Any] = {
    "lr": 0.02,
    "momentum": 0.95,
    "nesterov": True,
    "weight_decay": 0.1,
    "adamw_lr": 1e-3,
    "betas": (0.9, 0.999),
}


def made(parameters: Any, *, fused: bool = True, **options: Any) -> torch.optim.Optimizer:
    return optimizers.muon(parameters, fused=fused, **{**OPTIONS, **options})


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filters(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(random(*shape, seed=seed).to(memory_format=torch.channels_last))


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], num: int, first: int = 0) -> None:
    for step in range(first, first + num):
        for number, parameter in enumerate(parameters):
            gradient = random(*parameter.shape, seed=100 * step + number)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()


def distance(ours: torch.Tensor, theirs: torch.Tensor, start: torch.Tensor) -> float:
    """As a share of the way from the start."""
    return float((ours - theirs).detach().norm() / (theirs - start).detach().norm())


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)], ids=str)
@pytest.mark.parametrize("is_using_onednn", [True, False], ids=["oneDNN", "without oneDNN"])
def test_singular_values_come_near_one_and_singular_vectors_stay(
    shape: tuple[int, int], is_using_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", is_using_onednn)
    u, _, v = torch.linalg.svd(random(*shape), full_matrices=False)
    values = torch.logspace(0, -1.5, len(v))
    found = muon.orthogonalized((u * values @ v)[None] * 1e-4)[0].float()
    inner = u.T @ found @ v.T
    assert 0.65 < inner.diagonal().min() <= inner.diagonal().max() < 1.25
    assert (inner - inner.diagonal().diag()).abs().max() < 0.03
    assert (torch.linalg.svdvals(found) - inner.diagonal().sort(descending=True).values).abs().max() < 0.03


def test_matrices_of_zeros_stay_zero() -> None:
    assert torch.equal(muon.orthogonalized(torch.zeros(2, 3, 4)).float(), torch.zeros(2, 3, 4))


@pytest.mark.parametrize("options", [{}, {"nesterov": False}, {"weight_decay": 0.0}, {"momentum": 0.3}], ids=str)
def test_matrices_are_trained_as_by_pytorch(options: dict[str, Any]) -> None:
    """Of its accuracy, bfloat16: an error of a hundredth in each direction of a step."""
    shapes = [(24, 40), (40, 24), (24, 40), (64, 16)]
    ours, theirs = ([nn.Parameter(random(*shape)) for shape in shapes] for _ in range(2))
    of_muon = {key: value for key, value in {**OPTIONS, **options}.items() if key not in ("adamw_lr", "betas")}
    take_steps(made(ours, **options), ours, num=5)
    take_steps(torch.optim.Muon(theirs, **of_muon), theirs, num=5)
    for shape, a, b in zip(shapes, ours, theirs, strict=True):
        assert distance(a, b, random(*shape)) < 0.02


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (48, 3, 3, 3), (16, 32, 1, 1), (8, 4, 1, 3)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_filters_are_trained_as_matrices(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    ours = nn.Parameter(random(*shape).to(memory_format=layout))
    theirs = nn.Parameter(random(*shape).flatten(1))
    strides = ours.stride()
    optimizer = made([ours], weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1)
    for step in range(5):
        gradient = random(*shape, seed=step)
        ours.grad, theirs.grad = gradient.to(memory_format=layout), gradient.flatten(1)
        optimizer.step()
        other.step()
    assert distance(ours.flatten(1), theirs, random(*shape).flatten(1)) < 0.02
    assert ours.stride() == optimizer.state[ours]["momentum_buffer"].stride() == strides
    (change,) = muon._changes([ours], [ours.detach()], torch.tensor(1.0))
    assert change.stride() == strides


def test_matrices_that_are_taken_together_come_to_what_each_comes_to_alone() -> None:
    matrices = torch.stack([random(16, 24, seed=seed) * 10**seed for seed in range(3)])
    together = muon.orthogonalized(matrices)
    for number in range(3):
        alone = muon.orthogonalized(matrices[number : number + 1])[0]
        assert (together[number].float() - alone.float()).norm() < 0.02 * alone.float().norm()


@pytest.mark.parametrize("fused", [True, False])
def test_all_other_groups_are_trained_by_adamw(fused: bool) -> None:
    ours, theirs = ([nn.Parameter(random(10, 8)), nn.Parameter(random(10))] for _ in range(2))
    groups = [{"params": [filters(16, 8, 3, 3)], "orthogonalized": True}, {"params": ours, "orthogonalized": False}]
    optimizer = made(groups, fused=fused)
    take_steps(optimizer, [*groups[0]["params"], *ours], num=3)  # type: ignore[misc] # a list of parameters
    other = torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.1, fused=fused)
    for step in range(3):
        for number, parameter in enumerate(theirs):
            parameter.grad = random(*parameter.shape, seed=100 * step + number + 1)
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_parameters_are_parted_by_their_dimensions_where_groups_do_not_say_it() -> None:
    matrix, vector, last = nn.Parameter(random(4, 4)), nn.Parameter(random(4)), nn.Parameter(random(2, 4))
    groups: list[dict[str, Any]] = [
        {"params": iter([vector, matrix]), parameter_groups.LR_SCALE: 0.1, "weight_decay": 0.5},
        {"params": [last], "orthogonalized": False},
    ]
    before = [dict(group) for group in groups]
    found = made(groups).param_groups
    assert [group["params"] for group in found] == [[matrix], [vector], [last]]
    assert [group["orthogonalized"] for group in found] == [True, False, False]
    assert [group.get(parameter_groups.LR_SCALE, 1.0) for group in found] == pytest.approx([0.1, 0.005, 0.05])
    assert [group["weight_decay"] for group in found] == [0.5, 0.5, 0.1]
    assert [group["lr"] for group in found] == [0.02, 1e-3, 1e-3]
    assert groups == before
    assert len(made(iter([vector])).param_groups) == len(made([matrix]).param_groups) == 1


def test_a_vector_is_not_orthogonalized() -> None:
    with pytest.raises(ValueError, match="fewer than two dimensions"):
        made([{"params": [nn.Parameter(torch.zeros(3))], "orthogonalized": True}])


def test_what_has_no_gradient_is_passed_over() -> None:
    weights = [filters(8, 4, 3, 3), filters(8, 4, 3, 3, seed=1), nn.Parameter(random(8))]
    before = [weight.detach().clone() for weight in weights]
    optimizer = made(weights)
    optimizer.step()
    weights[1].grad = torch.ones_like(weights[1])
    optimizer.step()
    assert [torch.equal(a, b) for a, b in zip(weights, before, strict=True)] == [True, False, True]
    assert list(optimizer.state) == [weights[1]]


def parameters() -> list[nn.Parameter]:
    return [filters(16, 8, 3, 3), nn.Parameter(random(8, 20)), nn.Parameter(random(16)), filters(16, 8, 3, 3, seed=9)]


@pytest.mark.parametrize("fused", [True, False])
def test_what_is_saved_goes_on_bit_for_bit(fused: bool) -> None:
    whole, first, second = parameters(), parameters(), parameters()
    take_steps(made(whole, fused=fused), whole, num=4)
    optimizer = made(first, fused=fused)
    take_steps(optimizer, first, num=2)
    for weight, kept in zip(second, first, strict=True):
        weight.data.copy_(kept.data)
    resumed = made(second, fused=fused)
    resumed.load_state_dict(optimizer.state_dict())
    optimizers.lay_out_state(resumed)
    take_steps(resumed, second, num=2, first=2)
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))


def test_its_state_is_laid_out_as_the_weights_of_another_order() -> None:
    theirs, ours = nn.Parameter(random(16, 8, 3, 3)), filters(16, 8, 3, 3)
    saving, resumed = made([theirs]), made([ours])
    take_steps(saving, [theirs], num=2)
    ours.data.copy_(theirs.data)
    resumed.load_state_dict(saving.state_dict())
    optimizers.lay_out_state(resumed)
    assert resumed.state[ours]["momentum_buffer"].stride() == ours.stride()
    assert torch.equal(resumed.state[ours]["momentum_buffer"], saving.state[theirs]["momentum_buffer"])


def test_a_rate_on_the_device_comes_to_the_same_bits() -> None:
    """As it is while a graph is recorded."""
    floats, tensors = parameters(), parameters()
    for weights, is_tensor in ((floats, False), (tensors, True)):
        optimizer = made(weights)
        for step in range(3):
            for group in optimizer.param_groups:
                rate = torch.tensor(0.013 * (step + 1))
                group["lr"] = rate if is_tensor else rate.item()
            take_steps(optimizer, weights, num=1, first=step)
    assert all(torch.equal(a, b) for a, b in zip(floats, tensors, strict=True))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("is_unscaled_first", [True, False])
def test_a_gradient_scaler_unscales_and_leaves_out_what_has_overflowed(fused: bool, is_unscaled_first: bool) -> None:
    plain, scaled = parameters(), parameters()
    one, other = (made(weights, fused=fused) for weights in (plain, scaled))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(5):
        has_overflowed = step in (0, 3)
        for number, (ours, theirs) in enumerate(zip(scaled, plain, strict=True)):
            gradient = random(*ours.shape, seed=100 * step + number)
            theirs.grad = gradient.clone()
            ours.grad = scaler.scale(gradient)  # type: ignore[assignment] # a tensor for a tensor
            if has_overflowed:
                assert ours.grad is not None
                ours.grad.view(-1)[0] = torch.inf
        if not has_overflowed:
            one.step()
        if is_unscaled_first:
            scaler.unscale_(other)
        scaler.step(other)
        scaler.update()
    assert scaler.get_scale() == 256.0
    assert all(torch.equal(a, b) for a, b in zip(scaled, plain, strict=True))
