"""The training loop, on the real digits."""

from __future__ import annotations

import dataclasses
import errno
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    Recorder,
    Saved,
    assert_identical,
    digits,
    engine_of,
    loop_of,
    make_spec,
    ordinary_kernels,
    train_engine,
    train_killed_before_a_checkpoint,
    weights,
)
from quick import EVERYTHING_SHOWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.board import tags
from pipeline.board.events import read_scalars
from pipeline.board.writer import Board
from pipeline.data.dataset import Dataset
from pipeline.errors import DivergedError, Interrupted
from pipeline.home import epoch_record
from pipeline.home.paths import RunPaths
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.training import checkpoint
from pipeline.training.progress import ProgressWriter
from pipeline.training.saver import Saver

EPOCH = 23  # steps of one, of 64 digits each


def points(folder: Path, tag: str) -> dict[int, float]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {point.step: point.value for point in reader.Scalars(tag)}


RESUMED = {
    "plain": make_spec(),
    "alternating, whole batches": make_spec(
        data={
            "augment": [{"name": "flip", "alternate": True}, {"name": "crop", "padding": 1, "padding_mode": "reflect"}],
            "last_batch": "drop",
        }
    ),
    "augmented": make_spec(data={"augment": [{"name": "crop", "padding": 1}, "flip", {"name": "cutout", "size": 2}]}),
    "adamw": make_spec(train={"optimizer": {"name": "adamw"}, "schedule": {"name": "one_cycle"}}),
    "accumulated": make_spec(train={"accumulate": 3, "clip_grad_norm": 1.0, "label_smoothing": 0.1}),
    "averaged": make_spec(train={"ema": {"decay": 0.9}}),
    "looking ahead": make_spec(train={"lookahead": {"every": 4, "power": 3.0}}),
    "cut short": make_spec(train={"epochs": 1.7, "accumulate": 2}),
    "dropout": make_spec(model={"name": "vgg", "widths": [8, "M", 8], "dropout": 0.5}),
}


@pytest.mark.parametrize("stop_at", [5, 7], ids=["at a point of the curve", "between two points"])
@pytest.mark.parametrize("spec", RESUMED.values(), ids=RESUMED)
def test_a_job_stopped_and_resumed_ends_with_the_same_weights_bit_for_bit(
    spec: Spec, stop_at: int, digits: Dataset, tmp_path: Path
) -> None:
    alone = engine_of(spec, digits)
    told = train_engine(alone, tmp_path / "alone")

    saved: Saved = []
    with pytest.raises(Interrupted):
        train_engine(engine_of(spec, digits), tmp_path / "stopped", stop_at=stop_at, saved=saved)
    torch.rand(17)  # what another process drew meanwhile does not matter
    resumed = engine_of(spec, digits)
    state, _ = saved[-1]
    resumed.load_state_dict(state)
    assert resumed.step == stop_at
    told_again = train_engine(resumed, tmp_path / "resumed")

    assert_identical(weights(resumed), weights(alone))
    assert told_again.losses == {step: loss for step, loss in told.losses.items() if step > stop_at}
    assert [epoch["train/epoch_loss"] for epoch in told_again.epochs] == [e["train/epoch_loss"] for e in told.epochs]


def test_a_kill_between_an_evaluation_and_its_checkpoint_repeats_no_point(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(log={"every": EPOCH})  # a point at the epoch's last step, before its evaluation
    train_killed_before_a_checkpoint(spec, digits, tmp_path, step=EPOCH)
    for tag in ("train/loss", "train/learning_rate", "train/epoch_loss", "test/loss", "true_class_accuracy/3"):
        assert list(points(tmp_path, tag)) == [EPOCH, 2 * EPOCH], tag


def plain_epochs(spec: Spec, digits: Dataset) -> list[tuple[float, float]]:
    """Mean loss and accuracy of each epoch, of all images while they were trained on, by a plain loop."""
    engine = engine_of(spec, digits)
    sgd = torch.optim.SGD(engine.model.parameters(), lr=0.01, momentum=0.9)
    epochs = []
    for epoch in range(2):
        loss_sum = num_correct = 0.0
        for images, labels in engine.loader.epoch(epoch):
            sgd.zero_grad()
            logits = engine.model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            sgd.step()
            loss_sum += loss.item() * len(labels)
            num_correct += int((logits.argmax(1) == labels).sum())
        epochs.append((loss_sum / len(digits.train), num_correct / len(digits.train)))
    return epochs


def test_an_epoch_s_loss_and_accuracy_are_means_over_all_of_its_batches(digits: Dataset, tmp_path: Path) -> None:
    """Not over the last window of the curve; here that is of steps 20 to 23, and 40 to 46 with no point of its own."""
    spec = make_spec(train={"precision": "fp32", "optimizer": {"name": "sgd", "lr": 0.01}}, log={"every": 20})
    told = train_engine(engine_of(spec, digits), tmp_path)
    expected = plain_epochs(spec, digits)
    found = [(epoch[tags.EPOCH_LOSS], epoch[tags.EPOCH_ACCURACY]) for epoch in told.epochs]
    for (loss, accuracy), (expected_loss, expected_accuracy) in zip(found, expected, strict=True):
        assert loss == pytest.approx(expected_loss, rel=1e-3)
        assert accuracy == pytest.approx(expected_accuracy, abs=2 / len(digits.train))
    for tag, index in ((tags.EPOCH_LOSS, 0), (tags.EPOCH_ACCURACY, 1)):
        written = points(tmp_path, tag)
        assert list(written) == [EPOCH, 2 * EPOCH]
        assert list(written.values()) == pytest.approx([epoch[index] for epoch in found])


@pytest.mark.parametrize(("every", "steps"), [(20, [20, 40]), (7, [7, 14, 21, 28, 35, 42]), (100, [23, 46])])
def test_the_curve_has_no_point_of_a_window_that_is_not_whole(
    every: int, steps: list[int], digits: Dataset, tmp_path: Path
) -> None:
    """But one an epoch at least."""
    train_engine(engine_of(make_spec(log={"every": every}), digits), tmp_path)
    for tag in (tags.TRAIN_LOSS, tags.TRAIN_ACCURACY, tags.GRADIENT_NORM):
        assert list(points(tmp_path, tag)) == steps, tag


def test_a_stop_during_an_evaluation_loses_nothing_of_the_epoch(digits: Dataset, tmp_path: Path) -> None:
    told = train_engine(engine_of(make_spec(), digits), tmp_path / "alone")
    saved: Saved = []
    with pytest.raises(Interrupted):
        train_engine(engine_of(make_spec(), digits), tmp_path / "run", stop_at=EPOCH, saved=saved)
    resumed = engine_of(make_spec(), digits)
    resumed.load_state_dict(saved[-1][0])
    assert resumed.is_epoch_trained
    told_again = train_engine(resumed, tmp_path / "run", metrics=dict(saved[-1][0]["metrics"]))
    tag = tags.EPOCH_LOSS
    assert [epoch[tag] for epoch in told_again.epochs] == [epoch[tag] for epoch in told.epochs]


def test_a_checkpoint_that_a_full_disk_refuses_does_not_make_a_stop_a_failure(digits: Dataset, tmp_path: Path) -> None:
    class Full(Saved):
        def append(self, item: object) -> None:  # noqa: ARG002
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Interrupted):
        train_engine(engine_of(make_spec(), digits), tmp_path, stop_at=5, saved=Full())


def test_a_checkpoint_never_comes_before_events_and_figures_that_lead_to_it(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill in between would leave a gap in the curve: the next attempt goes on behind it."""
    done: list[str] = []

    class Noted(Board):
        def flush(self) -> None:
            done.append("flush")
            super().flush()

    monkeypatch.setattr(checkpoint, "save", lambda *_, is_best: done.append(f"save {is_best}"))
    engine = engine_of(make_spec(), digits)
    with Noted(tmp_path, first_step=0) as board:
        loop = loop_of(engine, board)
        loop.record_epoch = lambda moment, metrics: done.append(f"{len(metrics) > 5} {moment.epoch}")
        with Saver(RunPaths(tmp_path), before=loop.logbook.settle) as saver:
            loop.save = saver.save
            loop.train()
    assert done == ["True 1", "flush", "save True", "True 2", "flush", "save True"]


def test_an_epochs_end_is_written_while_the_next_one_is_trained(digits: Dataset, tmp_path: Path) -> None:
    is_next_trained, waited = threading.Event(), list[bool]()

    class Late(Board):
        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            if "test/loss" in values and step == EPOCH:
                waited.append(is_next_trained.wait(60))
            super().scalars(step, values)

    def at_step(step: int) -> None:
        if step == EPOCH + 2:
            assert "test/loss" in loop.metrics
            is_next_trained.set()

    spec = make_spec(log=EVERYTHING_SHOWN | {"profile": False})
    late, at_once = tmp_path / "late", tmp_path / "at once"
    engine = engine_of(spec, digits)
    with Late(late, first_step=0) as board:
        loop = loop_of(engine, board, listener=Recorder(engine, at_step))
        loop.record_epoch = ProgressWriter(RunPaths(late), 1, str).record_epoch
        frozen.save(RunPaths(late), spec)
        with Saver(RunPaths(late), before=loop.logbook.settle) as saver:
            loop.save = saver.save
            loop.train()
    assert waited == [True]

    engine = engine_of(spec, digits)
    with Board(at_once, first_step=0) as board:
        loop = loop_of(engine, board)
        loop.record_epoch = ProgressWriter(RunPaths(at_once), 1, str).record_epoch
        frozen.save(RunPaths(at_once), spec)
        loop.train()
    assert [*epoch_record.read(RunPaths(late).epochs)] == [1, 2]
    assert figures_of(late) == figures_of(at_once), "they are those of the epoch's end, whenever they were written"


def figures_of(folder: Path) -> dict[str, Any]:
    """All that a run shows of its epochs, but how fast it was."""
    reader = EventAccumulator(str(folder), {"scalars": 0, "histograms": 0, "tensors": 0, "images": 0}).Reload()
    found = reader.Tags()
    speed = (tags.IMAGES_PER_SECOND, tags.DEVICE_MEMORY)
    shown: dict[str, Any] = {tag: points(folder, tag) for tag in found["scalars"] if tag not in speed}
    for tag in found["histograms"]:
        values = [(event.step, event.histogram_value) for event in reader.Histograms(tag)]
        shown[tag] = [(step, value.min, value.max, value.sum, [*value.bucket]) for step, value in values]
    for tag in found["images"]:
        shown[tag] = [(event.step, event.encoded_image_string) for event in reader.Images(tag)]
    for tag in found["tensors"]:
        if "pr_curve" in tag or tag in map(tags.pr_curve, map(str, range(10))):
            shown[tag] = [(event.step, event.tensor_proto.float_val) for event in reader.Tensors(tag)]
    lines = epoch_record.read(RunPaths(folder).epochs)
    shown["lines"] = {e: {t: v for t, v in line.items() if t not in speed} for e, line in lines.items()}
    return shown


def test_weights_that_are_not_finite_end_the_attempt_and_are_not_saved(digits: Dataset, tmp_path: Path) -> None:
    """The loss was finite, and a weight became something else by the last update before the checkpoint."""
    engine = engine_of(make_spec(train={"epochs": 3}), digits)

    def at_step(step: int) -> None:
        if step == 2 * EPOCH:  # a weight that nothing uses: the evaluation is as it was
            engine.model.register_parameter("extra", torch.nn.Parameter(torch.tensor([1.0, math.inf])))

    run = RunPaths(tmp_path)
    with Board(tmp_path, first_step=0) as board:
        loop = loop_of(engine, board, listener=Recorder(engine, at_step))
        message = f"the weights are not finite after step {2 * EPOCH}: the training diverged"
        with Saver(run, before=loop.logbook.settle) as saver:
            loop.save, loop.check_saved = saver.save, saver.finish
            with pytest.raises(DivergedError, match=message):
                loop.train()
    assert checkpoint.saved_step(run) == EPOCH


def test_a_test_loss_that_is_no_number_is_a_divergence(digits: Dataset, tmp_path: Path) -> None:
    engine = engine_of(make_spec(), digits)
    dict(engine.model.named_buffers())["features.bn1.running_var"].fill_(math.nan)
    with pytest.raises(DivergedError, match="the test loss is nan after step 23"):
        train_engine(engine, tmp_path)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits: Dataset, tmp_path: Path) -> None:
    ends = []
    for seed in (0, 0, 1):
        engine = engine_of(make_spec(train={"epochs": 1, "seed": seed}), digits)
        train_engine(engine, tmp_path)
        ends.append(weights(engine))
    assert_identical(ends[0], ends[1])
    assert not torch.equal(ends[0]["classifier.fc1.weight"], ends[2]["classifier.fc1.weight"])


def test_every_image_is_trained_on_once_an_epoch_and_the_last_batch_is_kept(digits: Dataset, tmp_path: Path) -> None:
    engine = engine_of(make_spec(train={"epochs": 1}), digits)
    train_engine(engine, tmp_path)
    assert engine.num_images == len(digits.train) == 1437
    assert engine.step == engine.num_steps == 23


def test_digits_are_learned(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(train={"epochs": 8, "optimizer": {"name": "adamw", "lr": 3e-3}, "schedule": {"name": "one_cycle"}})
    told = train_engine(engine_of(spec, digits), tmp_path)
    assert told.epochs[-1]["test/accuracy"] >= 0.97


def test_of_more_than_ten_classes_the_top5_accuracy_is_told_and_written(digits: Dataset, tmp_path: Path) -> None:
    """Of two classes there are no images."""
    more = dataclasses.replace(digits, classes=(*digits.classes, "x", "y"))
    for dataset, is_told in ((digits, False), (more, True)):
        folder = tmp_path / str(len(dataset.classes))
        told = train_engine(engine_of(make_spec(train={"epochs": 2}), dataset), folder)
        written = [point.value for point in read_scalars(folder).get(tags.TOP5_ACCURACY, [])]
        assert written == pytest.approx([epoch[tags.TOP5_ACCURACY] for epoch in told.epochs if is_told])
        assert len(written) == 2 * is_told
        assert [tags.TOP5_ACCURACY in epoch for epoch in told.epochs] == [is_told] * 2
    assert written[-1] > told.epochs[-1][tags.TEST_ACCURACY]


def test_best_is_the_epoch_with_the_highest_accuracy(digits: Dataset, tmp_path: Path) -> None:
    saved: Saved = []
    told = train_engine(engine_of(make_spec(train={"epochs": 4}), digits), tmp_path, saved=saved)
    accuracies = [epoch["test/accuracy"] for epoch in told.epochs]
    assert [is_best for _, is_best in saved] == [a > max([-1.0, *accuracies[:i]]) for i, a in enumerate(accuracies)]
    assert saved[-1][0]["best"]["accuracy"] == max(accuracies)


def test_a_loss_that_is_not_finite_ends_the_attempt_and_leaves_no_checkpoint_of_it(
    digits: Dataset, tmp_path: Path
) -> None:
    explosive = {"name": "sgd", "lr": 100.0, "momentum": 0.99, "weight_decay": 1.0}
    spec = make_spec(train={"optimizer": explosive, "epochs": 10})
    saved: Saved = []
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+"):
        train_engine(engine_of(spec, digits), tmp_path, saved=saved)
    assert all(torch.isfinite(value).all() for state, _ in saved for value in state["model"].values())


def test_two_seeded_losses_stay_what_they_are(digits: Dataset, tmp_path: Path) -> None:
    """A refactoring proves itself by these. torch 2.14, x86-64; one thread or two, AVX2 or AVX512 differ by less."""
    told = train_engine(engine_of(make_spec(train={"precision": "fp32"}), digits), tmp_path)
    assert told.losses[5] == pytest.approx(1.85735, rel=1e-4)
    assert told.losses[15] == pytest.approx(0.37646, rel=2e-3)
