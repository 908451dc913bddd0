"""Real trainings of some seconds that are all the same, and what must come of each, whatever was done to it.

One is left alone. All others have the same spec and seed, so they end in the same weights, optimizer and curves, bit by
bit, however often they were killed on the way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from quick import quick_spec

from attack import curves, invariants
from attack.curves import Curves
from pipeline.home.paths import Home
from pipeline.jobfile.spec import Spec
from pipeline.queue.job_queue import Queue
from pipeline.training import checkpoint

EPOCHS = 50  # of 23 steps: some seconds
DRAIN_S = 600.0
WITNESS = Path(__file__).parent / "witness"
WORKER = """
import os
from pathlib import Path
from pipeline.cli import main
from pipeline.queue import back_off, refusals
from pipeline.worker import background_reports, repairs
from pipeline.worker.executors import local
background_reports.BackgroundReports.ask = lambda self, job_id: None  # a page takes as long as a training
back_off.BACK_OFF_S = (0.1,)
refusals.PASS_OVER_S = repairs.EVERY_S = 0.5
command = local.LocalExecutor.command
def under_strace(self, claim, alive_fd):
    option = Path(os.environ["ATTACK_INJECT"]) / claim.id
    if not option.exists() or claim.attempts.number > 1:
        return command(self, claim, alive_fd)
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", f"{option}.trace", *option.read_text().split()]
    return [*strace, *command(self, claim, alive_fd)]
local.LocalExecutor.command = under_strace
main.main()
"""


def spec(epochs: int = EPOCHS) -> Spec:
    network = {"name": "vgg", "widths": [8, "M", 16, "M"], "batch_norm": True}
    return quick_spec(epochs=epochs, model=network, log={"every": 5}, resources={"retries": 100})


@dataclass
class Trainings:
    """A home with workers of its own, below a folder."""

    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = Home(self.folder / "home")
        self.witness, self.clock = self.folder / "witness", self.folder / "clock"
        self.injections = self.folder / "injections"
        self.witness.mkdir(parents=True)
        self.injections.mkdir()
        self.clock.write_text("0")
        Queue(self.home).create()

    def inject(self, job_id: str, *options: str) -> Path:
        """Have the job's first attempt run under strace with these options; where the trace is then."""
        (self.injections / job_id).write_text(" ".join(options))
        return self.injections / f"{job_id}.trace"

    def start_worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(WITNESS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        told = {"PYTHONPATH": path, "ATTACK_WITNESS": str(self.witness), "ATTACK_CLOCK": str(self.clock)}
        told["ATTACK_INJECT"] = str(self.injections)
        command = [sys.executable, "-c", WORKER, "--home", str(self.home.root), "worker", *arguments]
        with (self.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", **told},
            )
        self.workers.append(process)
        return process

    def living_workers(self) -> list[subprocess.Popen[bytes]]:
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        return self.workers

    def children(self) -> list[int]:
        """The processes that train jobs of this home; by their command line, for the queue knows no process ids."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes().split(b"\0")
                if b"pipeline.training.attempt" in words and str(self.home.root).encode() in words:
                    found.append(int(entry.parent.name))
        return found

    def drain(self) -> list[str]:
        """Let all workers go on to the end of the queue; what was wrong with that."""
        for worker in self.living_workers():
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        for child in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)
        deadline = time.monotonic() + DRAIN_S
        try:
            for worker in self.living_workers():
                worker.wait(timeout=60)
            code = self.start_worker("--drain").wait(timeout=deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            return [f"it does not drain in {DRAIN_S:g} s; the end of the log: {self.log()[-500:]}"]
        return [] if code == 0 else [f"the last worker leaves with {code}; the end of the log: {self.log()[-500:]}"]

    def log(self) -> str:
        return (self.folder / "workers.log").read_text(errors="replace")

    def twice(self) -> list[str]:
        path = self.witness / "twice"
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        for child in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


@contextlib.contextmanager
def trainings(folder: Path) -> Iterator[Trainings]:
    made = Trainings(folder)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Reference:
    """The run of a training that was left alone."""

    state: dict[str, Any]
    curves: Curves

    @classmethod
    def train(cls, folder: Path, what: Spec) -> Reference:
        with trainings(folder) as alone:
            job_id = Queue(alone.home).submit(what)
            assert alone.drain() == []
            state = checkpoint.load(alone.home.run(job_id).last)
            assert state is not None
            reference = cls(state, curves.accumulated(alone.home, job_id))
            assert curves.differences(alone.home, [job_id], reference.curves) == []
            return reference

    def violations(self, made: Trainings, job_ids: list[str]) -> list[str]:
        """What differs from it in trainings that have all ended, and what else is wrong with their home."""
        home = made.home
        found = invariants.check(home, job_ids) + invariants.is_drained(home) + made.twice()
        for job_id in job_ids:
            state = Queue(home).tickets.state(job_id)
            found += [f"{job_id} is {state}"] if state != "done" else self._differences(home, job_id)
        return found + curves.differences(home, job_ids, self.curves)

    def _differences(self, home: Home, job_id: str) -> list[str]:
        state = checkpoint.load(home.run(job_id).last) or {}
        return [f"{job_id}: {where} is not as in a training that was left alone" for where in unlike(state, self.state)]


def unlike(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two states differ, bit by bit; figures of speed and memory do not count."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(map(str, one.keys() ^ other.keys()))
        both = [key for key in one if key in other and key not in curves.MEASURED]
        return [f"{where}.{key}" for key in keys] + [
            found for key in both for found in unlike(one[key], other[key], f"{where}.{key}")
        ]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [
            found for at, pair in enumerate(zip(one, other, strict=True)) for found in unlike(*pair, f"{where}.{at}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) and one.dtype == other.dtype else [where]
    return [] if one == other or (one != one and other != other) else [where]
