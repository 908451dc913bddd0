"""What each option of docs/recipes.md is worth: a plain job, and what is added to it line by line, all really trained.

    python benchmarks/recipes.py --images FOLDER [--home HOME] [--epochs 5] [--seeds 0 1] [--width 16]

FOLDER has CIFAR-10 as `train/<class>/*` and `test/<class>/*`. The jobs go through a queue in HOME, two at a time, and
what is there already is not trained again. A narrow network learns on two processors in minutes what the wide one of
`jobs/airbench94.yaml` learns on a GPU in seconds; what an option is worth may differ.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.board import tags
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Result
from pipeline.jobfile.spec import Spec
from pipeline.queue.job_queue import Queue
from pipeline.stop import Stop
from pipeline.training import checkpoint, device
from pipeline.training.engine import Engine
from pipeline.training.evaluation import evaluate
from pipeline.training.job_dataset import load_dataset

DECAY = 1.33e-3
PLAIN: dict[str, Any] = {
    "model": {"name": "airnet", "whiten": False},
    "data": {"name": "image_folder", "batch_size": 1024, "augment": [{"name": "crop", "padding": 2}, {"name": "flip"}]},
    "train": {
        "optimizer": {"name": "sgd", "lr": 1.5, "momentum": 0.85, "nesterov": True, "weight_decay": DECAY},
        "schedule": {"name": "one_cycle"},
        "label_smoothing": 0.2,
    },
    "log": {"histograms": False, "figures": False, "pr_curves": False, "embeddings": False, "graph": False},
}
ALTERNATING, REFLECTED = {"name": "flip", "alternate": True}, {"name": "crop", "padding": 2, "padding_mode": "reflect"}


@dataclass(frozen=True)
class Rung:
    """What is added to all that is below it; `of`: the rung that it is added to where that is another one."""

    name: str
    changes: dict[str, Any]
    of: str | None = None
    is_trained: bool = True  # else the weights of `of` are evaluated once more


RUNGS = (
    Rung("plain", {}),
    Rung("whiten", {"model.whiten": True}),
    Rung("linear_one_cycle", {"train.schedule": {"name": "linear_one_cycle"}}),
    Rung("bias_lr", {"train.optimizer.bias_lr": 64.0}),
    Rung(
        "bias_weight_decay",
        {"train.optimizer.bias_weight_decay": DECAY / 64, "train.optimizer.norm_weight_decay": DECAY / 64},
    ),
    Rung("batch_norm_momentum", {"model.batch_norm_momentum": 0.4}),
    Rung("last_batch", {"data.last_batch": "drop"}),
    Rung("reflect", {"data.augment": [REFLECTED, {"name": "flip"}]}),
    Rung("alternate", {"data.augment": [REFLECTED, ALTERNATING]}),
    Rung("lookahead", {"train.lookahead": {"every": 5, "alpha": 0.226, "power": 3.0}}),
    Rung("mirror", {"data.test_augment": "mirror"}, of="lookahead", is_trained=False),
    Rung("mirror_shift", {"data.test_augment": "mirror_shift"}, of="lookahead", is_trained=False),
    Rung("cut_short", {"train.epochs": -0.5}),  # so many epochs fewer
    Rung("ema", {"train.ema": {"decay": 0.99}}, of="alternate"),
    Rung(
        "muon",
        {"train.optimizer": {"name": "muon", "lr": 0.1, "weight_decay": 0.01, "adamw_lr": 0.01}},
        of="alternate",
    ),
)


def changed(rung: Rung) -> dict[str, Any]:
    """Returns all changes of the plain job up to and with this rung."""
    names = [each.name for each in RUNGS]
    if rung.of is not None:
        return {**changed(RUNGS[names.index(rung.of)]), **rung.changes}
    below = RUNGS[: names.index(rung.name) + 1]
    return {key: value for each in below if each.of is None for key, value in each.changes.items()}


def spec_of(rung: Rung, *, seed: int, options: argparse.Namespace) -> Spec:
    spec: dict[str, Any] = {key: {**value} for key, value in PLAIN.items()}
    spec["name"] = f"{rung.name}-{seed}"
    spec["model"] |= {"width": options.width}
    spec["data"] |= {"path": str(options.images.resolve())}
    spec["train"] |= {"epochs": options.epochs, "seed": seed, "optimizer": {**PLAIN["train"]["optimizer"]}}
    for key, value in changed(rung).items():
        *path, last = key.split(".")
        section = spec
        for part in path:
            section = section[part]
        section[last] = options.epochs + value if key == "train.epochs" else value
    return Spec.model_validate_json(json.dumps(spec))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "recipes")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=[rung.name for rung in RUNGS], help="of these rungs")
    options = parser.parse_args()
    rungs = [rung for rung in RUNGS if not options.only or rung.name in options.only]
    queue = Queue(Home(options.home))
    queue.create()
    there = {path.name.rpartition("-")[0]: path.name for path in queue.home.runs.iterdir()}
    for seed in options.seeds:
        for rung in filter(lambda rung: rung.is_trained, rungs):
            spec = spec_of(rung, seed=seed, options=options)
            if spec.name not in there:
                there[spec.name] = queue.submit(spec)
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(options.home), "worker", "--drain", "--slots", "2"]
    subprocess.run(command, check=True)
    for rung in rungs:
        name = rung.name if rung.is_trained else str(rung.of)
        runs = [queue.home.run(there[f"{name}-{seed}"]) for seed in options.seeds]
        if rung.is_trained:
            results = [Result.read(run.result) for run in runs]
            found = [result.metrics[tags.TEST_ACCURACY] for result in results if result is not None]
        else:
            found = [
                judged(run, spec_of(rung, seed=seed, options=options), queue.home)
                for seed, run in zip(options.seeds, runs, strict=True)
            ]
        print(f"{rung.name:20} {rung.of or '':10}", "  ".join(f"{100 * value:.2f} %" for value in found), flush=True)


def judged(run: RunPaths, spec: Spec, home: Home) -> float:
    """Returns the accuracy of a run's last weights, evaluated as another spec says."""
    state = checkpoint.load(run.last)
    assert state is not None
    setting = dataclasses.replace(device.choose(spec), dtype=device.PRECISIONS[state["precision"]])
    engine = Engine(spec, load_dataset(spec, home.datasets, log=lambda _: None), setting)
    engine.load_state_dict(state)
    with engine.average.in_use():
        return evaluate(engine, Stop()).accuracy


if __name__ == "__main__":
    main()
