"""A captured step is the eager one. A CUDA graph is stood in for by calling again what would be recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from in_process import (
    assert_identical,
    digits,  # noqa: F401 - a fixture
    engine_of,
    make_spec,
    of_size,
    weights,
)

from pipeline.data.dataset import Dataset
from pipeline.errors import DeviceError
from pipeline.training import captured_step, parameter_groups
from pipeline.training.captured_step import WARM_UP, CapturedStep, Outputs
from pipeline.training.cuda_graph import CannotRecordError
from pipeline.training.engine import Engine
from pipeline.training.loop import take_steps
from pipeline.training.step import EagerStep

Recorded = tuple[Callable[[], None], Outputs]


class Graphs:
    """Stands in for `captured_step.record`: a replay computes anew, and writes to the memory of the first time."""

    def __init__(self) -> None:
        self.num_recorded = self.num_replayed = 0
        self.engine: Engine

    def record(self, function: Callable[[], Outputs]) -> Recorded:
        engine, self.num_recorded = self.engine, self.num_recorded + 1
        model, optimizer, scaler = (copy.deepcopy(part.state_dict()) for part in self._parts())
        outputs = function()
        for part, state in zip(self._parts(), (model, optimizer, scaler), strict=True):
            part.load_state_dict(state)
        gradients = [parameter.grad for parameter in engine.model.parameters()]

        def replay() -> None:
            self.num_replayed += 1
            for places, found in zip(outputs, function(), strict=True):
                for place, value in zip(places, found, strict=True):
                    place.copy_(value)
            for place, parameter in zip(gradients, engine.model.parameters(), strict=True):
                if place is not None:
                    assert parameter.grad is not None
                    place.copy_(parameter.grad)

        return replay, outputs

    def _parts(self) -> Sequence[Any]:
        return self.engine.model, self.engine.optimizer, self.engine.scaler


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    made = Graphs()
    monkeypatch.setattr(captured_step, "record", made.record)

    def rates(self: EagerStep, lr: float) -> list[float]:
        groups = self.engine.optimizer.param_groups
        return torch.tensor([lr * group.get(parameter_groups.LR_SCALE, 1.0) for group in groups]).tolist()

    monkeypatch.setattr(EagerStep, "rates", rates)  # as on a GPU
    return made


def train(engine: Engine, step: EagerStep | CapturedStep, *, epochs: int) -> tuple[list[Any], list[float]]:
    """The gradients and their norm at the end of each epoch, and its means."""
    seen: list[Any] = []
    for _ in range(epochs):
        for _ in take_steps(engine, step):
            pass
        gradients = [None if p.grad is None else p.grad.clone() for p in engine.model.parameters()]
        seen.append((gradients, step.gradient_norm(), engine.means.read_epoch(num_images=engine.loader.num_images)))
        engine.end_epoch()
    return seen, [group["lr"] for group in engine.optimizer.param_groups]


JOBS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "one batch of another size an epoch": {"data": {"batch_size": 100}},
    "adamw": {"train": {"optimizer": {"name": "adamw", "lr": 1e-3}}},
    "muon": {"train": {"optimizer": {"name": "muon"}}},
    "accumulated": {"train": {"accumulate": 3}},
    "clipped": {"train": {"clip_grad_norm": 0.5}},
    "bf16": {"train": {"precision": "bf16"}},
    "bf16, accumulated": {"train": {"precision": "bf16", "accumulate": 3, "clip_grad_norm": 0.5}},
    "bf16, frozen for an epoch": {
        "model": {"name": "cnn_bn", "freeze_epochs": 1, "backbone_lr": 0.1},
        "train": {"precision": "bf16"},
    },
    "bf16, quantized": {
        "model": {"name": "cnn_bn", "quantize": {"weights": {"bits": 4, "per": "channel"}, "activations": {}}},
        "train": {"precision": "bf16"},
    },
    "bf16, quantized as a whole, and frozen for an epoch": {
        "model": {
            "name": "cnn_bn",
            "quantize": {"weights": {"bits": 4, "per": "channel"}, "activations": {}, "skip": []},
            "freeze_epochs": 1,
        },
        "train": {"precision": "bf16"},
    },
    "groups with a rate of their own, looking ahead": {
        "train": {
            "optimizer": {"name": "sgd", "bias_lr": 8.0, "norm_weight_decay": 0.0},
            "lookahead": {"every": 2},
        }
    },
    "mixed": {"train": {"mixup": 0.4, "accumulate": 2}},
    "mixed or cut": {"train": {"mixup": 0.4, "cutmix": 1.0}},
    "frozen for an epoch": {"model": {"name": "cnn_bn", "freeze_epochs": 1, "backbone_lr": 0.1}},
    "bf16, some never trained, frozen for an epoch": {
        "model": {"name": "airnet", "width": 8, "freeze_epochs": 1},
        "data": {"image_size": 9},
        "train": {"precision": "bf16", "clip_grad_norm": 0.5},
    },
    "quantized": {
        "model": {"name": "cnn_bn", "quantize": {"weights": {"bits": 4, "per": "channel"}, "activations": {}}},
    },
}


def spec_of(job: dict[str, Any]) -> Any:
    train = {"precision": "fp32", "schedule": {"name": "one_cycle"}, **job.get("train", {})}
    return make_spec(job.get("model", {"name": "cnn_bn"}), job.get("data", {}), train={"epochs": 3, **train})


@pytest.mark.parametrize("job", JOBS)
def test_a_captured_training_is_the_eager_one_bit_for_bit(job: str, digits: Dataset, graphs: Graphs) -> None:
    size = spec_of(JOBS[job]).data.image_size
    dataset = digits if size is None else of_size(digits, size)
    eager, captured = (engine_of(spec_of(JOBS[job]), dataset) for _ in range(2))
    graphs.engine = captured
    expected = train(eager, EagerStep(eager), epochs=2)
    found = train(captured, CapturedStep(captured, log=pytest.fail), epochs=2)
    assert_identical(weights(captured), weights(eager))
    assert found[1] == expected[1]
    for (ours, norm, means), (theirs, their_norm, their_means) in zip(found[0], expected[0], strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert (norm, means) == (their_norm, their_means)
    frozen = "freeze_epochs" in JOBS[job].get("model", {})
    assert graphs.num_recorded == 1 + frozen
    whole = captured.loader.num_images // captured.loader.batch_size // captured.spec.train.accumulate
    assert graphs.num_replayed == 2 * whole - WARM_UP * graphs.num_recorded


def test_what_a_captured_training_has_saved_goes_on_as_an_eager_one(digits: Dataset, graphs: Graphs) -> None:
    eager, captured = (engine_of(spec_of({}), digits) for _ in range(2))
    graphs.engine = captured
    for engine, step in ((eager, EagerStep(eager)), (captured, CapturedStep(captured, log=pytest.fail))):
        for _ in zip(range(10), take_steps(engine, step), strict=False):
            pass
    ours, theirs = captured.state_dict(), eager.state_dict()
    assert repr(ours["optimizer"]["param_groups"]) == repr(theirs["optimizer"]["param_groups"])
    resumed = engine_of(spec_of({}), digits)
    resumed.load_state_dict(ours)
    for engine in (resumed, eager):
        for _ in take_steps(engine, EagerStep(engine)):
            pass
    assert_identical(weights(resumed), weights(eager))


def fails(_: Callable[[], Outputs]) -> Recorded:
    raise CannotRecordError("operation not permitted when stream is capturing")


def test_a_step_that_cannot_be_captured_is_refused_where_it_was_asked_for(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured_step, "record", fails)
    engine = engine_of(spec_of({}), digits)
    train = engine.spec.train.model_copy(update={"capture": True})
    engine.spec = engine.spec.model_copy(update={"train": train})
    why = r"train\.capture: .* not permitted when stream is capturing; train with capture: false$"
    with pytest.raises(DeviceError, match=why):
        list(take_steps(engine, CapturedStep(engine, log=pytest.fail)))
    assert [group["lr"] for group in engine.optimizer.param_groups] != [0.0], "it is as it was"


def test_by_default_a_step_that_cannot_be_captured_stays_eager_and_the_log_says_so(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured_step, "record", fails)
    lines: list[str] = []
    found = [engine_of(spec_of({}), digits) for _ in range(2)]
    steps = (EagerStep(found[0]), CapturedStep(found[1], log=lines.append))
    ours, theirs = (train(engine, step, epochs=2) for engine, step in zip(found, steps, strict=True))
    assert_identical(weights(found[0]), weights(found[1]))
    assert ours[1] == theirs[1]
    (line,) = lines
    assert "not permitted when stream is capturing; its operations are launched one by one" in line


def test_on_a_cpu_nothing_is_captured(digits: Dataset) -> None:
    assert isinstance(captured_step.choose(engine_of(spec_of({}), digits), log=pytest.fail), EagerStep)
    with pytest.raises(DeviceError, match="only a GPU's work can be captured"):
        engine_of(spec_of({"train": {"capture": True}}), digits)
