"""The training loop, on the real digits."""

from __future__ import annotations

import copy
import dataclasses
import errno
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    assert_identical,
    digits,
    make_spec,
    ordinary_kernels,
    run,
    run_killed_before_a_checkpoint,
    trainer_of,
    weights,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.data import dataset as datasets
from pipeline.data import digits as digits_reader
from pipeline.data.dataset import Dataset
from pipeline.errors import CheckpointError, DataError, DivergedError, Interrupted
from pipeline.jobfile import catalog
from pipeline.jobfile.spec import Spec
from pipeline.training import engine

RESUMED = {
    "plain": make_spec(),
    "augmented": make_spec(data={"augment": [{"name": "crop", "padding": 1}, "flip", {"name": "cutout", "size": 2}]}),
    "adamw": make_spec(train={"optimizer": {"name": "adamw"}, "schedule": {"name": "one_cycle"}}),
    "accumulated": make_spec(train={"accumulate": 3, "clip_grad_norm": 1.0, "label_smoothing": 0.1}),
    "dropout": make_spec(model={"name": "vgg", "widths": [8, "M", 8], "dropout": 0.5}),
}


@pytest.mark.parametrize("stop_at", [5, 7], ids=["at a point of the curve", "between two points"])
@pytest.mark.parametrize("spec", RESUMED.values(), ids=RESUMED)
def test_a_job_stopped_and_resumed_ends_with_the_same_weights_bit_for_bit(
    spec: Spec, stop_at: int, digits: Dataset, tmp_path: Path
) -> None:
    alone = trainer_of(spec, digits)
    told = run(alone, tmp_path / "alone")

    saved: list[tuple[dict[str, Any], bool]] = []
    with pytest.raises(Interrupted):
        run(trainer_of(spec, digits), tmp_path / "stopped", stop_at=stop_at, saved=saved)
    torch.rand(17)  # what another process drew meanwhile does not matter
    resumed = trainer_of(spec, digits)
    state, _ = saved[-1]
    resumed.load_state_dict(state)
    assert resumed.step == stop_at
    told_again = run(resumed, tmp_path / "resumed")

    assert_identical(weights(resumed), weights(alone))
    assert told_again.losses == {step: loss for step, loss in told.losses.items() if step > stop_at}


def test_a_kill_between_an_evaluation_and_its_checkpoint_repeats_no_point(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(log={"every": 23})  # a point at the epoch's last step, before its evaluation
    run_killed_before_a_checkpoint(spec, digits, tmp_path, step=23)
    reader = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    reader.Reload()
    for tag in ("train/loss", "train/learning_rate", "test/loss", "test/accuracy", "true_class_accuracy/3"):
        assert [point.step for point in reader.Scalars(tag)] == [23, 46], tag


def test_a_checkpoint_that_a_full_disk_refuses_does_not_make_a_stop_a_failure(digits: Dataset, tmp_path: Path) -> None:
    class Full(list[tuple[dict[str, Any], bool]]):
        def append(self, item: object) -> None:  # noqa: ARG002
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Interrupted):
        run(trainer_of(make_spec(), digits), tmp_path, stop_at=5, saved=Full())


def test_a_test_loss_that_is_no_number_is_a_divergence(digits: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of(make_spec(), digits)
    dict(trainer.model.named_buffers())["features.bn1.running_var"].fill_(math.nan)
    with pytest.raises(DivergedError, match="the test loss is nan after step 23"):
        run(trainer, tmp_path)


def test_evaluation_batches_shrink_as_the_images_grow(digits: Dataset) -> None:
    trainer = trainer_of(make_spec(), digits)
    assert trainer.test_loader.batch_size == 500
    large = dataclasses.replace(
        digits.test, images=torch.zeros(4, 224, 224, 1, dtype=torch.uint8), labels=torch.zeros(4)
    )
    source = dataclasses.replace(digits, test=large)
    assert trainer_of(make_spec(), source).test_loader.batch_size == 10


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits: Dataset, tmp_path: Path) -> None:
    ends = []
    for seed in (0, 0, 1):
        trainer = trainer_of(make_spec(train={"epochs": 1, "seed": seed}), digits)
        run(trainer, tmp_path)
        ends.append(weights(trainer))
    assert_identical(ends[0], ends[1])
    assert not torch.equal(ends[0]["classifier.fc1.weight"], ends[2]["classifier.fc1.weight"])


def test_accumulated_batches_make_the_step_of_one_large_batch(digits: Dataset) -> None:
    """Without batch norm, whose statistics are of each batch."""
    model = {"name": "vgg", "widths": [8, "M", 16]}
    ends = []
    for batch_size, accumulate in ((120, 1), (40, 3)):
        spec = make_spec(model, {"batch_size": batch_size}, train={"accumulate": accumulate, "precision": "fp32"})
        trainer = trainer_of(spec, digits)
        for _ in zip(range(4), trainer.train_epoch(), strict=False):
            pass
        assert trainer.step == 4
        ends.append(weights(trainer))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_a_step_is_that_of_a_plain_pytorch_loop(digits: Dataset) -> None:
    spec = make_spec(train={"precision": "fp32", "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-3}})
    trainer = trainer_of(spec, digits)
    plain = copy.deepcopy(trainer.model)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    batches = list(trainer.loader.epoch(0))[:3]
    for images, labels in batches:
        sgd.zero_grad()
        F.cross_entropy(plain(images), labels).backward()
        sgd.step()
    for _ in zip(range(3), trainer.train_epoch(), strict=False):
        pass
    torch.testing.assert_close(trainer.model.state_dict(), plain.state_dict())


def test_every_image_is_trained_on_once_an_epoch_and_the_last_batch_is_kept(digits: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of(make_spec(train={"epochs": 1}), digits)
    run(trainer, tmp_path)
    assert trainer.num_images == len(digits.train) == 1437
    assert trainer.step == trainer.num_steps == 23


def test_digits_are_learned(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(train={"epochs": 8, "optimizer": {"name": "adamw", "lr": 3e-3}, "schedule": {"name": "one_cycle"}})
    told = run(trainer_of(spec, digits), tmp_path)
    assert told.evaluations[-1].accuracy >= 0.97
    assert int(told.evaluations[-1].confusion.sum()) == len(digits.test) == 360


def test_best_is_the_epoch_with_the_highest_accuracy(digits: Dataset, tmp_path: Path) -> None:
    saved: list[tuple[dict[str, Any], bool]] = []
    told = run(trainer_of(make_spec(train={"epochs": 4}), digits), tmp_path, saved=saved)
    accuracies = [evaluation.accuracy for evaluation in told.evaluations]
    assert [is_best for _, is_best in saved] == [a > max([-1.0, *accuracies[:i]]) for i, a in enumerate(accuracies)]
    assert saved[-1][0]["best"]["accuracy"] == max(accuracies)


def test_a_loss_that_is_not_finite_ends_the_attempt_and_leaves_no_checkpoint_of_it(
    digits: Dataset, tmp_path: Path
) -> None:
    explosive = {"name": "sgd", "lr": 100.0, "momentum": 0.99, "weight_decay": 1.0}
    spec = make_spec(train={"optimizer": explosive, "epochs": 10})
    saved: list[tuple[dict[str, Any], bool]] = []
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+"):
        run(trainer_of(spec, digits), tmp_path, saved=saved)
    assert all(torch.isfinite(value).all() for state, _ in saved for value in state["model"].values())


def test_a_checkpoint_of_another_model_is_refused(digits: Dataset) -> None:
    state = trainer_of(make_spec(), digits).state_dict()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        trainer_of(make_spec({"name": "vgg", "widths": [8]}), digits).load_state_dict(state)


def test_a_model_that_cannot_take_the_images_says_so() -> None:
    spec = make_spec({"name": "net"}, {"image_size": 32})  # the spec promises 32 pixels, the source has 8
    with pytest.raises(DataError, match="cannot take 8-pixel images"):
        engine.build_model(spec, num_classes=10, channels=1, image_size=8)


@pytest.mark.parametrize("name", catalog.MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_model_trains_in_every_precision(
    name: str, precision: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    resized = datasets.load(
        "digits", digits_reader.read, {}, image_size=32, datasets=tmp_path_factory.getbasetemp(), log=print
    )
    spec = make_spec({"name": name}, {"image_size": 32}, train={"precision": precision})
    trainer = trainer_of(spec, resized)
    before = weights(trainer)
    for _ in zip(range(2), trainer.train_epoch(), strict=False):
        pass
    trainer.window.fold()
    moved = [key for key, value in weights(trainer).items() if not torch.equal(value, before[key])]
    assert set(dict(trainer.model.named_parameters())) <= set(moved)


@pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="torch.compile needs a C compiler"
)
def test_a_compiled_model_trains_and_its_checkpoint_is_the_plain_model_s(digits: Dataset) -> None:
    model = {"name": "vgg", "widths": [4]}
    plain = trainer_of(make_spec(model, train={"precision": "fp32"}), digits)
    compiled = trainer_of(make_spec(model, train={"precision": "fp32", "compile": True}), digits)
    for trainer in (plain, compiled):
        for _ in zip(range(2), trainer.train_epoch(), strict=False):
            pass
    torch.testing.assert_close(compiled.state_dict()["model"], plain.state_dict()["model"], rtol=1e-4, atol=1e-5)


def test_half_precision_scales_its_loss_and_goes_on_from_its_scale(digits: Dataset) -> None:
    spec = make_spec(train={"precision": "fp16", "clip_grad_norm": 1.0})
    trainer = trainer_of(spec, digits)
    for _ in zip(range(2), trainer.train_epoch(), strict=False):
        pass
    resumed = trainer_of(spec, digits)
    resumed.load_state_dict(trainer.state_dict())
    assert resumed.scaler.get_scale() == trainer.scaler.get_scale() > 1


def test_two_seeded_losses_stay_what_they_are(digits: Dataset, tmp_path: Path) -> None:
    """A refactoring proves itself by these. torch 2.14, x86-64; one thread or two, AVX2 or AVX512 differ by less."""
    told = run(trainer_of(make_spec(train={"precision": "fp32"}), digits), tmp_path)
    assert told.losses[5] == pytest.approx(1.83974, rel=1e-5)
    assert told.losses[15] == pytest.approx(0.359966, rel=1e-4)
