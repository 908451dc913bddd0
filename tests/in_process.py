"""Training in this process, on the digits: an engine, its loop and what it was told.

A test module that imports `digits` and `ordinary_kernels` from here has these fixtures.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import NOTHING_SHOWN

from pipeline.board.writer import Board
from pipeline.data import digits as digits_reader
from pipeline.data import source as datasets
from pipeline.data.source import Source
from pipeline.errors import Interrupted
from pipeline.home.paths import RunPaths
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import device, manifest
from pipeline.training.logbook import Logbook
from pipeline.training.loop import Loop, Trainer
from pipeline.training.metrics import Evaluation


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return datasets.load(
        "digits", digits_reader.read, {}, image_size=None, datasets=tmp_path_factory.mktemp("datasets"), log=print
    )


@pytest.fixture(autouse=True)
def ordinary_kernels() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def logbook_of(board: Board, trainer: Trainer, *, log: Callable[[str], None] = str) -> Logbook:
    """As `pipeline.training.attempt` makes it."""
    run = RunPaths(board.folder)
    provenance = manifest.write(run, trainer.spec, trainer.source, trainer.setting, job_id="test", attempt=1)
    return Logbook(board, trainer, manifest=provenance, job_file="name: test\n", log=log)


def make_spec(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any) -> Spec:
    value = {
        "name": "test",
        "model": model or {"name": "cnn_bn"},
        "data": {"name": "digits", "batch_size": 64, **(data or {})},
        "train": {"epochs": 2, "deterministic": True, **changes.pop("train", {})},
        "log": {"every": 5, **NOTHING_SHOWN, "histograms": True, **changes.pop("log", {})},
    }
    return Spec.model_validate_json(json.dumps(value))


def trainer_of(spec: Spec, source: Source) -> Trainer:
    if spec.train.deterministic:
        device.make_deterministic()
    return Trainer(spec, source, device.choose(spec))


class Recorder:
    """A Report that keeps what it is told, and may ask for a stop."""

    def __init__(self, at_step: Callable[[int], object] = str) -> None:
        self.at_step = at_step
        self.evaluations: list[Evaluation] = []
        self.losses: dict[int, float] = {}

    def step(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.step % trainer.spec.log.every == 0 or trainer.step == trainer.num_steps:
            self.losses[trainer.step] = metrics["train/loss"]
        self.at_step(trainer.step)

    def epoch(self, trainer: Trainer, metrics: dict[str, float], evaluation: Evaluation) -> None:  # noqa: ARG002
        self.evaluations.append(evaluation)


def run(
    trainer: Trainer,
    folder: Path,
    *,
    stop_at: int | None = None,
    saved: list[tuple[dict[str, Any], bool]] | None = None,
    metrics: dict[str, float] | None = None,
) -> Recorder:
    """Train to the end, or until a stop is asked for after step `stop_at`."""
    stop, saved = Stop(), [] if saved is None else saved

    def save(state: dict[str, Any], is_best: bool) -> None:
        saved.append((copy.deepcopy(state), is_best))

    def at_step(step: int) -> None:
        if step == stop_at:
            stop.request("asked to stop")

    recorder = Recorder(at_step)
    with Board(folder, first_step=trainer.first_point) as board:
        Loop(trainer, logbook_of(board, trainer), recorder, save, stop, metrics=metrics or {}).run()
    return recorder


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_identical(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


class Killed(BaseException):
    """What a real kill does to the code that runs: it does not go on."""


class FullList(list[tuple[dict[str, Any], bool]]):
    def append(self, item: object) -> None:  # noqa: ARG002
        raise Killed


def run_killed_before_a_checkpoint(spec: Spec, source: Source, folder: Path, *, step: int) -> None:
    """Train to the end in three attempts: stopped after `step`, killed before its first checkpoint, and whole."""
    saved: list[tuple[dict[str, Any], bool]] = []
    with pytest.raises(Interrupted):
        run(trainer_of(spec, source), folder, stop_at=step, saved=saved)
    state, _ = saved[-1]
    for into in (FullList(), []):
        resumed = trainer_of(spec, source)
        resumed.load_state_dict(state)
        with pytest.raises(Killed) if isinstance(into, FullList) else contextlib.nullcontext():
            run(resumed, folder, saved=into, metrics=dict(state["metrics"]))
