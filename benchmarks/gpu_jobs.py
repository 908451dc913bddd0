"""Part B, and the start: whole jobs, by real workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from claims import Claim
from engines import engine_of, saved_loop_of
from gpu_speed import NOTHING, synchronize
from sides import MODELS

from pipeline.home.paths import Home
from pipeline.home.records import End, Progress
from pipeline.jobfile.spec import Spec
from pipeline.queue.job_queue import Queue
from pipeline.training import checkpoint
from pipeline.worker.executors.local import child_environment

if TYPE_CHECKING:
    from gpu import Bench

TRAINING = "pipeline.training.attempt"
TIME_LIMIT_S = 300.0
FIRST_STEP = """
import os, time
from pathlib import Path
import torch
imported_at = time.time()
from pipeline.home.paths import Home
from pipeline.jobfile.spec import Spec
from pipeline.cli.foreground import train_here
from pipeline.training.step import EagerStep
take = EagerStep.__call__
def first(self, batches, **options):
    take(self, batches, **options)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    started_at = time.time() - float(Path("/proc/uptime").read_text().split()[0]) + ticks
    print("TIMES", imported_at - started_at, time.time() - imported_at, flush=True)
    os._exit(0)
EagerStep.__call__ = first
import sys
train_here(Home(Path(sys.argv[1])), Spec.model_validate_json(sys.argv[2]), echo=print)
"""


@dataclass
class Jobs:
    """A home of its own, and what is done to it."""

    home: Home

    @classmethod
    def of(cls, bench: Bench, name: str) -> Jobs:
        """The datasets that were decoded are shared by all homes."""
        home = Home(bench.scratch / name)
        Queue(home).create()
        bench.datasets.mkdir(exist_ok=True)
        home.datasets.symlink_to(bench.datasets)
        return cls(home)

    def submit(self, spec: Spec | dict[str, Any]) -> str:
        return Queue(self.home).submit(spec if isinstance(spec, Spec) else Spec.model_validate(spec))

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipeline.cli", "--home", str(self.home.root), "worker", "--drain", *options]
        with (self.home.root / "worker.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, job_id: str) -> End | None:
        return Queue(self.home).records.recorded_end(job_id)

    def wait_for(self, job_id: str, step: int) -> Progress:
        """Wait until a job has taken so many steps, or has ended."""
        deadline = time.monotonic() + TIME_LIMIT_S
        while time.monotonic() < deadline:
            progress = Progress.glance(self.home.run(job_id).progress)
            if self.end(job_id) is not None or (progress is not None and progress.step >= step):
                return progress or Progress(0)
            time.sleep(0.05)
        raise TimeoutError(f"{job_id} did not come to step {step}")

    def training_process(self, job_id: str) -> int:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if TRAINING in words and job_id in words:
                return int(entry.parent.name)
        raise LookupError(f"{job_id} is not being trained")

    def weights(self, job_id: str) -> dict[str, torch.Tensor]:
        state = checkpoint.load(self.home.run(job_id).last)
        return {} if state is None else dict(state["model"])

    def log(self, job_id: str) -> str:
        return "".join(path.read_text() for path in self.home.run(job_id).logs())

    def outcome(self, job_id: str) -> str:
        return self.said(job_id).partition(":")[0]

    def said(self, job_id: str) -> str:
        end = self.end(job_id)
        return "did not end" if end is None else f"{end.outcome}: {end.why}"


def start(bench: Bench) -> Iterator[Claim]:
    """From the start of a process to the end of its first step, on a dataset that was decoded before."""
    jobs = Jobs.of(bench, "start")
    for name in bench.models:
        spec = Spec.model_validate(bench.spec(MODELS[name], train={"epochs": 2}))
        engine_of(spec, bench.datasets)  # decodes
        command = [sys.executable, "-c", FIRST_STEP, str(jobs.home.root), spec.model_dump_json()]
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
        times = re.search(r"TIMES (\S+) (\S+)", done.stdout)
        if times is None:
            yield Claim(f"{name}: start", f"failed: {done.stderr.strip()[-200:]}", holds=False)
            continue
        yield Claim(f"{name}: from the process's start until torch is imported", float(times[1]), "s")
        limit = None if bench.is_small else 1.5
        yield Claim(f"{name}: from there to the end of the first step", float(times[2]), "s", at_most=limit)


def kills(bench: Bench) -> Iterator[Claim]:
    """A worker that is asked to stop, and one that is killed with its job: the job ends as one that is left alone."""
    jobs, name = Jobs.of(bench, "kills"), bench.models[0]
    epochs = 60 if bench.is_small else 4  # long enough to be killed in
    spec = bench.spec(MODELS[name], train={"epochs": epochs, "deterministic": True}, log=NOTHING)
    alone = jobs.submit(spec)
    jobs.worker().wait()
    disturbed = jobs.submit(spec)
    steps = (Progress.glance(jobs.home.run(alone).progress) or Progress(0)).steps or 8
    for how, at in ((signal.SIGTERM, steps // 4), (signal.SIGKILL, steps // 2)):
        worker = jobs.worker()
        jobs.wait_for(disturbed, at)
        if how == signal.SIGKILL and jobs.end(disturbed) is None:
            os.kill(jobs.training_process(disturbed), signal.SIGKILL)
        worker.send_signal(how)
        worker.wait()
    jobs.worker().wait()
    attempts = len(jobs.home.run(disturbed).logs())
    yield Claim("SIGTERM, SIGKILL and resume", f"{attempts} attempts", holds=attempts == 3)
    theirs, ours = jobs.weights(alone), jobs.weights(disturbed)
    same = bool(theirs) and ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    yield Claim("weights are those of the job left alone, bit for bit", "yes" if same else "no", holds=same)
    for job_id in (alone, disturbed):
        outcome = jobs.outcome(job_id)
        yield Claim("and it ended so", outcome, holds=outcome == "succeeded")


def two_jobs_together(bench: Bench) -> Iterator[Claim]:
    """Two jobs on one GPU at the same time, beside one after the other."""
    jobs, took_s = Jobs.of(bench, "together"), {}
    for slots in (1, 2):
        ids = [jobs.submit(bench.spec(MODELS[bench.models[0]], train={"epochs": 4}, log=NOTHING)) for _ in range(2)]
        began = time.monotonic()
        jobs.worker("--slots", str(slots)).wait()
        took_s[slots] = time.monotonic() - began
        for job_id in ids:
            outcome = jobs.outcome(job_id)
            yield Claim(f"of two jobs, {slots} at a time", outcome, holds=outcome == "succeeded")
    yield Claim("two jobs together, beside one after the other", took_s[2] / took_s[1], "times as long")


def no_memory(bench: Bench) -> Iterator[Claim]:
    """A job that does not fit on the GPU fails by a line that helps, and the next one trains."""
    if bench.device != "cuda":
        yield Claim.left_out("a job that is too large", "needs a GPU")
        return
    jobs = Jobs.of(bench, "no_memory")
    large = bench.spec(MODELS["vgg11_bn"], batch_size=50_000, train={"precision": "fp32"})
    large["data"]["image_size"] = 64
    too_large, fine = jobs.submit(large), jobs.submit(bench.spec(MODELS["net"], log=NOTHING))
    jobs.worker().wait()
    said = jobs.said(too_large)
    yield Claim("a job that is too large", said[:60], holds="out of memory" in said and "batch_size" in said)
    yield Claim("and the one after it", jobs.outcome(fine), holds=jobs.outcome(fine) == "succeeded")


def streamed(bench: Bench) -> Iterator[Claim]:
    """Images that are read from files in every epoch."""
    jobs = Jobs.of(bench, "streamed")
    spec = bench.spec(MODELS["net"], train={"epochs": 2}, log=NOTHING)
    files = {"name": "image_folder", "path": str(bench.data), "in_memory": "never"}
    spec["data"] = files | {"batch_size": spec["data"]["batch_size"], "augment": ("crop", "flip")}
    job_id = jobs.submit(spec)
    jobs.worker().wait()
    yield Claim("images from files", jobs.outcome(job_id), holds=jobs.outcome(job_id) == "succeeded")
    rates = re.findall(r"([\d,]+) images/s", jobs.log(job_id))
    yield Claim("and so many are read", float(rates[-1].replace(",", "")) if rates else 0.0, "images/s")


def logging_cost(bench: Bench) -> Iterator[Claim]:
    """A job with the default `log` section beside one that logs scalars alone, each with its checkpoints."""
    name, epochs = bench.models[-1], 2 if bench.is_small else 8
    seconds: dict[str, list[float]] = {"nothing": [], "defaults": []}
    for number in range(2 if bench.is_small else 4):
        which = ("nothing", "defaults")[number % 2]
        spec = bench.spec(MODELS[name], train={"epochs": epochs}, log=NOTHING if which == "nothing" else {})
        engine = engine_of(Spec.model_validate(spec), bench.datasets)
        folder = bench.scratch / f"logging-{number}"
        folder.mkdir()
        with saved_loop_of(engine, bench.scratch, Home(folder).run("run")) as (loop, saver):
            synchronize(bench)
            began = time.perf_counter()
            loop.train()
            saver.finish()
            seconds[which].append(time.perf_counter() - began)
    without, with_all = min(seconds["nothing"]), min(seconds["defaults"])
    yield Claim(f"{name}, {epochs} epochs with scalars alone", without, "s")
    limit = None if bench.is_small else 5.0
    yield Claim(f"{name}: the default log section costs", 100 * (with_all / without - 1), "%", at_most=limit)
