"""The share of an epoch's time that each kind of logging takes.

    python benchmarks/logging_cost.py --data DIR [--epochs 4] [--json]

DIR is as for `throughput.py`. `cnn_bn` is trained on all images at batch 128, with crops and flips, three times in
one process: without anything but scalars, with a job file's defaults, and with everything after every epoch. They take
turns, an epoch each, with its evaluation and everything that is written at its end. A kind's time is taken around its
code in `pipeline/training/logbook.py`; *beside* is what the whole epoch took longer than the one without, so that what
the writer's thread takes, and what a profiled step does, is in it. The larger of the two counts. What comes before the
first step is a part of the first epoch.

The defaults are those of a job of so many epochs: figures after epochs 1, 2, 4, ..., embeddings at the end. A longer
job spends less on them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines import engine_of, loop_of
from throughput import busy_seconds, describe, find_data

from pipeline.jobfile.spec import Log, Spec
from pipeline.training.loop import Loop
from pipeline.worker.executors.local import child_environment

NOTHING = dict.fromkeys(("histograms", "images", "graph", "figures", "pr_curves", "embeddings"), False)
EVERYTHING = {**dict.fromkeys(NOTHING, True), "profile": True}
SETTINGS: dict[str, dict[str, Any]] = {"nothing": NOTHING, "defaults": {}, "everything": EVERYTHING}
TARGETS = {"defaults": 0.03, "everything": 0.15}


@dataclass
class Side:
    """A job that is trained an epoch at a time."""

    loop: Loop
    epochs_s: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def train_epoch(self) -> None:
        busy, own, began = busy_seconds(), time.process_time(), time.perf_counter()
        if not self.epochs_s:
            self.loop.logbook.begin()
            self.loop.logbook.after_step(0)
        self.loop.train_epoch()
        self.loop.end_epoch()
        elapsed = time.perf_counter() - began
        self.epochs_s.append(elapsed)
        others = (busy_seconds() - busy) - (time.process_time() - own)
        self.others.append(max(0.0, others) / elapsed / (os.cpu_count() or 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="an image folder of 32 x 32 images")
    parser.add_argument("--epochs", type=int, default=4, help="of each side (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    conditions = describe(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as scratch:
        sides = {name: make_side(log, data, Path(scratch), arguments.epochs) for name, log in SETTINGS.items()}
        for _ in range(arguments.epochs):
            for side in sides.values():
                side.train_epoch()
    found = {name: summary(side, sides["nothing"]) for name, side in sides.items()}
    if arguments.json:
        print(json.dumps({**conditions, "epochs": arguments.epochs, "settings": found}, indent=2))
    else:
        print("\n".join(f"{key:8} {value}" for key, value in conditions.items()))
        print_tables(found, arguments.epochs)
    costs = {name: max(found[name]["share"], statistics.median(found[name]["beside"])) for name in TARGETS}
    return 0 if all(costs[name] < target for name, target in TARGETS.items()) else 1


def make_side(log: dict[str, Any], data: Path, scratch: Path, epochs: int) -> Side:
    spec = Spec.model_validate(
        {
            "name": "benchmark",
            "model": {"name": "cnn_bn"},
            "data": {"name": "image_folder", "path": str(data), "batch_size": 128, "augment": ("crop", "flip")},
            "train": {"epochs": epochs, "checkpoint_every": "1d"},
            "log": Log(**log),
        }
    )
    return Side(loop_of(engine_of(spec, scratch), scratch))


def summary(side: Side, without: Side) -> dict[str, Any]:
    """Seconds of the whole job, and shares of its time."""
    total = sum(side.epochs_s)
    kinds = dict(sorted(side.loop.logbook.seconds.items(), key=lambda item: -item[1]))
    ratios = [mine / theirs for mine, theirs in zip(side.epochs_s, without.epochs_s, strict=True)]
    return {
        "epoch_s": statistics.median(side.epochs_s),
        "kinds": {
            kind: {"ms_an_epoch": 1000 * s / len(side.epochs_s), "share": s / total} for kind, s in kinds.items()
        },
        "share": sum(kinds.values()) / total,
        "beside": [ratio - 1 for ratio in ratios],
        "others": max(side.others),
    }


def print_tables(found: dict[str, dict[str, Any]], epochs: int) -> None:
    for name, side in found.items():
        target = f"; to stay under {TARGETS[name]:.0%}" if name in TARGETS else ""
        print(f"\n{name}: {side['share']:.2%} of a job of {epochs} epochs of {side['epoch_s']:.1f} s{target}")
        beside = ", ".join(f"{ratio:+.1%}" for ratio in side["beside"])
        print(f"  beside, epoch by epoch: {beside}; other programs took up to {side['others']:.0%}")
        for kind, cost in side["kinds"].items():
            print(f"  {kind:14} {cost['ms_an_epoch']:8.1f} ms an epoch  {cost['share']:7.3%}")


if __name__ == "__main__":
    # The environment that a worker gives its child; libraries read it when the process starts.
    environment = child_environment()
    if environment != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    sys.exit(main())
