"""One side of the comparison in `throughput.py`: a process that trains while it is told to.

    python benchmarks/sides.py SIDE MODEL BATCH_SIZE PRECISION DATA SCRATCH

It says which precision it computes in, then reads a number of seconds a line and answers with what it did in them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODELS: dict[str, dict[str, Any]] = {
    "net": {"name": "net"},
    "cnn_bn": {"name": "cnn_bn"},
    "vgg11_bn": {"name": "vgg", "depth": 11, "batch_norm": True},
}
NOT_AUGMENTED = ("net",)  # as in its tutorial


@dataclass(frozen=True)
class Work:
    model: str
    batch_size: int
    precision: str
    data: Path
    scratch: Path

    @property
    def augment(self) -> bool:
        return self.model not in NOT_AUGMENTED


class Pace:
    """Lets a side train for as long as it is told, turn after turn."""

    def __init__(self, precision: str) -> None:
        self._say({"precision": precision})
        self._wait()

    def step(self, num_images: int) -> None:
        """To be called after each step."""
        self.num_images += num_images
        seconds = time.perf_counter() - self.began
        if seconds >= self.limit:
            self._say({"images": self.num_images, "seconds": seconds})
            self._wait()

    def _say(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)

    def _wait(self) -> None:
        command = sys.stdin.readline()
        if not command:
            sys.exit()
        self.limit, self.num_images, self.began = float(command), 0, time.perf_counter()


def tutorial(work: Work) -> None:
    from tutorial import train

    from pipeline.jobfile import catalog

    options = dict(MODELS[work.model])
    net = catalog.MODELS[options.pop("name")].load()(num_classes=10, channels=3, image_size=32, **options)
    log_dir = Path(tempfile.mkdtemp(dir=work.scratch))
    steps = train(net, work.data, batch_size=work.batch_size, augment=work.augment, log_dir=log_dir)
    pace = Pace("fp32")
    for num_images in steps:
        pace.step(num_images)


def ours(work: Work) -> None:
    """As `pipeline.training.attempt` trains, without checkpoints and evaluation."""
    from pipeline.board.writer import Board
    from pipeline.home.paths import RunPaths
    from pipeline.jobfile.spec import Spec
    from pipeline.stop import Stop
    from pipeline.training import cpu_precision, device, manifest
    from pipeline.training.engine import Engine, load_dataset
    from pipeline.training.logbook import Logbook
    from pipeline.training.loop import Loop
    from pipeline.training.moment import Moment
    from pipeline.training.step import EagerStep

    data = {"name": "image_folder", "path": str(work.data), "batch_size": work.batch_size}
    train = {
        "precision": work.precision,
        "optimizer": {"lr": 0.001, "momentum": 0.9},
        "checkpoint_every": "1d",
        "epochs": 100_000,
    }
    spec = Spec.model_validate(
        {
            "name": "benchmark",
            "model": MODELS[work.model],
            "data": {**data, "augment": ("crop", "flip") if work.augment else ()},
            "train": train,
            "resources": {"device": "cpu"},
        }
    )
    setting = device.choose(spec)
    dataset = load_dataset(spec, work.scratch, log=complain)
    setting = cpu_precision.settle(setting, spec, dataset, datasets=work.scratch)
    engine = Engine(spec, dataset, setting)

    class Paced:
        """Told of each step, as the log and the progress file of a real run are."""

        num_images = 0

        def after_step(self, moment: Moment, metrics: dict[str, float]) -> None:  # noqa: ARG002
            pace.step(engine.num_images - self.num_images)
            self.num_images = engine.num_images

        def after_epoch(self, moment: Moment, metrics: dict[str, float]) -> None: ...

    def save(state: dict[str, Any], is_best: bool) -> None: ...

    run = RunPaths(Path(tempfile.mkdtemp(dir=work.scratch)))
    with Board(run.root, first_step=0) as board:
        logbook = Logbook(
            board,
            spec,
            dataset,
            setting,
            first_step=0,
            num_steps=engine.num_steps,
            manifest=manifest.write(run, spec, dataset, setting, job_id="benchmark", attempt=1),
            job_file="",
            log=complain,
        )
        loop = Loop(engine, EagerStep(engine), logbook, Paced(), save, Stop())
        pace = Pace(str(setting.describe()["precision"]))
        while True:
            loop.train_epoch()
            engine.end_epoch()


def complain(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    side, model, batch_size, precision, data, scratch = sys.argv[1:]
    work = Work(model, int(batch_size), precision, Path(data), Path(scratch))
    {"tutorial": tutorial, "ours": ours}[side](work)


if __name__ == "__main__":
    main()
