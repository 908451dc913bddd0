"""The engine that jobs run on, built as an attempt builds it, for a benchmark to drive."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.board.artist import Artist
from pipeline.board.writer import Board
from pipeline.home.paths import RunPaths
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import captured_step, cpu_choice, device, manifest
from pipeline.training.engine import Engine
from pipeline.training.job_dataset import load_dataset
from pipeline.training.logbook import Logbook
from pipeline.training.loop import Listener, Loop, Save
from pipeline.training.moment import Moment
from pipeline.training.saver import Saver


class Silent:
    """A Listener that tells nobody."""

    def after_step(self, moment: Moment, metrics: dict[str, float]) -> None: ...

    def after_epoch(self, moment: Moment, metrics: dict[str, float]) -> None: ...


def save_nothing(state: dict[str, Any], is_best: bool, write: Callable[[], None] | None) -> None:  # noqa: ARG001
    if write is not None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        write()


def complain(text: str) -> None:
    print(text, file=sys.stderr)


def engine_of(spec: Spec, datasets: Path) -> Engine:
    if spec.train.deterministic:
        device.make_deterministic()
    setting, dataset = device.choose(spec), load_dataset(spec, datasets, log=complain)
    return Engine(spec, dataset, cpu_choice.settle(setting, spec, dataset, datasets=datasets, stop=Stop()))


def loop_of(
    engine: Engine,
    scratch: Path,
    *,
    listener: Listener | None = None,
    save: Save = save_nothing,
    artist: Artist | None = None,
) -> Loop:
    """The loop of an engine, with a run below `scratch` that it writes to."""
    spec, dataset, setting = engine.spec, engine.dataset, engine.setting
    run = RunPaths(Path(tempfile.mkdtemp(dir=scratch)))
    logbook = Logbook(
        Board(run.root, first_step=engine.first_point),
        spec,
        dataset,
        setting,
        first_step=engine.step,
        num_steps=engine.num_steps,
        manifest=manifest.write(run, spec, dataset, setting, job_id="benchmark", attempt=1),
        job_file="",
        log=complain,
        artist=artist,
    )
    return Loop(engine, captured_step.choose(engine, log=complain), logbook, listener or Silent(), save, Stop())


@contextlib.contextmanager
def saved_loop_of(engine: Engine, scratch: Path, run: RunPaths) -> Iterator[tuple[Loop, Saver]]:
    """The same as an attempt has it: with its checkpoints, and figures that a process draws where a GPU trains."""
    run.root.mkdir(parents=True)
    with Artist() as artist:
        loop = loop_of(engine, scratch, artist=artist if engine.setting.device.type == "cuda" else None)
        with Saver(run, before=loop.logbook.settle) as saver:
            loop.save = saver.save
            yield loop, saver
