"""What is claimed of the program on a GPU, measured on this machine's: `make gpu`, or by parts of some minutes.

    python benchmarks/gpu.py --part A|B [--data DIR] [--json FILE] [--only NAME[,NAME]] [--airbench DIR]
    python benchmarks/gpu.py --part A|B --small         the same on the CPU, in small: whether it still runs

Part A drives the engine: exactness against the CPU, determinism, waits, launches, throughput beside other loops, the
start. Part B runs jobs: accuracy and time of both recipes, what logging costs, kills and resumes, two jobs on one
GPU, no memory, images from disk. DIR is an image folder of CIFAR-10, or holds one named `cifar10-images`; no network
is needed.

It prints a line a figure, and names each claim that falls short; the exit code is 1 where one does.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims import Claim, summary
from sides import MODELS

from pipeline.worker.executors.local import child_environment

PARTS = {
    "A": {
        "exact": "gpu_exact:exactness",
        "augmentation": "gpu_exact:augmentation",
        "deterministic": "gpu_exact:determinism",
        "waits": "gpu_speed:waits",
        "throughput": "gpu_speed:throughput",
        "tuning": "gpu_speed:tuning",
        "peers": "gpu_speed:peers",
        "epoch_end": "gpu_speed:end_of_an_epoch",
        "start": "gpu_jobs:start",
    },
    "B": {
        "kills": "gpu_jobs:kills",
        "together": "gpu_jobs:two_jobs_together",
        "no_memory": "gpu_jobs:no_memory",
        "streamed": "gpu_jobs:streamed",
        "logging": "gpu_jobs:logging_cost",
        "recipes": "gpu_recipes:recipes",
        "airbench": "gpu_recipes:airbench",
    },
}


@dataclass(frozen=True)
class Bench:
    """Where and how much is measured."""

    device: str
    is_small: bool
    data: Path  # an image folder of CIFAR-10
    scratch: Path
    datasets: Path  # decoded images are kept here
    models: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    seeds: int
    airbench: Path | None

    def spec(self, model: dict[str, Any], *, batch_size: int = 128, **sections: Any) -> dict[str, Any]:
        """A job: CIFAR-10 as the job files of this project train it; `sections` are laid over it."""
        data: dict[str, Any] = {"name": "image_folder", "path": str(self.data), "batch_size": batch_size}
        if self.is_small:
            data = {"name": "digits", "image_size": 32, "batch_size": min(batch_size, 64)}
        data["augment"] = ("crop", "flip")
        sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
        given: dict[str, Any] = {
            "name": "gpu",
            "model": model,
            "data": data,
            "train": {"epochs": 1, "optimizer": sgd, "checkpoint_every": "1d"},
            "resources": {"device": self.device},
        }
        merged = {key: value | sections.get(key, {}) for key, value in given.items() if isinstance(value, dict)}
        return {**given, **sections, **merged}


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(
            device="cpu" if arguments.small else "cuda",
            is_small=arguments.small,
            data=make_images(Path(scratch) / "images") if arguments.small else find_data(arguments),
            scratch=Path(scratch),
            datasets=(arguments.datasets or Path(scratch) / "datasets").absolute(),
            models=tuple(arguments.models.split(",")),
            batch_sizes=tuple(map(int, arguments.batches.split(","))),
            seeds=arguments.seeds,
            airbench=arguments.airbench,
        )
        conditions = describe(bench)
        print("\n".join(f"{key:8} {value}" for key, value in conditions.items()), "", sep="\n", flush=True)
        claims: list[Claim] = []
        for part in PARTS:
            ends_at = time.perf_counter() + 60 * arguments.minutes
            for name, check in chosen(arguments, part):
                if time.perf_counter() > ends_at:
                    claims.append(Claim.left_out(name, f"the part's {arguments.minutes:g} minutes are used up"))
                    continue
                began = time.perf_counter()
                for claim in outcome(name, check(bench)):
                    claims.append(claim)
                    print(claim.row(), flush=True)
                print(f"    ({name}: {time.perf_counter() - began:.0f} s)", flush=True)
                if arguments.json:  # now: whatever comes next may be cut off
                    rows = [claim.to_json() for claim in claims]
                    arguments.json.write_text(json.dumps({**conditions, "claims": rows}, indent=2) + "\n")
    print("", summary(claims), sep="\n")
    return 0 if all(claim.is_met for claim in claims) else 1


def outcome(name: str, claims: Iterator[Claim]) -> Iterator[Claim]:
    """What a check finds; one that breaks off falls short, and the others are still measured."""
    try:
        yield from claims
    except (Exception, SystemExit) as error:  # noqa: BLE001 - of a side's process, memory, time, ...
        traceback.print_exc()
        yield Claim(name, f"broke off: {type(error).__name__}: {error}", holds=False)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    names = [name for part in PARTS.values() for name in part]
    parser.add_argument("--part", choices=list(PARTS), help="A: the engine; B: jobs; both without")
    parser.add_argument("--only", help=f"some of {', '.join(names)}")
    parser.add_argument("--small", action="store_true", help="on the CPU, on the bundled digits: whether it still runs")
    parser.add_argument("--data", type=Path, help="an image folder of CIFAR-10; default: where PIPELINE_TEST_DATA says")
    parser.add_argument("--datasets", type=Path, help="a folder that keeps the decoded images for the next run")
    parser.add_argument("--json", type=Path, help="a file that gets all figures")
    parser.add_argument("--models", default="net,cnn_bn,vgg11_bn")
    parser.add_argument("--batches", default="4,128,1024")
    parser.add_argument(
        "--minutes", type=float, default=10, help="after which a part begins nothing more (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of each recipe (default: %(default)s)")
    parser.add_argument(
        "--airbench", type=Path, help="a folder with legacy/airbench94.py of KellerJordan/cifar10-airbench"
    )
    arguments = parser.parse_args()
    for given, known in ((arguments.only or "", names), (arguments.models, list(MODELS))):
        if unknown := set(filter(None, given.split(","))) - set(known):
            parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return arguments


def chosen(arguments: argparse.Namespace, part: str) -> Iterator[tuple[str, Callable[[Bench], Iterator[Claim]]]]:
    wanted = set(filter(None, (arguments.only or "").split(",")))
    for name, target in PARTS[part].items():
        if arguments.part in (None, part) and (not wanted or name in wanted):
            module, _, function = target.partition(":")
            yield name, getattr(importlib.import_module(module), function)


def make_images(folder: Path) -> Path:
    """An image folder for what reads files, of noise."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "abcdefghij":
            (folder / split / name).mkdir(parents=True)
            for number in range(20):
                pixels = random.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def find_data(arguments: argparse.Namespace) -> Path:
    given = arguments.data or Path(os.environ.get("PIPELINE_TEST_DATA", "."))
    for folder in (given, given / "cifar10-images"):
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return folder.absolute()
    sys.exit(f"{given} has no folders train and test of CIFAR-10's images: give one with --data")


def describe(bench: Bench) -> dict[str, str]:
    import torch

    from pipeline.training.device import device_name
    from pipeline.training.gpu_driver import driver_version, why_no_gpu

    if bench.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"there is no GPU: {why_no_gpu()}; --small runs on the CPU")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision", "tensorboard")]
    return {
        "gpu": f"{device_name(torch.device(bench.device))}{driver_version()}",
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "versions": ", ".join([f"python {platform.python_version()}", *versions, f"CUDA {torch.version.cuda}"]),
        "command": " ".join(["python", *sys.argv]),
    }


if __name__ == "__main__":
    # The environment that a worker gives its child; libraries read it when the process starts.
    environment = child_environment()
    if environment != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    sys.exit(main())
