"""Moving averages of the weights: what they come to, and what is evaluated, kept and gone on with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    Saved,
    assert_identical,
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    take,
    train_engine,
)
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.errors import CheckpointError, Interrupted
from pipeline.jobfile.train import Ema, Lookahead
from pipeline.stop import Stop
from pipeline.training.evaluation import evaluate
from pipeline.training.weight_average import ExponentialAverage, LookaheadAverage, MovingAverage

KINDS: dict[str, dict[str, Any]] = {
    "ema": {"ema": {"decay": 0.9}},
    "ema now and then": {"ema": {"decay": 0.8, "every": 4}},
    "lookahead": {"lookahead": {}},
    "lookahead that grows": {"lookahead": {"every": 3, "alpha": 0.2, "power": 3}},
}


def model_of(value: float) -> nn.Module:
    """A weight, and a batch norm: what it counts is no floating point."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)).double()
    set_to(model, value)
    return model


def set_to(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model[0].weight.fill_(value)  # type: ignore[index, union-attr, operator]
        model[1].running_mean.fill_(-value)  # type: ignore[index, union-attr, operator]


def value_of(average: MovingAverage) -> float:
    assert float(average.mean["1.running_mean"]) == -float(average.mean["0.weight"])
    return float(average.mean["0.weight"])


def test_an_exponential_average_is_the_sum_of_its_definition() -> None:
    """Against the closed form with a constant decay d: mean of n = d^n w_0 + (1 - d) sum of d^(n - i) w_i."""
    model, values = model_of(3.0), [float(i * i % 7) for i in range(60)]
    average = ExponentialAverage(model, Ema(decay=0.05))  # below (1 + n) / (10 + n) from the first update on
    for step, value in enumerate(values, start=1):
        set_to(model, value)
        average.update(step, num_steps=60)
    closed = 0.05**60 * 3.0 + 0.95 * sum(0.05 ** (60 - i) * value for i, value in enumerate(values, start=1))
    assert value_of(average) == pytest.approx(closed, rel=1e-12)


def test_an_exponential_average_forgets_its_beginning_soon() -> None:
    """Against a slow loop with TensorFlow's decay of the first updates."""
    model, values = model_of(100.0), [float(i % 5) for i in range(300)]
    average, slow = ExponentialAverage(model, Ema(decay=0.99)), 100.0
    for number, value in enumerate(values, start=1):
        set_to(model, value)
        average.update(number, num_steps=300)
        decay = min(0.99, (1 + number) / (10 + number))
        slow = decay * slow + (1 - decay) * value
    assert value_of(average) == pytest.approx(slow, rel=1e-9)
    assert abs(value_of(average) - 2) < 0.2


@pytest.mark.parametrize(("alpha", "power"), [(0.5, 0.0), (0.25, 3.0)])
def test_lookahead_is_the_loop_of_its_paper(alpha: float, power: float) -> None:
    """Algorithm 1 of Zhang et al. (2019): k = 4 fast steps, then the slow weights move and the fast begin there."""
    model = model_of(1.0)
    average = LookaheadAverage(model, Lookahead(every=4, alpha=alpha, power=power))
    fast = slow = 1.0
    for step in range(1, 41):
        fast = fast - 0.1 * (fast - 5)  # gradient descent on (w - 5)^2 / 2
        set_to(model, float(model[0].weight.detach()) - 0.1 * (float(model[0].weight.detach()) - 5))  # type: ignore[index, union-attr, arg-type, operator]
        average.update(step, num_steps=40)
        if step % 4 == 0:
            share = 1 - (1 - alpha) * (step / 40) ** power
            slow += share * (fast - slow)
            fast = slow
    assert value_of(average) == pytest.approx(slow, rel=1e-12)
    assert float(model[0].weight.detach()) == pytest.approx(fast, rel=1e-12)  # type: ignore[index, union-attr, arg-type, operator]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_what_is_evaluated_and_kept_is_the_average_and_the_training_goes_on_with_the_weights(
    kind: dict[str, Any], digits: Dataset
) -> None:
    engine = engine_of(make_spec(train=kind), digits)
    assert isinstance(engine.average, MovingAverage)
    take(engine, 7)
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}
    state = copy.deepcopy(engine.state_dict())  # in the memory of which the two are exchanged
    with engine.average.in_use():
        judged = evaluate(engine, Stop())
        for name, value in engine.model.state_dict().items():
            assert torch.equal(value, state["model"][name])
    for name, value in engine.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(value, state["trained"][name])
    alone = engine_of(make_spec(), digits)
    alone.model.load_state_dict(state["model"])
    torch.testing.assert_close(evaluate(alone, Stop()).logits, judged.logits)
    assert not torch.equal(state["model"]["features.conv1.weight"], before["features.conv1.weight"])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_resumed_average_goes_on_as_if_nothing_had_happened(
    kind: dict[str, Any], digits: Dataset, tmp_path: Path
) -> None:
    spec = make_spec(train=kind)
    whole, stopped, resumed = (engine_of(spec, digits) for _ in range(3))
    train_engine(whole, tmp_path / "whole")
    saved: Saved = []
    with pytest.raises(Interrupted):
        train_engine(stopped, tmp_path / "stopped", stop_at=17, saved=saved)
    resumed.load_state_dict(saved[-1][0])
    train_engine(resumed, tmp_path / "stopped")
    assert_identical(whole.state_dict()["model"], resumed.state_dict()["model"])
    assert_identical(whole.state_dict()["trained"], resumed.state_dict()["trained"])


def test_a_checkpoint_without_the_average_is_refused(digits: Dataset) -> None:
    state = engine_of(make_spec(), digits).state_dict()
    averaged = engine_of(make_spec(train={"ema": {}}), digits)
    averaged.load_state_dict(state)  # of a job without: its weights are where the average begins
    with pytest.raises(CheckpointError, match="does not fit the model"):
        averaged.load_state_dict({**state, "trained": state["model"], "model": {}})


class Replacing(nn.Module):
    """Keeps a mean by assignment, as code of a user's own may: the tensor is another one after each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.mean = 0.5 * self.mean + values.mean().detach()
        return self.layer(values)


def test_tensors_that_code_of_a_users_own_replaces_are_averaged_where_they_are_now() -> None:
    model = Replacing()
    average = ExponentialAverage(model, Ema(decay=0.0))  # so that the average is what there is
    average.is_fixed = False
    for step in (1, 2):
        model(torch.ones(1, 1))
        average.update(step, num_steps=2)
    assert float(average.state_dict()["model"]["mean"]) == 1.5
    model(torch.ones(1, 1))
    with average.in_use():
        assert float(model.mean) == 1.5  # type: ignore[arg-type]
    assert float(model.mean) == 1.75  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [{"lookahead": {"every": 1}}, {"ema": {"decay": 0.9}}])
def test_an_average_of_a_quantized_network_begins_with_the_steps_that_the_first_batch_gives(
    kind: dict[str, Any], digits: Dataset
) -> None:
    """Before it they are placeholders, which would be a part of the average for long."""
    quantize = {"weights": {"bits": 4}, "activations": {"scheme": "affine"}}
    averaged, plain = (
        engine_of(make_spec({"name": "cnn_bn", "quantize": quantize}, train=train), digits) for train in (kind, {})
    )
    for engine in (averaged, plain):
        take(engine, 1)
    assert_identical(averaged.state_dict()["model"], plain.state_dict()["model"])
