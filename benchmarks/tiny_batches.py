"""How fast steps of tiny batches are on this CPU with and without oneDNN, in each memory format, in fp32.

    python benchmarks/tiny_batches.py [--models net,cnn_bn] [--batches 1,2,4,8,16] [--rounds 9] [--threads 2]

These are steps of the engine that jobs run on, of images of noise as large as CIFAR-10's, in the environment that a
worker gives a child. The ways take short turns in one process, and a ratio is taken within each round: of wall time,
with its quartiles, and of the process's CPU time. Rounds in which other programs took more than a tenth of the
processors are taken again, up to ten times as many; then all count, and BUSY stands there. What an attempt's own
measurement (`cpu_choice.py`) comes to is beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from sides import MODELS, NOT_AUGMENTED
from throughput import MAX_OTHERS, busy_seconds

from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import cpu_choice, device
from pipeline.training.device import Setting, use_onednn
from pipeline.training.engine import Engine
from pipeline.training.loop import take_steps
from pipeline.training.step import EagerStep
from pipeline.worker.executors.local import child_environment

TURN_S = 0.08
WARM_UP = 3  # steps that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--models", default="net,cnn_bn,vgg11_bn,resnet9", help="some of %(default)s")
    parser.add_argument("--batches", default="1,2,4,8,16,32", help="their sizes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if "GOMP_SPINCOUNT" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], child_environment())
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads; times as fast as with oneDNN and channels_last")
    for model in arguments.models.split(","):
        for batch_size in map(int, arguments.batches.split(",")):
            if batch_size > 1 or model in NOT_AUGMENTED:  # the others have batch norm
                compare(spec_of(model, batch_size), arguments.rounds)


def spec_of(model: str, batch_size: int) -> Spec:
    return Spec.model_validate(
        {
            "name": model,
            "model": MODELS.get(model, {"name": model}),
            "data": {
                "name": "cifar10",
                "batch_size": batch_size,
                "augment": () if model in NOT_AUGMENTED else ("crop", "flip"),
            },
            "train": {"epochs": 100_000, "precision": "fp32", "optimizer": {"name": "sgd", "lr": 1e-4}},
            "resources": {"device": "cpu"},
        }
    )


def images(num: int) -> Split:
    return Split(torch.randint(0, 256, (num, 32, 32, 3), dtype=torch.uint8), torch.arange(num) % 10)


def compare(spec: Spec, num_rounds: int) -> None:
    dataset = Dataset(images(4096), images(512), tuple("abcdefghij"), "", (0.5,) * 3, (0.25,) * 3, ())
    plain = device.choose(spec)
    contiguous = dataclasses.replace(plain, memory_format=torch.contiguous_format)
    without = [dataclasses.replace(setting, onednn=False) for setting in (plain, contiguous)]
    ways = [plain, contiguous, *without]
    running = {way: steps_without_end(Engine(spec, dataset, way)) for way in ways}
    num_steps = {way: steps_of_a_turn(steps) for way, steps in running.items()}
    rounds: list[Round] = []
    while sum(taken.is_quiet for taken in rounds) < num_rounds and len(rounds) < 10 * num_rounds:
        rounds.append(take_round(running, num_steps))
        if not rounds[-1].is_quiet:
            time.sleep(0.2)  # it may be over then
    quiet = [taken for taken in rounds if taken.is_quiet]
    counted = quiet if len(quiet) == num_rounds else rounds
    times = {way: [taken.times[way] for taken in counted] for way in ways}
    use_onednn(True)
    found = cpu_choice.ways_to_compute(plain, spec, image_size=32)
    gains = cpu_choice.measure(found, spec, dataset, Stop()).gains if len(found) > 1 else [1.0]
    fastest = max(zip(gains, found, strict=True), key=lambda pair: pair[0])
    print(
        f"{spec.name:9} at {spec.data.batch_size:2}  {1000 * statistics.median(t for t, _ in times[plain]):8.2f} ms",
        *(f"{way.in_words.removeprefix('fp32 ')}: {in_words(times[plain], times[way])}" for way in ways[1:]),
        f"{len(counted)} rounds{'' if counted is quiet else ', BUSY'}",
        f"an attempt takes: {(fastest[1] if fastest[0] >= cpu_choice.WORTH_IT else plain).in_words}",
        sep="   ",
        flush=True,
    )


class Round(NamedTuple):
    """times: of each way, the seconds of a step, on the wall and of the CPU."""

    times: dict[Setting, tuple[float, float]]
    is_quiet: bool


def take_round(running: dict[Setting, Iterator[int]], num_steps: dict[Setting, int]) -> Round:
    ways, times = random.sample(list(running), len(running)), {}
    busy, round_began, round_cpu = busy_seconds(), time.perf_counter(), time.process_time()
    for way in ways:
        began, cpu_began = time.perf_counter(), time.process_time()
        for _ in range(num_steps[way]):
            next(running[way])
        times[way] = (time.perf_counter() - began) / num_steps[way], (time.process_time() - cpu_began) / num_steps[way]
    elapsed = time.perf_counter() - round_began
    others = (busy_seconds() - busy - (time.process_time() - round_cpu)) / elapsed / (os.cpu_count() or 1)
    return Round(times, others < MAX_OTHERS)


def in_words(plain: list[tuple[float, float]], other: list[tuple[float, float]]) -> str:
    ratios = [(ours[0] / theirs[0], ours[1] / theirs[1]) for ours, theirs in zip(plain, other, strict=True)]
    low, median, high = statistics.quantiles((wall for wall, _ in ratios), n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f}; CPU time {statistics.median(cpu for _, cpu in ratios):.2f})"


def steps_without_end(engine: Engine) -> Iterator[int]:
    step = EagerStep(engine)
    while True:
        yield from take_steps(engine, step)
        engine.end_epoch()


def steps_of_a_turn(steps: Iterator[int]) -> int:
    for _ in range(WARM_UP):
        next(steps)
    began = time.perf_counter()
    next(steps)
    return max(2, round(TURN_S / (time.perf_counter() - began)))


if __name__ == "__main__":
    main()
