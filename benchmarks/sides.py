"""One side of the comparison in `throughput.py`: a process that trains while it is told to.

    python benchmarks/sides.py SIDE MODEL BATCH_SIZE PRECISION DATA SCRATCH DEVICE

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
    "vgg11": {"name": "vgg", "depth": 11, "batch_norm": False},
}
QUANTIZE: dict[str, dict[str, Any]] = {
    "w4a8": {"weights": {"bits": 4, "scheme": "lsq", "per": "channel"}, "activations": {"bits": 8, "scheme": "lsq"}},
    "w4": {"weights": {"bits": 4, "scheme": "lsq", "per": "channel"}},
    "symmetric8": {
        "weights": {"bits": 8, "scheme": "symmetric", "per": "channel"},
        "activations": {"bits": 8, "scheme": "symmetric"},
    },
}
NOT_AUGMENTED = ("net",)  # as in its tutorial


@dataclass(frozen=True)
class Work:
    model: str
    batch_size: int
    precision: str
    data: Path
    scratch: Path
    device: str

    @property
    def job_model(self) -> dict[str, Any]:
        """As a job file has it; of `net-w4` it is `net` with that `quantize` section."""
        name, _, quantize = self.model.partition("-")
        return {**MODELS[name], "quantize": QUANTIZE[quantize]} if quantize in QUANTIZE else MODELS[name]

    @property
    def augment(self) -> bool:
        return self.model.partition("-")[0] not in NOT_AUGMENTED


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

    log_dir = Path(tempfile.mkdtemp(dir=work.scratch))
    steps = train(
        network(work),
        work.data,
        batch_size=work.batch_size,
        augment=work.augment,
        log_dir=log_dir,
        device=work.device,
    )
    pace = Pace("fp32")
    for num_images in steps:
        pace.step(num_images)


def ours(work: Work) -> None:
    """As `pipeline.training.attempt` trains, without checkpoints and evaluation."""
    from engines import engine_of, loop_of

    from pipeline.jobfile.spec import Spec
    from pipeline.training.moment import Moment

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
            "model": work.job_model,
            "data": {**data, "augment": ("crop", "flip") if work.augment else ()},
            "train": train,
            "resources": {"device": work.device},
        }
    )
    engine = engine_of(spec, work.scratch)

    class Paced:
        """Told of each step, as the log and the progress file of a real run are."""

        num_images = 0

        def after_step(self, moment: Moment, metrics: dict[str, float]) -> None:  # noqa: ARG002
            pace.step(engine.num_images - self.num_images)
            self.num_images = engine.num_images

        def after_epoch(self, moment: Moment, metrics: dict[str, float]) -> None: ...

    loop = loop_of(engine, work.scratch, listener=Paced())
    pace = Pace(str(engine.setting.describe()["precision"]))
    while True:
        loop.train_epoch()
        engine.end_epoch()


def lightning(work: Work) -> None:
    """The loop of Lightning, as its documentation has one write it: the same model, images and precision."""
    from lightning_peer import train

    pace = Pace(work.precision)
    train(network(work), work, pace.step)


def network(work: Work) -> Any:
    from pipeline.jobfile import catalog

    options = dict(MODELS[work.model])
    return catalog.MODELS[options.pop("name")].load()(num_classes=10, channels=3, image_size=32, **options)


def main() -> None:
    side, model, batch_size, precision, data, scratch, device = sys.argv[1:]
    work = Work(model, int(batch_size), precision, Path(data), Path(scratch), device)
    {"tutorial": tutorial, "lightning": lightning, "ours": ours}[side](work)


if __name__ == "__main__":
    main()
