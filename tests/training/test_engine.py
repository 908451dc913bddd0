"""The engine: what is built from a spec, and what a checkpoint brings back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    Saved,
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    take,
    train_engine,
)

from pipeline.board.events import read_scalars
from pipeline.data.dataset import Dataset
from pipeline.errors import CheckpointError, DataError
from pipeline.training.loop import take_steps
from pipeline.training.parts import build_model
from pipeline.training.step import EagerStep


def test_evaluation_batches_shrink_as_the_images_grow(digits: Dataset) -> None:
    engine = engine_of(make_spec(), digits)
    assert engine.held_out_loader.batch_size == 500
    large = dataclasses.replace(
        digits.test, images=torch.zeros(4, 224, 224, 1, dtype=torch.uint8), labels=torch.zeros(4)
    )
    dataset = dataclasses.replace(digits, test=large)
    assert engine_of(make_spec(), dataset).held_out_loader.batch_size == 10


def test_without_the_last_batch_steps_schedule_means_and_epochs_are_of_whole_ones(digits: Dataset) -> None:
    """22 batches of 64 of 1437 images, and 29 images that are left out; what is evaluated is evaluated in full."""
    train = {"accumulate": 10, "epochs": 2, "schedule": {"name": "one_cycle"}}
    engine = engine_of(make_spec(data={"last_batch": "drop"}, train=train), digits)
    assert (engine.steps_per_epoch, engine.num_steps) == (3, 6)
    take(engine, 3)
    assert (engine.num_images, engine.batch, engine.is_epoch_trained) == (1408, 22, True)
    assert engine.means.read_epoch(num_images=engine.loader.num_images) is not None
    assert engine.held_out_loader.num_images == len(digits.held_out)
    with pytest.raises(DataError, match=r"nothing of 1,437 images to train on, as data\.batch_size is 2000"):
        engine_of(make_spec(data={"last_batch": "drop", "batch_size": 2000}), digits)


def test_a_checkpoint_of_another_model_is_refused(digits: Dataset) -> None:
    state = engine_of(make_spec(), digits).state_dict()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        engine_of(make_spec({"name": "vgg", "widths": [8]}), digits).load_state_dict(state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"position": None},
        {"position": {"epoch": 1, "batch": 0, "step": "7"}},
        {"best": {"accuracy": "high", "epoch": 1}},
        {"optimizer": []},
        {"window": {"of": "nothing"}},
        {"random": 7},
        {"threads": 0},
    ],
    ids=str,
)
def test_a_checkpoint_with_something_else_in_it_is_refused(wrong: dict[str, Any], digits: Dataset) -> None:
    state = engine_of(make_spec(), digits).state_dict()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        engine_of(make_spec(), digits).load_state_dict({**state, **wrong})


def test_a_model_that_cannot_take_the_images_says_so() -> None:
    spec = make_spec({"name": "net"}, {"image_size": 32})  # the spec promises 32 pixels, the digits have 8
    with pytest.raises(DataError, match="cannot take 8-pixel images"):
        build_model(spec, num_classes=10, channels=1, image_size=8)


def test_a_checkpoint_without_the_sums_of_its_epoch_still_loads(digits: Dataset) -> None:
    """As it was written before there were any."""
    engine = engine_of(make_spec(), digits)
    take(engine, 7)
    state = engine.state_dict()
    del state["epoch_sums"]
    resumed = engine_of(make_spec(), digits)
    resumed.load_state_dict(state)
    assert (resumed.step, resumed.means.window.num_images) == (7, 7 * 64)
    take(resumed, 16)
    assert resumed.is_epoch_trained
    assert resumed.means.read_epoch(num_images=1437) is None, "the mean of a part is not that of the epoch"
    resumed.end_epoch()
    take(resumed, 23)
    assert resumed.means.read_epoch(num_images=1437) is not None


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_training_goes_on_with_weights_of_another_memory_format(name: str, digits: Dataset) -> None:
    """Fused optimizers go through weights and momentum side by side, whatever their strides."""
    trained = []
    for channels_last in (False, True):
        train = {"epochs": 3, "precision": "fp32", "optimizer": {"name": name, "lr": 1e-3}}
        spec = make_spec({"name": "cnn_bn"}, train={**train, "channels_last": channels_last})
        trained.append(engine_of(spec, digits))
    contiguous, other = trained
    for _ in zip(range(4), take_steps(contiguous, EagerStep(contiguous)), strict=False):
        pass
    other.load_state_dict(contiguous.state_dict())
    for ours, theirs in zip(other.model.parameters(), contiguous.model.parameters(), strict=True):
        for key, value in contiguous.optimizer.state[theirs].items():
            found = other.optimizer.state[ours][key]
            assert torch.equal(found, value)
            assert found.stride() == (ours.stride() if value.shape == ours.shape else value.stride())
    for engine in trained:
        next(take_steps(engine, EagerStep(engine)))
    for ours, theirs in zip(other.model.parameters(), contiguous.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(
    ("epochs", "accumulate", "steps", "images"),
    [
        (1.7, 1, 40, [1437, 17 * 64]),  # 23 steps an epoch, 39.1 in all
        (1.5, 3, 12, [1437, 4 * 3 * 64]),  # 8 steps an epoch
        (0.2, 1, 5, [5 * 64]),
        (0.001, 1, 1, [64]),
        (1.999999, 1, 46, [1437, 1437]),
        (2, 1, 46, [1437, 1437]),
    ],
)
def test_an_epoch_that_is_cut_short_ends_the_training_where_it_is_asked_to(
    epochs: float, accumulate: int, steps: int, images: list[int], digits: Dataset, tmp_path: Path
) -> None:
    engine = engine_of(make_spec(train={"epochs": epochs, "accumulate": accumulate}), digits)
    assert engine.num_steps == steps
    recorder = train_engine(engine, tmp_path)
    assert (engine.step, engine.epoch, len(recorder.epochs)) == (steps, len(images), len(images))
    assert engine.moment.is_last
    assert engine.num_images == sum(images)
    assert all("train/epoch_loss" in metrics for metrics in recorder.epochs), "of all that an epoch had"


def test_a_cut_epoch_has_a_point_of_the_training_curves(digits: Dataset, tmp_path: Path) -> None:
    engine = engine_of(make_spec(train={"epochs": 0.5}, log={"every": 100}), digits)
    train_engine(engine, tmp_path)
    assert [point.step for point in read_scalars(tmp_path)["train/loss"]] == [12]


@pytest.mark.parametrize("epochs", [2, 1.7])
def test_a_finished_training_that_is_taken_up_again_writes_nothing_anew(
    epochs: float, digits: Dataset, tmp_path: Path
) -> None:
    """Killed after its last checkpoint and before its result, which it then looks for: nothing may be hidden."""
    spec, saved = make_spec(train={"epochs": epochs}), Saved()
    train_engine(engine_of(spec, digits), tmp_path, saved=saved)
    before = read_scalars(tmp_path)
    again = engine_of(spec, digits)
    again.load_state_dict(saved[-1][0])
    assert not again.is_epoch_trained
    train_engine(again, tmp_path, metrics=dict(saved[-1][0]["metrics"]))
    after = read_scalars(tmp_path)
    assert after.keys() == before.keys()
    steps = [{tag: [(p.step, p.value) for p in found[tag]] for tag in found} for found in (before, after)]
    assert steps[0] == steps[1]


def test_the_schedule_ends_with_an_epoch_that_is_cut_short(digits: Dataset) -> None:
    schedule = {"name": "linear_one_cycle", "peak": 0.0, "end": 0.0}
    engine = engine_of(make_spec(train={"epochs": 1.7, "schedule": schedule, "optimizer": {"lr": 1.0}}), digits)
    assert engine.schedule(39) == pytest.approx(1 / 40)


def test_the_momentum_of_batch_norm_is_that_of_the_job(digits: Dataset) -> None:
    """Running mean and variance after a step against PyTorch's formula."""
    engine = engine_of(make_spec({"name": "cnn_bn", "batch_norm_momentum": 0.7}, train={"precision": "fp32"}), digits)
    given: list[torch.Tensor] = []
    norm = engine.model.features.bn1  # type: ignore[union-attr]
    norm.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    take(engine, 1)
    assert isinstance(norm.running_mean, torch.Tensor)
    assert isinstance(norm.running_var, torch.Tensor)
    torch.testing.assert_close(norm.running_mean, 0.7 * given[0].mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.3 + 0.7 * given[0].var((0, 2, 3)))


def test_a_momentum_for_a_network_without_batch_norm_is_refused(digits: Dataset) -> None:
    with pytest.raises(DataError, match="no batch norm"):
        engine_of(make_spec({"name": "vgg", "widths": [8], "batch_norm_momentum": 0.4}), digits)
