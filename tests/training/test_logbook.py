"""What a job file's `log` section shows, read back from the run's event files."""

from __future__ import annotations

import dataclasses
import errno
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
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
from quick import EVERYTHING_SHOWN, NOTHING_SHOWN
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.util import tensor_util
from torch import nn

from pipeline.board import figures, tags
from pipeline.board.writer import Board, quiet_writer_thread
from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.errors import Interrupted
from pipeline.home.evaluation_record import EvaluationRecord
from pipeline.home.paths import RunPaths
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training.engine import Engine
from pipeline.training.evaluation import evaluate
from pipeline.training.loop import Loop

EPOCH = 23  # steps of one, of 64 digits each
JOB_FILE, CONDITIONS, CLASS_REPORT, TOP_OPERATORS = (
    tags.JOB_FILE,
    tags.CONDITIONS,
    tags.CLASS_REPORT,
    tags.TOP_OPERATORS,
)
LAYOUT, SESSION_START, SESSION_END = (
    "custom_scalars__config__",
    "_hparams_/session_start_info",
    "_hparams_/session_end_info",
)


def read(folder: Path) -> EventAccumulator:
    """As TensorBoard's server reads a run: everything is a tensor, and what `purge_step` names is dropped."""
    reader = EventAccumulator(str(folder), tensor_size_guidance=defaultdict(int))
    reader.Reload()
    return reader


def events(path: Path) -> list[Event]:
    return list(EventFileLoader(str(path)).Load())


def steps(folder: Path) -> dict[str, list[int]]:
    """Of each tag."""
    reader = read(folder)
    return {tag: [point.step for point in reader.Tensors(tag)] for tag in reader.Tags()["tensors"]}


def shown(folder: Path) -> dict[str, list[int]]:
    """The steps of each tag that is no scalar."""
    return {
        tag: found
        for tag, found in steps(folder).items()
        if not tag.startswith(("train/", "test/", tags.class_accuracy("")))
    }


def train(engine: Engine, folder: Path) -> tuple[Loop, list[str]]:
    """As `in_process.train_engine`, but gives the loop, and the lines of the attempt's log."""
    lines: list[str] = []
    with Board(folder, first_step=engine.first_point) as board:
        loop = loop_of(engine, board, log=lines.append)
        loop.train()
    return loop, lines


@dataclass(frozen=True)
class Finished:
    spec: Spec
    engine: Engine
    folder: Path
    loop: Loop
    lines: list[str]


@pytest.fixture(scope="module")
def everything(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    spec = make_spec(train={"epochs": 3, "clip_grad_norm": 0.5}, log=EVERYTHING_SHOWN)
    engine, folder = engine_of(spec, digits), tmp_path_factory.mktemp("everything")
    return Finished(spec, engine, folder, *train(engine, folder))


SAME = {
    "plain": make_spec(),
    "dropout, augmented": make_spec(
        model={"name": "vgg", "widths": [8, "M", 8], "dropout": 0.5},
        data={"augment": [{"name": "crop", "padding": 1}, "flip", {"name": "cutout", "size": 2}]},
    ),
}


def log_section(spec: Spec, section: dict[str, Any]) -> Spec:
    return Spec.model_validate_json(
        spec.model_copy(update={"log": spec.log.model_copy(update=section)}).model_dump_json()
    )


@pytest.mark.parametrize("spec", SAME.values(), ids=SAME)
def test_showing_everything_changes_no_weight_and_no_loss(spec: Spec, digits: Dataset, tmp_path: Path) -> None:
    """Not of a job that is stopped and resumed either."""
    silent = engine_of(log_section(spec, NOTHING_SHOWN), digits)
    told = train_engine(silent, tmp_path / "silent")
    saved: Saved = []
    showing = log_section(spec, EVERYTHING_SHOWN)
    stopped = engine_of(showing, digits)
    with pytest.raises(Interrupted):
        train_engine(stopped, tmp_path / "run", stop_at=12, saved=saved)  # the profiler is recording
    resumed = engine_of(showing, digits)
    resumed.load_state_dict(saved[-1][0])
    told_again = train_engine(resumed, tmp_path / "run")
    assert_identical(weights(resumed), weights(silent))
    assert told_again.losses == {step: loss for step, loss in told.losses.items() if step > 12}
    losses = [[epoch["test/loss"] for epoch in recorder.epochs] for recorder in (told, told_again)]
    assert losses[0] == losses[1]


def test_everything_has_its_tags_at_its_steps(everything: Finished, digits: Dataset) -> None:
    epochs = [EPOCH, 2 * EPOCH, 3 * EPOCH]
    names = [name for name, _ in everything.engine.model.named_parameters()]
    beginning = {JOB_FILE, CONDITIONS, LAYOUT, SESSION_START, tags.FIRST_BATCH, tags.SAMPLES}
    each_epoch = {tag(name) for name in names for tag in (tags.parameter, tags.gradient)}
    each_epoch |= {tags.pr_curve(name) for name in digits.classes}
    each_epoch |= {tags.PREDICTIONS, tags.CONFUSION, tags.MISTAKES}
    expected = {
        **{tag: [0] for tag in (*beginning, "__run_graph__", "step1")},  # step1: a step's times in the graph
        **dict.fromkeys(each_epoch, epochs),
        **dict.fromkeys((CLASS_REPORT, SESSION_END), epochs[-1:]),
        TOP_OPERATORS: [15],
    }
    assert shown(everything.folder) == expected
    assert everything.lines == []


def test_every_scalar_has_its_points(everything: Finished, digits: Dataset) -> None:
    found = steps(everything.folder)
    for tag in tags.TRAINING:
        assert found[tag] == list(range(5, 3 * EPOCH, 5)), tag
    of_an_epoch = [tags.EPOCH_LOSS, tags.EPOCH_ACCURACY, tags.TEST_LOSS, tags.TEST_ACCURACY, tags.BEST_ACCURACY]
    for tag in (*of_an_epoch, *map(tags.class_accuracy, digits.classes)):
        assert found[tag] == [EPOCH, 2 * EPOCH, 3 * EPOCH], tag
    memory = read(everything.folder).Tensors(tags.DEVICE_MEMORY)
    assert all(point.tensor_proto.float_val[0] > 10 for point in memory)


def test_nothing_shown_leaves_scalars_and_texts(digits: Dataset, tmp_path: Path) -> None:
    train_engine(engine_of(make_spec(log=NOTHING_SHOWN), digits), tmp_path)
    assert set(shown(tmp_path)) == {JOB_FILE, CONDITIONS, CLASS_REPORT, LAYOUT, SESSION_START, SESSION_END}
    assert not read(tmp_path).Tags()["graph"]
    assert not (tmp_path / "projector").exists()
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize(
    ("when", "epochs"),
    [(True, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), ("auto", [1, 2, 4, 5]), ("end", [5]), (False, [])],
)
def test_a_kind_is_shown_after_the_epochs_that_were_asked_for(
    when: Any, epochs: list[int], digits: Dataset, tmp_path: Path
) -> None:
    kinds = dict.fromkeys(("histograms", "figures", "pr_curves", "embeddings"), when)
    spec = make_spec(
        {"name": "vgg", "widths": [4]}, {"batch_size": 512}, train={"epochs": 5}, log={**NOTHING_SHOWN, **kinds}
    )
    train_engine(engine_of(spec, digits), tmp_path)
    found, points = shown(tmp_path), [3 * epoch for epoch in epochs]
    for tag in (tags.parameter("classifier.weight"), tags.CONFUSION, tags.pr_curve("3")):
        assert found.get(tag, []) == points, tag
    assert {path.name for path in tmp_path.glob("projector/features-*")} == {f"features-{step}.tsv" for step in points}


def test_an_attempt_is_one_file_and_only_the_first_shows_the_beginning(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(log=EVERYTHING_SHOWN)
    saved: Saved = []
    with pytest.raises(Interrupted):
        train_engine(engine_of(spec, digits), tmp_path, stop_at=30, saved=saved)
    first = set(RunPaths(tmp_path).events())
    resumed = engine_of(spec, digits)
    resumed.load_state_dict(saved[-1][0])
    train_engine(resumed, tmp_path)
    (second,) = set(RunPaths(tmp_path).events()) - first
    written = events(second)
    assert [event.step for event in written if event.session_log.status == SessionLog.START] == [31]
    assert [event for event in written[1:] if event.step < 31] == []
    assert not any(event.graph_def for event in written)
    assert sorted(tmp_path.rglob("*tfevents*")) == sorted([*first, second])
    assert all(len(set(points)) == len(points) for points in steps(tmp_path).values())


def test_an_attempt_that_starts_anew_shows_the_beginning_again(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(train={"epochs": 1}, log=EVERYTHING_SHOWN)
    for _ in range(2):
        train_engine(engine_of(spec, digits), tmp_path)
    files = RunPaths(tmp_path).events()
    assert len(files) == 2
    for file in files:
        written = events(file)
        assert [event.step for event in written if event.session_log.status == SessionLog.START] == [0]
        assert sum(bool(event.graph_def) for event in written) == 1
    found = shown(tmp_path)
    assert found[tags.FIRST_BATCH] == [0]
    assert found[tags.CONFUSION] == [EPOCH]


def test_a_kill_between_what_is_shown_and_its_checkpoint_repeats_nothing(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(log={**EVERYTHING_SHOWN, "every": EPOCH})
    train_killed_before_a_checkpoint(spec, digits, tmp_path, step=EPOCH)
    assert len(RunPaths(tmp_path).events()) == 3
    found = shown(tmp_path)
    for tag in (tags.CONFUSION, tags.PREDICTIONS, tags.pr_curve("3"), tags.parameter("classifier.fc1.weight")):
        assert found[tag] == [EPOCH, 2 * EPOCH], tag
    config = (tmp_path / "projector_config.pbtxt").read_text()
    names = [line for line in config.splitlines() if "tensor_name" in line]
    assert len(names) == len(set(names)) == 3


class OfOne(nn.Module):
    """A network that takes anything but a single image, so that it cannot be traced."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) == 1:
            raise ValueError("a single image\nhas no neighbours")
        logits: torch.Tensor = self.inner(images)
        return logits


def test_a_network_that_cannot_be_traced_is_said_once_and_all_else_is_there(digits: Dataset, tmp_path: Path) -> None:
    engine = engine_of(make_spec(train={"epochs": 1}, log=EVERYTHING_SHOWN), digits)
    engine.model = engine.network = OfOne(engine.model)
    _, lines = train(engine, tmp_path)
    said = [line for line in lines if "cannot be shown" in line]
    assert said == ["graph: cannot be shown, and the job goes on without: ValueError: a single image"]
    assert "Traceback" in lines[1]
    assert not read(tmp_path).Tags()["graph"]
    assert {tags.FIRST_BATCH, tags.CONFUSION, tags.MISTAKES, tags.pr_curve("3")} <= shown(tmp_path).keys()
    assert (tmp_path / "projector" / f"features-{EPOCH}.tsv").exists()


class Unreadable(Split):
    def read(self, indices: Sequence[int]) -> torch.Tensor:  # noqa: ARG002
        raise RuntimeError("no images today")


def test_what_cannot_be_shown_silences_its_own_kind_alone_and_is_said_once(digits: Dataset, tmp_path: Path) -> None:
    dataset = dataclasses.replace(digits, test=Unreadable(digits.test.images, digits.test.labels))
    engine = engine_of(make_spec(train={"epochs": 3}, log=EVERYTHING_SHOWN), dataset)
    _, lines = train(engine, tmp_path)
    said = [line for line in lines if "cannot be shown" in line]
    assert [line.partition(":")[0] for line in said] == ["evaluation", "figures", "embeddings", "texts"]
    assert all(line.endswith("RuntimeError: no images today") for line in said)
    found = shown(tmp_path)
    assert found[tags.pr_curve("3")] == found[tags.parameter("classifier.fc1.weight")] == [EPOCH, 2 * EPOCH, 3 * EPOCH]
    assert found[SESSION_END] == [3 * EPOCH]
    assert not any("NameError" in line or "UnboundLocalError" in line for line in lines)


def test_a_full_disk_is_the_job_s_end(digits: Dataset, small_disk: Path) -> None:
    """TensorBoard's writer meets it in a thread, whose traceback nobody needs."""
    engine = engine_of(make_spec(log=EVERYTHING_SHOWN), digits)
    with pytest.raises(OSError, match="No space left") as caught, quiet_writer_thread():
        train(engine, small_disk)
    assert caught.value.errno == errno.ENOSPC


def test_an_attempt_that_fails_does_not_say_that_it_succeeded(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train_engine(engine_of(make_spec(log=EVERYTHING_SHOWN), digits), tmp_path, stop_at=EPOCH + 1)
    found = shown(tmp_path)
    assert SESSION_START in found
    assert SESSION_END not in found


def test_the_record_of_an_evaluation_is_that_evaluation(everything: Finished, digits: Dataset) -> None:
    evaluated = EvaluationRecord.read(RunPaths(everything.folder).evaluation)
    assert evaluated is not None
    again = evaluate(everything.engine, Stop())
    confusion = torch.zeros_like(again.confusion)
    for label, predicted, count in evaluated.cells:
        confusion[label, predicted] = count
    assert torch.equal(confusion, again.confusion)
    assert (evaluated.loss, evaluated.accuracy) == (again.loss, again.accuracy)
    assert (evaluated.epoch, evaluated.step, evaluated.classes) == (3, 3 * EPOCH, list(digits.classes))


def test_precision_recall_curves_are_of_true_labels(everything: Finished, digits: Dataset) -> None:
    """At the lowest threshold all images are taken for the class, and as many are right as are of it."""
    reader = read(everything.folder)
    supports = torch.bincount(digits.test.labels).tolist()
    assert supports != evaluate(everything.engine, Stop()).confusion.sum(0).tolist()
    for name, support in zip(digits.classes, supports, strict=True):
        true_positives, false_positives, *_ = tensor_util.make_ndarray(
            reader.Tensors(tags.pr_curve(name))[-1].tensor_proto
        )
        assert (true_positives[0], false_positives[0]) == (support, len(digits.test) - support)


def test_mistakes_are_the_most_confident_wrong_ones_in_order(everything: Finished, digits: Dataset) -> None:
    evaluated = EvaluationRecord.read(RunPaths(everything.folder).evaluation)
    assert evaluated is not None
    confidence, predicted = evaluate(everything.engine, Stop()).logits.softmax(1).max(1)
    wrong = [i for i in range(len(predicted)) if predicted[i] != digits.test.labels[i]]
    wrong.sort(key=lambda i: -float(confidence[i]))
    assert [mistake.index for mistake in evaluated.mistakes] == wrong[:25]
    for mistake in evaluated.mistakes:
        assert mistake.label == digits.test.labels[mistake.index] != mistake.predicted == predicted[mistake.index]
        assert mistake.probability == pytest.approx(float(confidence[mistake.index]))


def test_mistakes_have_the_names_of_their_files(digits: Dataset, tmp_path: Path) -> None:
    """In the record, and under the figure of mistakes alone."""
    test = digits.test
    assert isinstance(test, Split)
    named = dataclasses.replace(test, files=tuple(f"test/digit/{index}.png" for index in range(len(test))))
    spec = make_spec(train={"epochs": 1}, log={**NOTHING_SHOWN, "figures": True})
    train(engine_of(spec, dataclasses.replace(digits, test=named)), tmp_path)
    evaluated = EvaluationRecord.read(RunPaths(tmp_path).evaluation)
    assert evaluated is not None
    assert evaluated.mistakes
    assert [mistake.file for mistake in evaluated.mistakes] == [f"test/digit/{m.index}.png" for m in evaluated.mistakes]
    reader = read(tmp_path)
    images = [reader.Tensors(tag)[0].tensor_proto.string_val for tag in (tags.MISTAKES, tags.PREDICTIONS)]
    heights = [int(height) for _, height, *_ in images]
    num_rows = -(-len(evaluated.mistakes) // 4)
    assert heights == [num_rows * (figures.CELL_HEIGHT + figures.FILE_HEIGHT), 5 * figures.CELL_HEIGHT]


class Oracle(nn.Module):
    """Knows every held-out digit; a layer besides, so that something can be trained."""

    def __init__(self, digits: Dataset, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.digits = inner, digits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images)
        if not self.training and len(images) == len(self.digits.test):
            logits = logits * 0 + nn.functional.one_hot(self.digits.test.labels, 10) * 20
        return logits


def test_where_nothing_is_wrong_there_is_no_figure_of_mistakes(digits: Dataset, tmp_path: Path) -> None:
    engine = engine_of(make_spec(train={"epochs": 1}, log=EVERYTHING_SHOWN), digits)
    engine.model = engine.network = Oracle(digits, engine.model)
    _, lines = train(engine, tmp_path)
    assert [line for line in lines if "cannot be shown" in line] == []
    found = shown(tmp_path)
    assert tags.MISTAKES not in found
    assert {tags.PREDICTIONS, tags.CONFUSION} <= found.keys()
    evaluated = EvaluationRecord.read(RunPaths(tmp_path).evaluation)
    assert evaluated is not None
    assert (evaluated.accuracy, evaluated.mistakes) == (1.0, [])


def test_what_each_kind_took_is_measured(everything: Finished) -> None:
    kinds = {"scalars", "texts", "hparams", "graph", "images", "evaluation", "profile", "gradient norm"}
    kinds |= {"histograms", "figures", "pr_curves", "embeddings"}
    seconds = everything.loop.logbook.seconds
    assert seconds.keys() == kinds
    assert all(value > 0 for value in seconds.values())
