"""Part A: how fast the engine trains on a GPU, what it launches, and what it waits for."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from claims import Claim
from engines import complain, engine_of, loop_of, saved_loop_of
from sides import MODELS
from throughput import Case, Side, has_lightning
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pipeline.home.paths import RunPaths
from pipeline.jobfile.spec import Spec
from pipeline.training import captured_step
from pipeline.training.engine import Engine
from pipeline.training.loop import take_steps
from pipeline.training.step import EagerStep, Step

if TYPE_CHECKING:
    from gpu import Bench

HERE = Path(__file__).parent
TUNING = """
import sys, time
from pathlib import Path
import torch
from gpu import Bench
from gpu_speed import kernels_of_a_step, make_engine, steps_without_end
data, datasets, name, batch_size, is_tuned = sys.argv[1:]
bench = Bench("cuda", False, Path(data), Path(), Path(datasets), (), (), 1, None)
engine = make_engine(bench, name, int(batch_size))
engine.__dict__["is_long"] = is_tuned == "1"
steps = steps_without_end(engine)
torch.cuda.synchronize()
began = time.perf_counter()
next(steps)
torch.cuda.synchronize()
first_s = time.perf_counter() - began
print("TIMES", first_s, kernels_of_a_step(steps, 50)[1])
"""
GOALS = {("vgg11_bn", 128): 250_000.0, ("vgg11_bn", 1024): 350_000.0}  # images/s, of an H200
NO_KERNELS = ("Memcpy", "Memset", "Optimizer.", "ProfilerStep")  # beginnings of names
SECONDS = 1.5  # that a figure is measured for


def waits(bench: Bench) -> Iterator[Claim]:
    """How often the steps of a whole epoch wait for the GPU, and all that follows them."""
    if bench.device != "cuda":
        yield Claim.left_out("waits of an epoch", "needs a GPU")
        return
    for name in bench.models:
        engine = make_engine(bench, name, 128)
        loop = loop_of(engine, bench.scratch)
        steps = take_steps(engine, loop.step)
        next(steps)
        where = count_waits(lambda steps=steps: [None for _ in steps])
        yield Claim(f"{name}: waits of an epoch's steps", sum(where.values()), at_most=0)
        where = count_waits(loop.end_epoch)
        told = ", ".join(f"{place} {number}" for place, number in where.most_common(4))
        yield Claim(f"{name}: waits at the end of an epoch, all due", sum(where.values()), f"({told})")


def throughput(bench: Bench) -> Iterator[Claim]:
    """Images a second of the steps alone, kernels of a step, and how busy they keep the GPU."""
    for name in bench.models:
        for batch_size in bench.batch_sizes:
            engine = make_engine(bench, name, batch_size)
            what = f"{name} at {batch_size}, {engine.setting.describe()['precision']}"
            if engine.setting.capture:
                rate, _ = measured(bench, engine, steps_without_end(engine, EagerStep(engine)))
                yield Claim(f"{what}: eager", rate, "images/s")
            endless = steps_without_end(engine)
            rate, step_s = measured(bench, engine, endless)
            yield Claim(what, rate, "images/s", at_least=None if bench.is_small else GOALS.get((name, batch_size)))
            if bench.device == "cuda":
                kernels, busy_s = kernels_of_a_step(endless)
                yield Claim(f"{what}: kernels a step", kernels)
                yield Claim(f"{what}: GPU busy", 100 * busy_s / step_s, "%")


def tuning(bench: Bench) -> Iterator[Claim]:
    """What it takes to let cuDNN try its kernels, and what a step gains; in processes, as each keeps its plans."""
    if bench.device != "cuda":
        yield Claim.left_out("tuning", "needs a GPU")
        return
    for name in bench.models:
        for batch_size in bench.batch_sizes:
            found = {}
            for is_tuned in (False, True):
                command = [sys.executable, "-c", TUNING, str(bench.data), str(bench.datasets), name, str(batch_size)]
                done = subprocess.run([*command, str(int(is_tuned))], capture_output=True, text=True, cwd=HERE)
                times = re.search(r"TIMES (\S+) (\S+)", done.stdout)
                if times is None:
                    yield Claim(f"{name} at {batch_size}: tuning", f"failed: {done.stderr[-200:]}", holds=False)
                    return
                found[is_tuned] = (float(times[1]), float(times[2]))
            yield Claim(f"{name} at {batch_size}: tuning takes", found[True][0] - found[False][0], "s")
            yield Claim(f"{name} at {batch_size}: kernels of a step, untuned", 1e6 * found[False][1], "us")
            yield Claim(f"{name} at {batch_size}: kernels of a step, tuned", 1e6 * found[True][1], "us")


def peers(bench: Bench) -> Iterator[Claim]:
    """Beside a plain loop of the tutorials' kind, in float32, and beside Lightning, in the precision that ours has: the
    same model, images and batches.
    """
    if not has_lightning():
        yield Claim.left_out("Lightning", "it is not installed")
    for name in bench.models:
        for batch_size in bench.batch_sizes:
            yield from beside_peers(bench, name, batch_size)


def beside_peers(bench: Bench, name: str, batch_size: int) -> Iterator[Claim]:
    case, seconds = Case(name, batch_size, {}), 0.2 if bench.is_small else SECONDS

    def begin(side: str, precision: str) -> Side:
        return Side(case, side, precision, bench.data, bench.scratch, threads=2, device=bench.device)

    running = {"ours": begin("ours", "auto"), "tutorial": begin("tutorial", "fp32")}
    if has_lightning():
        running["lightning"] = begin("lightning", running["ours"].precision)
    for side in running.values():
        side.turn(seconds)
    turns = [{side: process.turn(seconds).rate for side, process in running.items()} for _ in range(2)]
    for side in running.values():
        side.end()
    for peer in list(running)[1:]:
        ratios = [turn["ours"] / turn[peer] for turn in turns]
        yield Claim(f"{name} at {batch_size}: {peer}", turns[-1][peer], "images/s")
        at_least = None if bench.is_small else 1.0
        yield Claim(f"{name} at {batch_size}: ours beside {peer}", min(ratios), "times", at_least=at_least)


def end_of_an_epoch(bench: Bench) -> Iterator[Claim]:
    """What the end of an epoch takes: with nothing but scalars, with the defaults, and a checkpoint."""
    name = bench.models[-1]
    for what, log in (("scalars alone", NOTHING), ("histograms", NOTHING | {"histograms": True}), ("all", ALL)):
        engine = make_engine(bench, name, 128, log=log)
        run = RunPaths(bench.scratch / f"saved-{what.replace(' ', '-')}")
        with saved_loop_of(engine, bench.scratch, run) as (loop, saver):
            for _ in range(3):  # the first ones load matplotlib and the like
                for _ in zip(range(3), take_steps(engine, loop.step), strict=False):
                    pass
                engine.batch = engine.loader.num_batches
                synchronize(bench)
                began = time.perf_counter()
                loop.end_epoch()
                taken_s = time.perf_counter() - began
                saver.finish()
                saved_s = time.perf_counter() - began - taken_s
        yield Claim(f"{name}: end of an epoch, {what}", 1000 * taken_s, "ms")
    yield Claim(f"{name}: the checkpoint after it, in the background", 1000 * saved_s, "ms")


NOTHING = dict.fromkeys(("histograms", "images", "graph", "figures", "pr_curves", "embeddings"), False)
ALL = dict.fromkeys(("histograms", "figures", "pr_curves", "embeddings"), True)


def make_engine(bench: Bench, name: str, batch_size: int, **sections: dict[str, object]) -> Engine:
    spec = bench.spec(MODELS[name], batch_size=batch_size, train={"epochs": 10_000}, **sections)
    return engine_of(Spec.model_validate(spec), bench.datasets)


def steps_without_end(engine: Engine, step: Step | None = None) -> Iterator[int]:
    """By the step that a job would be trained with, unless another one is given."""
    step = step or captured_step.choose(engine, log=complain)
    while True:
        yield from take_steps(engine, step)
        engine.end_epoch()


def measured(bench: Bench, engine: Engine, steps: Iterator[int]) -> tuple[float, float]:
    """Images a second, and seconds a step."""
    for _ in range(2 if bench.is_small else 20):
        next(steps)
    synchronize(bench)
    began, images, taken = time.perf_counter(), engine.num_images, 0
    while time.perf_counter() - began < (0.2 if bench.is_small else SECONDS):
        next(steps)
        taken += 1
    synchronize(bench)
    elapsed_s = time.perf_counter() - began
    return (engine.num_images - images) / elapsed_s, elapsed_s / taken


def kernels_of_a_step(steps: Iterator[int], num: int = 10) -> tuple[float, float]:
    """Kernels, and the seconds that they compute, as PyTorch's profiler sees them; copies are none."""
    for _ in range(3):
        next(steps)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(num):
            next(steps)
        torch.cuda.synchronize()
    events = [event for event in profiler.events() or [] if event.device_type == DeviceType.CUDA]
    kernels = [event for event in events if not event.name.startswith(NO_KERNELS)]
    return len(kernels) / num, sum(event.device_time for event in kernels) / 1e6 / num


def count_waits(do: Callable[[], object]) -> Counter[str]:
    """How often the GPU is waited for, and by which line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        do()
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{w.filename.split('/pipeline/')[-1].split('site-packages/')[-1]}:{w.lineno}" for w in caught]
    return Counter(
        place for place, warning in zip(places, caught, strict=True) if "called a synchronizing" in str(warning.message)
    )


def synchronize(bench: Bench) -> None:
    if bench.device == "cuda":
        torch.cuda.synchronize()
