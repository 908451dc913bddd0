"""Training in this process, on the digits: an engine, its loop and what it was told.

A test module that imports `digits` and `ordinary_kernels` from here has these fixtures.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import NOTHING_SHOWN

from pipeline.board.artist import Artist
from pipeline.board.writer import Board
from pipeline.data.dataset import Dataset
from pipeline.data.resizing import resize
from pipeline.data.splits import Split
from pipeline.errors import Interrupted
from pipeline.home.paths import RunPaths
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import device, manifest
from pipeline.training.engine import Engine
from pipeline.training.job_dataset import load_dataset
from pipeline.training.logbook import Logbook
from pipeline.training.loop import Listener, Loop, Save, take_steps
from pipeline.training.moment import Moment
from pipeline.training.step import EagerStep

Saved = list[tuple[dict[str, Any], bool]]  # states, and whether each was the best so far


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(make_spec(), tmp_path_factory.mktemp("datasets"), log=print)


def of_size(dataset: Dataset, size: int) -> Dataset:
    """Returns it with all images made so many pixels a side."""
    train, test = (
        dataclasses.replace(split, images=resize(split.images, size))
        for split in (dataset.train, dataset.test)
        if isinstance(split, Split)
    )
    return dataclasses.replace(dataset, train=train, test=test)


@pytest.fixture(autouse=True)
def ordinary_kernels() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    device.use_onednn(True)


def make_spec(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any) -> Spec:
    value = {
        "name": "test",
        "model": model or {"name": "cnn_bn"},
        "data": {"name": "digits", "batch_size": 64, **(data or {})},
        "train": {"epochs": 2, "deterministic": True, **changes.pop("train", {})},
        "log": {"every": 5, **NOTHING_SHOWN, "histograms": True, **changes.pop("log", {})},
        "resources": {"device": "cpu"},  # what is compared are the CPU's bits; on a GPU, tests/gpu
    }
    return Spec.model_validate_json(json.dumps(value))


def engine_of(spec: Spec, dataset: Dataset) -> Engine:
    if spec.train.deterministic:
        device.make_deterministic()
    return Engine(spec, dataset, device.choose(spec))


def logbook_of(
    board: Board, engine: Engine, *, log: Callable[[str], None] = str, artist: Artist | None = None
) -> Logbook:
    """As `pipeline.training.attempt` makes it."""
    spec, dataset, setting = engine.spec, engine.dataset, engine.setting
    return Logbook(
        board,
        spec,
        dataset,
        setting,
        first_step=engine.step,
        num_steps=engine.num_steps,
        manifest=manifest.write(RunPaths(board.folder), spec, dataset, setting, job_id="test", attempt=1),
        job_file="name: test\n",
        log=log,
        artist=artist,
    )


class Recorder:
    """A Listener that keeps what it is told, and may ask for a stop."""

    def __init__(self, engine: Engine, at_step: Callable[[int], object] = str) -> None:
        self.engine, self.at_step = engine, at_step
        self.losses: dict[int, float] = {}
        self.epochs: list[dict[str, float]] = []  # the scalars at the end of each

    def after_step(self, moment: Moment, metrics: dict[str, float]) -> None:
        if moment.step % self.engine.spec.log.every == 0:
            self.losses[moment.step] = metrics["train/loss"]
        self.at_step(moment.step)

    def after_epoch(self, moment: Moment, metrics: dict[str, float]) -> None:  # noqa: ARG002
        self.epochs.append(dict(metrics))


def write_alone(state: dict[str, Any], is_best: bool, write: Callable[[], None] | None) -> None:  # noqa: ARG001
    """A `Save` that saves nothing."""
    if write is not None:
        write()


def loop_of(
    engine: Engine,
    board: Board,
    *,
    listener: Listener | None = None,
    save: Save = write_alone,
    stop: Stop | None = None,
    metrics: dict[str, float] | None = None,
    log: Callable[[str], None] = str,
) -> Loop:
    logbook = logbook_of(board, engine, log=log)
    return Loop(
        engine, EagerStep(engine), logbook, listener or Recorder(engine), save, stop or Stop(), metrics=metrics or {}
    )


def train_engine(
    engine: Engine,
    folder: Path,
    *,
    stop_at: int | None = None,
    saved: Saved | None = None,
    metrics: dict[str, float] | None = None,
) -> Recorder:
    """Train to the end, or until a stop is asked for after step `stop_at`."""
    stop, saved = Stop(), [] if saved is None else saved

    def save(state: dict[str, Any], is_best: bool, write: Callable[[], None] | None) -> None:
        write_alone(state, is_best, write)
        saved.append((copy.deepcopy(state), is_best))

    def at_step(step: int) -> None:
        if step == stop_at:
            stop.request("asked to stop")

    recorder = Recorder(engine, at_step)
    with Board(folder, first_step=engine.first_point) as board:
        loop_of(engine, board, listener=recorder, save=save, stop=stop, metrics=metrics).train()
    return recorder


def take(engine: Engine, count: int) -> EagerStep:
    """Take some steps and nothing else. Returns what took them."""
    step = EagerStep(engine)
    for _ in zip(range(count), take_steps(engine, step), strict=False):
        pass
    return step


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.model.state_dict().items()}


def assert_identical(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


class Killed(BaseException):
    """What a real kill does to the code that runs: it does not go on."""


class FullList(Saved):
    def append(self, item: object) -> None:  # noqa: ARG002
        raise Killed


def train_killed_before_a_checkpoint(spec: Spec, dataset: Dataset, folder: Path, *, step: int) -> None:
    """Train to the end in three attempts: stopped after `step`, killed before its first checkpoint, and whole."""
    saved: Saved = []
    with pytest.raises(Interrupted):
        train_engine(engine_of(spec, dataset), folder, stop_at=step, saved=saved)
    state, _ = saved[-1]
    for into in (FullList(), []):
        resumed = engine_of(spec, dataset)
        resumed.load_state_dict(state)
        with pytest.raises(Killed) if isinstance(into, FullList) else contextlib.nullcontext():
            train_engine(resumed, folder, saved=into, metrics=dict(state["metrics"]))
