"""A training that stops early stops after the right epoch, whatever happens to it, and ends as any other does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    Killed,
    Saved,
    assert_identical,
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    train_engine,
    weights,
)
from quick import NOTHING_SHOWN, quick_spec
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from pipeline.board import tags
from pipeline.board.events import read_scalars
from pipeline.data.dataset import Dataset
from pipeline.errors import Interrupted
from pipeline.home import epoch_record
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.jobfile.train import EarlyStopping
from pipeline.results.report import render
from pipeline.stop import Stop
from pipeline.training import final_test
from pipeline.training.attempt import Attempt
from pipeline.training.patience import Patience

EPOCH = 23  # steps of one, of 64 digits each
ASKED = {"patience": 2, "min_delta": 0.02}


def last_epoch(accuracies: Sequence[float], patience: int, min_delta: float) -> int | None:
    """After which epoch a training ends, as Keras counts; None where it does not."""
    best, waited = -1.0, 0
    for epoch, accuracy in enumerate(accuracies, start=1):
        waited += 1
        if accuracy > best + min_delta:
            best, waited = accuracy, 0
        if waited >= patience:
            return epoch
    return None


@pytest.mark.parametrize("min_delta", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_it_is_over_after_so_many_epochs_in_a_row_without_an_improvement(patience: int, min_delta: float) -> None:
    """Told of an epoch twice, or restored after it, it says the same."""
    chance, ends = random.Random(patience), set()
    for _ in range(200):
        accuracies = [chance.randrange(21) / 20 for _ in range(15)]
        section = EarlyStopping(patience=patience, min_delta=min_delta)
        found, ours = None, Patience(section)
        for epoch, accuracy in enumerate(accuracies, start=1):
            may_be_last = ours.is_over(epoch)
            for _ in range(chance.randint(1, 2)):
                ours.see(epoch, accuracy)
            state, ours = ours.state_dict(), Patience(section)
            ours.load_state_dict(state, epoch=epoch)
            if ours.is_over(epoch):
                assert may_be_last
                found = epoch
                break
        assert found == last_epoch(accuracies, patience, min_delta)
        ends.add(found)
    assert len(ends) >= 2


def test_small_rises_count_once_they_have_added_up() -> None:
    """The reference stays where it is: a slow learner is not stopped."""
    ours = Patience(EarlyStopping(patience=3, min_delta=0.25))
    for epoch, accuracy in enumerate((0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875), start=1):
        ours.see(epoch, accuracy)
        assert (ours.is_over(epoch), ours.reference) == (False, (epoch - 1) // 3 * 0.375)


def test_without_the_section_it_is_never_over() -> None:
    ours = Patience(None)
    ours.see(1, 0.5)
    assert not ours.is_over(100_000)
    assert ours.state_dict() is None
    assert make_spec().train.early_stopping is None


def test_an_empty_section_means_its_defaults() -> None:
    section = make_spec(train={"early_stopping": {}}).train.early_stopping
    assert section is not None
    assert (section.patience, section.min_delta) == (5, 0.0)


def stopping(**log: Any) -> Spec:
    return make_spec(train={"epochs": 12, "early_stopping": ASKED}, log={**NOTHING_SHOWN, **log})


def test_a_training_stops_after_the_right_epoch_and_was_no_other_until_then(digits: Dataset, tmp_path: Path) -> None:
    saved: Saved = []
    told = train_engine(engine_of(make_spec(train={"epochs": 12}), digits), tmp_path / "whole", saved=saved)
    end = last_epoch([epoch[tags.TEST_ACCURACY] for epoch in told.epochs], **ASKED)
    assert end is not None
    assert 3 <= end < 12
    stopped = engine_of(stopping(), digits)
    told_again = train_engine(stopped, tmp_path / "stopped")
    assert (stopped.epoch, len(told_again.epochs)) == (end, end)
    assert_identical(weights(stopped), saved[end - 1][0]["model"])
    assert f"stopped early after epoch {end} of 12, 2 epochs without a rise of more than 0.02; test " in (
        final_test.outcome(stopped, told_again.epochs[-1])
    )


def test_wherever_it_is_killed_and_goes_on_it_stops_after_the_same_epoch(digits: Dataset, tmp_path: Path) -> None:
    """With the same weights; from the last checkpoint of all nothing is trained."""
    saved: Saved = []
    alone = engine_of(stopping(), digits)
    train_engine(alone, tmp_path / "alone", saved=saved)
    with pytest.raises(Interrupted):  # in the middle of an epoch, and before the evaluation of one that may be the last
        train_engine(engine_of(stopping(), digits), tmp_path / "middle", stop_at=3 * EPOCH - 5, saved=saved)
    with pytest.raises(Interrupted):
        train_engine(engine_of(stopping(), digits), tmp_path / "end", stop_at=alone.step, saved=saved)
    for number, (state, _) in enumerate(saved):
        resumed = engine_of(stopping(), digits)
        resumed.load_state_dict(state)
        told = train_engine(resumed, tmp_path / str(number), metrics=dict(state["metrics"]))
        assert len(told.epochs) == alone.epoch - state["position"]["epoch"]
        assert (resumed.epoch, resumed.best_epoch) == (alone.epoch, alone.best_epoch)
        assert_identical(weights(resumed), weights(alone))


def test_a_checkpoint_of_before_begins_to_wait_where_it_is(digits: Dataset, tmp_path: Path) -> None:
    saved: Saved = []
    train_engine(engine_of(make_spec(train={"epochs": 6}), digits), tmp_path / "before", saved=saved)
    state = saved[-1][0]
    del state["patience"]
    resumed = engine_of(make_spec(train={"epochs": 12, "early_stopping": {"patience": 2, "min_delta": 0.5}}), digits)
    resumed.load_state_dict(state)
    train_engine(resumed, tmp_path / "resumed", metrics=dict(state["metrics"]))
    assert resumed.epoch == 6 + 3  # the first is the reference, and two are no better


def shown(folder: Path) -> dict[str, list[int]]:
    reader = EventAccumulator(str(folder), tensor_size_guidance={})
    reader.Reload()
    return {tag: [point.step for point in reader.Tensors(tag)] for tag in reader.Tags()["tensors"]}


def test_what_is_written_at_the_end_is_written_where_it_really_ends(digits: Dataset, tmp_path: Path) -> None:
    """Once, though a kill comes between that and its checkpoint; and nothing of it where it might have ended."""
    kinds = dict.fromkeys(("histograms", "figures", "pr_curves", "embeddings"), "end")
    engine = engine_of(stopping(**kinds), digits)

    class KilledAtTheEnd(Saved):
        def append(self, item: Any) -> None:
            if item[0]["position"]["step"] == engine.step and engine.moment.is_last:
                raise Killed
            super().append(item)

    saved = KilledAtTheEnd()
    with pytest.raises(Killed):
        train_engine(engine, tmp_path, saved=saved)
    resumed = engine_of(stopping(**kinds), digits)
    resumed.load_state_dict(saved[-1][0])
    train_engine(resumed, tmp_path, metrics=dict(saved[-1][0]["metrics"]))
    assert resumed.step == engine.step < 12 * EPOCH
    found = shown(tmp_path)
    of_the_end = (tags.CONFUSION, tags.pr_curve("3"), tags.CLASS_REPORT, tags.parameter("classifier.fc1.weight"))
    assert [found[tag] for tag in of_the_end] == [[engine.step]] * len(of_the_end)
    assert "_hparams_/session_end_info" in found
    assert [path.name for path in tmp_path.glob("projector/features-*")] == [f"features-{engine.step}.tsv"]


def attempt_of(home: Home, spec: Spec, number: int = 1) -> tuple[Result, list[str]]:
    lines: list[str] = []
    frozen.save(home.run("job"), spec)
    return Attempt(home, "job", number, Stop(), lines.append).execute(), lines


def test_a_job_that_stops_early_has_succeeded_and_says_where(home: Home) -> None:
    """The best epoch by val is tested then. An attempt after it trains nothing: its result may have been lost."""
    train = {"early_stopping": {"patience": 3}}
    result, lines = attempt_of(home, quick_spec(epochs=100, data={"val": 0.2}, train=train))
    assert result.outcome == "succeeded"
    assert result.why.startswith(f"stopped early after epoch {result.epoch} of 100, 3 epochs without a rise; test acc")
    assert f"epoch {result.epoch - 3} was best" in result.why
    assert (result.epochs, result.step) == (100, 18 * result.epoch)
    assert len([line for line in lines if line.endswith("stops early: 3 epochs without a rise")]) == 1
    assert " left" not in next(line for line in lines if f"epoch {result.epoch:3}/100" in line)
    assert len(read_scalars(home.run("job").root)[tags.TEST_ACCURACY]) == 1
    assert "of 100, stopped early" in render(home, home.run("job"))
    assert [*epoch_record.read(home.run("job").epochs)] == [*range(1, result.epoch + 1)]

    again, lines = attempt_of(home, quick_spec(epochs=100, data={"val": 0.2}, train=train), number=2)
    assert (again.outcome, again.why, again.epoch, again.step) == ("succeeded", result.why, result.epoch, result.step)
    assert [line for line in lines if "/100" in line] == []
