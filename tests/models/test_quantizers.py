"""Every quantizer computes the formula and the gradients of its docstring: by hand, slowly, and as PyTorch does."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pipeline.models import quantize_functions as functions
from pipeline.models.activation_quantizers import (
    AVERAGING,
    AffineActivation,
    LsqActivation,
    Observing,
    SymmetricActivation,
    activation_quantizer,
)
from pipeline.models.quantizers import levels
from pipeline.models.weight_quantizers import LsqWeight, weight_quantizer

Numbers = list[float]


def doubles(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def edges(step: float, low: int, high: int) -> Numbers:
    """Every level, every border between two, what is just beside these, and what is far outside."""
    marks = [level * step for level in range(low - 2, high + 3)] + [(level + 0.5) * step for level in range(low, high)]
    return [mark + beside for mark in marks for beside in (-1e-6, 0.0, 1e-6)] + [-1e3, 1e3]


def inputs(step: float, low: int, high: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.cat((doubles(edges(step, low, high)), 3 * step * torch.randn(200).double()))


def run(function: Callable[..., torch.Tensor], *given: torch.Tensor, dy: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradient of each input for this one of the output."""
    leaves = [value.clone().requires_grad_() for value in given]
    y = function(*leaves)
    y.backward(dy)
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def close(found: torch.Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=1e-9, atol=1e-9)


# Closed forms, number by number


@pytest.mark.parametrize(("low", "high", "zero_point"), [(-8, 7, 0), (0, 15, 0), (0, 7, 3), (-2, 1, 0), (0, 255, 255)])
@pytest.mark.parametrize("scale", [0.5, 0.3, 1e-3])
def test_fake_quantize_is_its_formula(low: int, high: int, zero_point: int, scale: float) -> None:
    x = inputs(scale, low - zero_point, high - zero_point)
    dy = torch.randn_like(x)
    found = run(lambda x: functions.fake_quantize(x, doubles(scale), zero_point, low=low, high=high), x, dy=dy)
    y, dx = [], []
    for value, gradient in zip(x.tolist(), dy.tolist(), strict=True):
        level = round(value / scale) + zero_point  # Python rounds halves to even too
        y.append(scale * (min(max(level, low), high) - zero_point))
        dx.append(gradient if low <= level <= high else 0.0)
    close(found[0], y)
    close(found[1], dx)


def slow_lsq(v: Numbers, step: float, low: int, high: int, dy: Numbers, g: float) -> tuple[Numbers, Numbers, float]:
    y, dv, dstep = [], [], 0.0
    for value, gradient in zip(v, dy, strict=True):
        ratio = value / step
        y.append(step * round(min(max(ratio, low), high)))
        dv.append(gradient if low < ratio < high else 0.0)
        dstep += gradient * (low if ratio <= low else high if ratio >= high else round(ratio) - ratio)
    return y, dv, dstep * g


@pytest.mark.parametrize(("low", "high"), [(-8, 7), (0, 15), (-2, 1), (0, 3), (-128, 127)])
@pytest.mark.parametrize("step", [0.5, 0.3, 1e-3])
def test_lsq_is_its_formula(low: int, high: int, step: float) -> None:
    v = inputs(step, low, high)
    dy = torch.randn_like(v)
    g = 1 / math.sqrt(len(v) * high)
    found = run(lambda v, s: functions.lsq(v, s, low=low, high=high, gradient_scale=g), v, doubles(step), dy=dy)
    for one, expected in zip(found, slow_lsq(v.tolist(), step, low, high, dy.tolist(), g), strict=True):
        close(one, expected)


def test_lsq_per_channel_is_lsq_of_each_channel() -> None:
    torch.manual_seed(0)
    v, dy = torch.randn(3, 4, 3, 3).double(), torch.randn(3, 4, 3, 3).double()
    steps = doubles([0.1, 0.4, 2.0])
    function = lambda v, s: functions.lsq(v, s, low=-2, high=1, gradient_scale=0.25)  # noqa: E731
    y, dv, dsteps = run(function, v, steps, dy=dy)
    for channel in range(3):
        of_one = run(function, v[channel], steps[channel], dy=dy[channel])
        for all_, one in zip((y, dv, dsteps), of_one, strict=True):
            close(all_[channel], one)


@pytest.mark.parametrize("step", [0.0, -1.0, 1e-12])
def test_a_step_that_has_become_too_small_divides_nothing_by_nothing(step: float) -> None:
    v = torch.tensor([-1.0, 0.0, 1.0])
    y, dv, dstep = run(
        lambda v, s: functions.lsq(v, s, low=-2, high=1, gradient_scale=1.0), v, torch.tensor(step), dy=torch.ones(3)
    )
    torch.testing.assert_close(y, functions.SMALLEST_SCALE * torch.tensor([-2.0, 0.0, 1.0]), rtol=1e-6, atol=0)
    assert dv.tolist() == [0, 1, 0]
    assert dstep.item() == -1


def slow_dorefa(w: Numbers, bits: int, dy: Numbers) -> tuple[Numbers, Numbers]:
    most, t = 2**bits - 1, [math.tanh(value) for value in w]
    m = max(map(abs, t))
    y = [2 * round(most * (value / (2 * m) + 0.5)) / most - 1 for value in t]
    num_largest = sum(abs(value) == m for value in t)
    through = sum(d * value for d, value in zip(dy, t, strict=True)) / m**2 / num_largest
    dw = [
        (1 - value**2) * (d / m - (math.copysign(through, value * through) if abs(value) == m else 0))
        for d, value in zip(dy, t, strict=True)
    ]
    return y, dw


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("w", [[0.5, -1.0, 0.1, 0.0, -0.3], [1.5, -1.5, 0.2], [-2.0]], ids=str)
def test_dorefa_weights_are_their_formula(bits: int, w: Numbers) -> None:
    torch.manual_seed(0)
    dy = torch.randn(len(w)).double()
    found = run(lambda w: functions.dorefa_weight(w, bits=bits), doubles(w), dy=dy)
    for one, expected in zip(found, slow_dorefa(w, bits, dy.tolist()), strict=True):
        close(one, expected)


def test_the_gradient_of_dorefa_weights_is_that_of_what_is_rounded() -> None:
    """As autograd computes it, rounding left out."""
    torch.manual_seed(0)
    w, dy = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    smooth = run(lambda w: torch.tanh(w) / torch.tanh(w).abs().amax(), w, dy=dy)[1]
    close(run(lambda w: functions.dorefa_weight(w, bits=4), w, dy=dy)[1], smooth)


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_dorefa_activations_are_their_formula(bits: int) -> None:
    most = 2**bits - 1
    x = inputs(1 / most, 0, most)
    dy = torch.randn_like(x)
    y, dx = run(lambda x: functions.dorefa_activation(x, bits=bits), x, dy=dy)
    close(y, [round(most * min(max(value, 0), 1)) / most for value in x.tolist()])
    close(dx, [d if 0 <= value <= 1 else 0 for value, d in zip(x.tolist(), dy.tolist(), strict=True)])


@pytest.mark.parametrize("w", [[0.5, -0.25, 1.5, 0.0, -1.0, 1.0], [0.0, 0.0], [-3.0]], ids=str)
def test_binary_weights_are_their_formula(w: Numbers) -> None:
    torch.manual_seed(0)
    dy = torch.randn(len(w)).double()
    a, signs = sum(map(abs, w)) / len(w), [-1 if value < 0 else 1 for value in w]
    through = sum(d * sign for d, sign in zip(dy.tolist(), signs, strict=True)) / len(w)
    y, dw = run(functions.binary, doubles(w), dy=dy)
    close(y, [a * sign for sign in signs])
    close(dw, [a * d * (abs(v) <= 1) + s * through for v, s, d in zip(w, signs, dy.tolist(), strict=True)])
    found = run(functions.dorefa_sign, doubles(w), dy=dy)
    close(found[0], [a * sign for sign in signs])
    assert torch.equal(found[1], dy)


@pytest.mark.parametrize("w", [[0.9, -0.2, 0.5, -0.8], [0.0, 0.0], [-3.0, 0.1, 0.2]], ids=str)
def test_ternary_weights_are_their_formula(w: Numbers) -> None:
    torch.manual_seed(0)
    dy = torch.randn(len(w)).double()
    border = 0.7 * sum(map(abs, w)) / len(w)
    large = [abs(value) for value in w if abs(value) > border]
    a = sum(large) / len(large) if large else 0.0
    y, dw = run(functions.ternary, doubles(w), dy=dy)
    close(y, [math.copysign(a, value) if abs(value) > border else 0.0 for value in w])
    assert torch.equal(dw, dy)


@pytest.mark.parametrize("function", [functions.binary, functions.ternary])
def test_per_channel_is_each_channel_by_itself(function: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    w, dy = torch.randn(3, 2, 3, 3).double(), torch.randn(3, 2, 3, 3).double()
    y, dw = run(lambda w: function(w, per_channel=True), w, dy=dy)
    for channel in range(3):
        one, of_one = run(function, w[channel], dy=dy[channel])
        close(y[channel], one)
        close(dw[channel], of_one)


# The numbers of the docstrings


def test_the_worked_numbers_of_the_docstrings() -> None:
    def found(function: Callable[..., torch.Tensor], *given: Any, dy: Numbers | None = None) -> list[Numbers]:
        tensors = [doubles(value) for value in given]
        gradient = torch.ones_like(tensors[0]) if dy is None else doubles(dy)
        return [(1e4 * value).round().div(1e4).tolist() for value in run(function, *tensors, dy=gradient)]

    half = doubles(0.5)
    assert found(lambda x: functions.fake_quantize(x, half, 3, low=0, high=7), [0.8, 2.6]) == [[1, 2], [1, 0]]
    lsq = lambda v, s: functions.lsq(v, s, low=-2, high=1, gradient_scale=1 / math.sqrt(2))  # noqa: E731
    assert found(lsq, [0.3, -1.7], 0.5) == [[0.5, -1], [1, 0], -1.1314]
    assert found(lambda w: functions.dorefa_weight(w, bits=2), [0.5, -1.0], dy=[1, 0]) == [
        [0.3333, -1],
        [1.0326, 0.3346],
    ]
    assert found(functions.dorefa_sign, [0.5, -0.25, 1.5]) == [[0.75, -0.75, 0.75], [1, 1, 1]]
    assert found(lambda x: functions.dorefa_activation(x, bits=2), [0.7, 1.4]) == [[0.6667, 1], [1, 0]]
    binary = [[0.75, -0.75, 0.75], [1.0833, -0.3333, 0.3333]]
    assert found(functions.binary, [0.5, -0.25, 1.5], dy=[1, 0, 0]) == binary
    assert found(functions.ternary, [0.9, -0.2, 0.5, -0.8]) == [[0.7333, 0, 0.7333, -0.7333], [1, 1, 1, 1]]


def test_a_second_derivative_is_refused_in_words() -> None:
    """Straight through, it would be of a function that is not the one computed."""
    v, step = doubles([0.3, -1.7]).requires_grad_(), doubles(0.5).requires_grad_()
    y = functions.lsq(v, step, low=-2, high=1, gradient_scale=1.0)
    (gradient,) = torch.autograd.grad(y.square().sum(), v, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked with @once_differentiable"):
        gradient.sum().backward()


# As PyTorch computes it


def test_fake_quantize_is_pytorchs_per_tensor() -> None:
    torch.manual_seed(0)
    x, dy = 4 * torch.randn(1000), torch.randn(1000)
    for scale, zero_point, low, high in ((0.125, 0, -128, 127), (0.5, 3, 0, 7), (0.37, 100, 0, 255)):
        ours = run(lambda x: functions.fake_quantize(x, torch.tensor(scale), zero_point, low=low, high=high), x, dy=dy)  # noqa: B023
        theirs = run(lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high), x, dy=dy)  # noqa: B023
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


def test_fake_quantize_is_pytorchs_per_channel() -> None:
    torch.manual_seed(0)
    x, dy = 4 * torch.randn(3, 5, 2, 2), torch.randn(3, 5, 2, 2)
    scale, zero_point = torch.tensor([0.5, 0.37, 0.03]), torch.tensor([0, 3, 7], dtype=torch.int32)
    shape = (3, 1, 1, 1)
    ours = run(
        lambda x: functions.fake_quantize(x, scale.view(shape), zero_point.float().view(shape), low=0, high=7), x, dy=dy
    )
    theirs = run(lambda x: torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, 0, 7), x, dy=dy)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("low", "high"), [(-8, 7), (0, 15)])
def test_lsq_is_pytorchs_learnable_quantizer_but_in_half_a_step_beyond_the_last_level(low: int, high: int) -> None:
    """There PyTorch still says that the value is inside, as it would be rounded to the last level."""
    torch.manual_seed(0)
    v, dy, step = 2 * torch.randn(4000), torch.randn(4000), torch.tensor([0.25])
    ratio = v / step
    kept = ~(((ratio > high) & (ratio < high + 1)) | ((ratio < low) & (ratio > low - 1)))
    v, dy, g = v[kept], dy[kept], 0.125
    ours = run(lambda v, s: functions.lsq(v, s[0], low=low, high=high, gradient_scale=g), v, step, dy=dy)
    zero = torch.zeros(1)
    theirs = run(
        lambda v, s: torch._fake_quantize_learnable_per_tensor_affine(v, s, zero, low, high, g), v, step, dy=dy
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


# The modules


WEIGHTS = [
    *((scheme, bits, "tensor") for scheme in ("symmetric", "affine", "lsq") for bits in (2, 4, 8)),
    *((scheme, bits, "channel") for scheme in ("symmetric", "affine", "lsq") for bits in (2, 4, 8)),
    *(("dorefa", bits, "tensor") for bits in (1, 2, 8)),
    *((scheme, bits, per) for scheme, bits in (("binary", 1), ("ternary", 2)) for per in ("tensor", "channel")),
]
ACTIVATIONS = [(scheme, bits) for scheme in ("symmetric", "affine", "lsq", "dorefa") for bits in (2, 4, 8)]


@pytest.mark.parametrize(("scheme", "bits", "per"), WEIGHTS)
@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 600)], ids=str)
def test_a_weight_has_at_most_as_many_values_as_its_bits_say(
    scheme: Any, bits: int, per: Any, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape, requires_grad=True)
    rounded = weight_quantizer(weight, scheme=scheme, bits=bits, per=per)(weight)
    parts = rounded if per == "channel" else [rounded]
    assert max(len(part.unique()) for part in parts) <= 2**bits
    rounded.sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert (rounded - weight).abs().mean() < 1.5, "it is still something like the weight"


@pytest.mark.parametrize(("scheme", "bits"), [*ACTIVATIONS, ("dorefa", 1)])
@pytest.mark.parametrize("is_signed", [False, True])
def test_an_activation_has_at_most_as_many_values_as_its_bits_say(scheme: Any, bits: int, is_signed: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 4, 4) if is_signed else torch.rand(64, 3, 4, 4)
    quantizer = activation_quantizer(scheme=scheme, bits=bits)
    for _ in range(3):
        rounded = quantizer(x)
        assert len(rounded.unique()) <= 2**bits
    assert len(quantizer.eval()(x).unique()) <= 2**bits
    if scheme != "dorefa":
        assert bool((rounded < 0).any()) == is_signed
        assert not is_signed or scheme == "affine" or bool(quantizer.is_signed)


@pytest.mark.parametrize(("scheme", "bits"), [("symmetric", 8), ("affine", 8), ("lsq", 8)])
def test_what_lies_inside_the_range_has_its_gradient_straight_through(scheme: Any, bits: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 10).add_(0.1).requires_grad_()
    dy = torch.randn(8, 10)
    quantizer = activation_quantizer(scheme=scheme, bits=bits)
    quantizer(x).backward(dy)
    assert torch.equal(x.grad, dy)


@pytest.mark.parametrize(("scheme", "bits", "per"), WEIGHTS)
def test_a_zero_weight_is_no_trouble(scheme: Any, bits: int, per: Any) -> None:
    weight = torch.zeros(4, 3, 3, 3, requires_grad=True)
    rounded = weight_quantizer(weight, scheme=scheme, bits=bits, per=per)(weight)
    rounded.sum().backward()
    assert rounded.isfinite().all()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize(("scheme", "bits"), ACTIVATIONS)
def test_zero_is_a_level_of_every_activation_so_that_padding_stays_what_it_is(scheme: Any, bits: int) -> None:
    torch.manual_seed(0)
    quantizer = activation_quantizer(scheme=scheme, bits=bits)
    quantizer(torch.randn(64, 10) + 0.3)
    assert quantizer(torch.zeros(2, 10)).abs().max() == 0


def test_the_step_of_a_weight_begins_as_the_paper_says() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3)
    of_all = weight_quantizer(weight, bits=4)
    of_each = weight_quantizer(weight, bits=4, per="channel")
    assert isinstance(of_all, LsqWeight)
    assert isinstance(of_each, LsqWeight)
    torch.testing.assert_close(of_all.step.detach(), 2 * weight.abs().mean() / math.sqrt(7))
    torch.testing.assert_close(of_each.step.detach(), 2 * weight.abs().mean((1, 2, 3)) / math.sqrt(7))


@pytest.mark.parametrize(("is_signed", "high"), [(True, 7), (False, 15)])
def test_the_step_of_an_activation_begins_with_the_first_training_batch(is_signed: bool, high: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 8) if is_signed else torch.rand(16, 8)
    quantizer = LsqActivation(4)
    assert torch.equal(quantizer.eval()(x), x), "before, nothing is changed"
    quantizer.train()(x)
    quantizer.end_first_batch()
    step = 2 * x.abs().mean() / math.sqrt(high)
    torch.testing.assert_close(quantizer.step.detach(), step)
    quantizer(100 * torch.randn(16, 8))
    torch.testing.assert_close(quantizer.step.detach(), step)
    assert bool(quantizer.is_signed) == is_signed


def test_the_gradient_of_a_step_is_scaled_by_values_and_levels() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(4, 3, 3, 3), torch.rand(16, 8)
    for per, num in (("tensor", 108), ("channel", 27)):
        quantizer = weight_quantizer(weight, bits=4, per=per)  # type: ignore[arg-type]
        quantizer(weight).sum().backward()
        step = quantizer.get_parameter("step")
        plain = step.detach().clone().requires_grad_()
        functions.lsq(weight, plain, low=-8, high=7, gradient_scale=1.0).sum().backward()
        assert step.grad is not None
        assert plain.grad is not None
        torch.testing.assert_close(step.grad, plain.grad / math.sqrt(num * 7))
    activation = LsqActivation(4)
    activation(x).sum().backward()
    plain = activation.step.detach().clone().requires_grad_()
    functions.lsq(x, plain, low=0, high=15, gradient_scale=1.0).sum().backward()
    assert activation.step.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(activation.step.grad, plain.grad / math.sqrt(8 * 15))


@pytest.mark.parametrize("kind", [SymmetricActivation, AffineActivation])
def test_a_measured_range_is_a_moving_average_in_training_alone(kind: type[Any]) -> None:
    quantizer = kind(8)
    quantizer(torch.tensor([[-1.0, 2.0]]))
    quantizer.end_first_batch()
    quantizer(torch.tensor([[-3.0, 8.0]]))
    torch.testing.assert_close(quantizer.low, torch.tensor(-1 - 2 * AVERAGING))
    torch.testing.assert_close(quantizer.high, torch.tensor(2 + 6 * AVERAGING))
    quantizer.eval()(torch.tensor([[-100.0, 100.0]]))
    torch.testing.assert_close(quantizer.high, torch.tensor(2 + 6 * AVERAGING))


def observing() -> Iterator[Observing]:
    for scheme in ("symmetric", "affine", "lsq"):
        quantizer = activation_quantizer(scheme=scheme, bits=4)  # type: ignore[arg-type]
        assert isinstance(quantizer, Observing)
        yield quantizer


def test_a_sign_that_a_later_call_in_the_first_batch_has_is_found() -> None:
    for quantizer in observing():
        x = torch.rand(4, 3, requires_grad=True)
        (quantizer(x).sum() + quantizer(-x).sum()).backward()
        assert quantizer.is_signed
        assert (quantizer(-torch.rand(4, 3)) < 0).any()


def test_a_state_dict_brings_back_what_was_observed() -> None:
    for quantizer, other in zip(observing(), observing(), strict=True):
        x = torch.randn(16, 5)
        quantizer(x)
        quantizer.end_first_batch()
        other.load_state_dict(quantizer.state_dict())
        for _ in range(2):
            assert torch.equal(quantizer(x + 1), other(x + 1))
        assert torch.equal(quantizer.eval()(x), other.eval()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_quantizer_gives_the_dtype_that_it_is_given_and_rounds_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 5).to(dtype)
    for quantizer, other in zip(observing(), observing(), strict=True):
        assert quantizer(x).dtype is dtype
        torch.testing.assert_close(quantizer(x), other(x.float()).to(dtype), rtol=1e-2, atol=1e-2)


def test_memory_format_is_kept() -> None:
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for scheme, bits, per in WEIGHTS:
        quantizer = weight_quantizer(x, scheme=scheme, bits=bits, per=per)  # type: ignore[arg-type]
        assert quantizer(x).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(quantizer(x), quantizer(x.contiguous()))
    for scheme, bits in ACTIVATIONS:
        activation = activation_quantizer(scheme=scheme, bits=bits)  # type: ignore[arg-type]
        assert activation(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "binary", "bits": 2}, "binary weights have 1 bit, not 2"),
        ({"scheme": "ternary", "bits": 8}, "ternary weights have 2 bits, not 8"),
        ({"scheme": "lsq", "bits": 1}, "lsq weights have 2 to 8 bits, not 1"),
        ({"scheme": "dorefa", "bits": 9}, "dorefa weights have 1 to 8 bits, not 9"),
        ({"scheme": "dorefa", "bits": 4, "per": "channel"}, "per tensor"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weight_quantizer(torch.ones(2, 2), **options)
    with pytest.raises(ValueError, match="2 to 8 bits, not 1"):
        activation_quantizer(scheme="lsq", bits=1)


def test_levels_are_those_of_integers() -> None:
    assert levels(4, is_signed=True) == (-8, 7)
    assert levels(4, is_signed=False) == (0, 15)
    assert levels(8, is_signed=True) == (-128, 127)


def test_lsq_and_the_uniform_quantizer_are_those_of_brevitas() -> None:
    """Where it is installed. As PyTorch's, its learned scale takes what is rounded to the last level for inside."""
    found = importlib.import_module if os.environ.get("PIPELINE_REQUIRE_BREVITAS") else pytest.importorskip
    quant, ste = found("brevitas.core.quant"), found("brevitas.core.function_wrapper")
    theirs = quant.IntQuant(
        narrow_range=False,
        signed=True,
        input_view_impl=torch.nn.Identity(),
        float_to_int_impl=ste.RoundSte(),
        tensor_clamp_impl=ste.TensorClamp(),
    )
    torch.manual_seed(0)
    v, dy, step = 2 * torch.randn(4000), torch.randn(4000), torch.tensor(0.25)
    ratio, zero, bits = v / step, torch.tensor(0.0), torch.tensor(4.0)
    kept = ~(((ratio > 7) & (ratio < 8)) | ((ratio < -8) & (ratio > -9)))
    v, dy = v[kept], dy[kept]
    expected = run(lambda v, s: theirs(s, zero, bits, v), v, step, dy=dy)
    learned = run(lambda v, s: functions.lsq(v, s, low=-8, high=7, gradient_scale=1.0), v, step, dy=dy)
    for one, other in zip(learned, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    measured = run(lambda v: functions.fake_quantize(v, step, 0, low=-8, high=7), v, dy=dy)
    for one, other in zip(measured, expected[:2], strict=True):
        torch.testing.assert_close(one, other)


# As whole numbers

OF_WEIGHTS: list[dict[str, Any]] = [
    *(
        {"scheme": scheme, "bits": bits, "per": per}
        for scheme in ("symmetric", "affine", "lsq")
        for bits in (2, 4, 8)
        for per in ("tensor", "channel")
    ),
    *({"scheme": "dorefa", "bits": bits} for bits in (1, 2, 7, 8)),
    *({"scheme": "binary", "bits": 1, "per": per} for per in ("tensor", "channel")),
    *({"scheme": "ternary", "bits": 2, "per": per} for per in ("tensor", "channel")),
]


@pytest.mark.parametrize("options", OF_WEIGHTS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("size", [1.0, 0.0])
def test_a_weight_as_whole_numbers_is_the_rounded_weight(options: dict[str, Any], size: float) -> None:
    torch.manual_seed(0)
    weight = size * torch.randn(6, 4, 3, 3) + 0.1 * size
    quantizer = weight_quantizer(weight, **options)
    values, scale, zero_point = quantizer.integers(weight)
    assert values.shape == weight.shape
    assert not values.is_floating_point()
    assert scale.shape == zero_point.shape == ((6,) if options.get("per") == "channel" else ())
    spread = [tensor.view(-1, 1, 1, 1) for tensor in (scale, zero_point)]
    torch.testing.assert_close(spread[0] * (values - spread[1]), quantizer(weight).detach(), rtol=3e-7, atol=1e-7)
    grid = quantizer.grid(weight)
    assert grid.low <= values.min()
    assert values.max() <= grid.high
    most = 2 if options["scheme"] == "binary" else 3 if options["scheme"] == "ternary" else 2 ** options["bits"]
    assert len(values.unique()) <= most
