"""Sweeps whose workers, drivers and trials are killed at random moments, alone and all at once.

Workers and drivers are real; a trial is a shell that leaves an epoch every tenth of a second. Whatever was killed, each
sweep ends with all its trials, each of them told once of one job.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults
import small_sweeps

from attack import invariants
from attack.campaign import Case, Scale
from pipeline.cli.control import cancel_each
from pipeline.errors import QueueError
from pipeline.home.paths import Home
from pipeline.queue import repair, sweeps
from pipeline.queue.job_queue import Queue

DRAIN_S = 240.0
STRIKES = 6  # at most, on a sweep
PAUSE_S = 3.0  # between two of them, at most; a driver takes a second or more to begin
MAX_CALLS = 40  # of the system, before one of which `cancel` is killed
EPOCHS = 4
WORKER = f"import sys; sys.path.insert(0, {str(Path(small_sweeps.__file__).parent)!r})"
WORKER += """
import small_sweeps
from pipeline.cli import main
from pipeline.home import durable
from pipeline.queue import back_off, refusals
from pipeline.worker import background_reports, repairs, worker
from pipeline.worker.executors import local
background_reports.BackgroundReports.ask = lambda self, job_id: None
back_off.BACK_OFF_S = (0.1,)
worker.TICK_S, refusals.PASS_OVER_S, repairs.EVERY_S = 0.05, 0.3, 0.3
command = local.LocalExecutor.command
def shell(self, claim, alive_fd):
    if claim.is_sweep:
        return command(self, claim, alive_fd)
    run, number, lines = self.home.run(claim.id).root, claim.attempts.number, []
    for epoch in range(1, claim.ticket.spec["train"]["epochs"] + 1):
        metrics = {"val/accuracy": small_sweeps.accuracy(claim.ticket.spec, epoch)}
        text = durable.to_json({"epoch": epoch, "step": epoch, "metrics": metrics}).decode()
        lines += ["sleep 0.1", f"printf '%s\\\\n' '{text}' >> {run}/epochs.jsonl"]
    result = durable.to_json({"attempt": number, "outcome": "succeeded", "why": "trained", "metrics": metrics}).decode()
    lines += [f"printf '%s' '{result}' > {run}/.made", f"mv {run}/.made {run}/result.json"]
    return ["sh", "-c", "; ".join(["test -e {0}/result.json && echo >> {0}/twice".format(run), *lines])]
local.LocalExecutor.command = shell
main.main()
"""


@dataclass
class Fleet:
    """A home with workers of its own."""

    home: Home
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home.root / "workers.log").open("ab") as log:
            command = [sys.executable, "-c", WORKER, "--home", str(self.home.root), "worker", *arguments]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def workers(self) -> list[int]:
        self.processes = [process for process in self.processes if process.poll() is None]
        return [process.pid for process in self.processes]

    def others(self, *, drivers: bool) -> list[int]:
        """The processes of drivers, or of trials, by their command lines."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = entry.read_bytes()
                is_ours = str(self.home.root).encode() in line and int(entry.parent.name) not in self.workers()
                if is_ours and (b"pipeline.search.attempt" in line) == drivers:
                    found.append(int(entry.parent.name))
        return found

    def log(self) -> str:
        return (self.home.root / "workers.log").read_text(errors="replace")[-1500:]

    def close(self) -> None:
        kill([*self.workers(), *self.others(drivers=True), *self.others(drivers=False)])
        for process in self.processes:
            process.wait()


def kill(processes: list[int], number: int = signal.SIGKILL) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def search_for(chance: random.Random) -> dict[str, Any]:
    sampler = chance.choice(["random", "tpe", "grid"])
    space = dict(small_sweeps.SPACE)
    if sampler == "grid":
        space = {small_sweeps.LR: [0.01, 0.1, 0.001, 1.0, 1e-5], "train.seed": [0, 1]}
    return {
        "sampler": sampler,
        "pruner": chance.choice(["none", "median", "hyperband"]),
        "trials": chance.randint(4, 9),
        "space": space,
        "epochs": EPOCHS,
        "resources": {"retries": 100},
    }


def do_cancel(root: Path, sweep_id: str) -> None:
    """As `pipeline cancel` does."""
    queue = Queue(Home(root))
    repair.cancel(queue, sweep_id)
    cancel_each(queue, sweeps.jobs_of(queue, sweep_id))


def cancel_and_retry(fleet: Fleet, sweep_id: str, chance: random.Random) -> str:
    """Cancel the sweep, killed or not; and queue it again once it has ended by that."""
    queue, at = Queue(fleet.home), chance.choice([chance.randint(1, MAX_CALLS), 10_000])
    outcome = faults.run(do_cancel, fleet.home.root, sweep_id, fault="kill", at=at)
    if outcome.error is not None and not isinstance(outcome.error, QueueError):
        raise outcome.error
    if chance.random() < 0.5:
        kill(fleet.others(drivers=True))
    deadline = time.monotonic() + DRAIN_S
    while queue.stop_request(sweep_id) and time.monotonic() < deadline:
        if not fleet.workers():
            fleet.start()
        time.sleep(0.05)
    time.sleep(chance.uniform(0, 0.5))
    while queue.tickets.state(sweep_id) == "cancelled" and time.monotonic() < deadline:
        with contextlib.suppress(QueueError):  # somebody looks whether its lease is held
            repair.retry(queue, sweep_id)
    return f"cancel{f' killed at its call {at}' if outcome.killed else ''}, and retry"


def strike(fleet: Fleet, sweep_id: str, chance: random.Random) -> str:
    kind = chance.choice(["a worker", "a driver", "a driver", "a trial", "all", "a worker asked", "cancel"])
    if kind == "cancel":
        return cancel_and_retry(fleet, sweep_id, chance)
    if kind == "all":
        kill([*fleet.workers(), *fleet.others(drivers=True), *fleet.others(drivers=False)])
    elif kind.startswith("a worker"):
        kill(fleet.workers()[:1], signal.SIGTERM if kind.endswith("asked") else signal.SIGKILL)
    else:
        kill(fleet.others(drivers=kind == "a driver")[:1])
    return kind


def carry_out(folder: Path, number: int) -> Case:
    """One sweep, from the seed of that number."""
    chance, said = random.Random(number), []
    search = search_for(chance)
    fleet = Fleet(Home(folder))
    queue = Queue(fleet.home)
    queue.create()
    sweep_id = small_sweeps.submit(queue, **search)
    try:
        for _ in range(chance.randint(1, STRIKES)):
            while len(fleet.workers()) < 2:
                fleet.start("--slots", "2")
            time.sleep(chance.uniform(0.2, PAUSE_S))
            said.append(strike(fleet, sweep_id, chance))
        kill(fleet.workers(), signal.SIGTERM)
        violations = drain(fleet) or judge(fleet.home, sweep_id)
    finally:
        fleet.close()
    what = f"sweep of seed {number}, {search['sampler']}, {search['pruner']}, struck: {'; '.join(said)}"
    return Case(what, tuple(violations))


def drain(fleet: Fleet) -> list[str]:
    """Let two workers bring it to the end; both must leave."""
    deadline = time.monotonic() + DRAIN_S
    try:
        for process in list(fleet.processes):
            process.wait(timeout=60)
        both = [fleet.start("--drain", "--slots", slots) for slots in ("1", "2")]
        codes = [process.wait(timeout=max(1.0, deadline - time.monotonic())) for process in both]
    except subprocess.TimeoutExpired:
        return [f"it does not drain in {DRAIN_S:g} s; the end of the log: {fleet.log()}"]
    return [] if codes == [0, 0] else [f"the last workers leave with {codes}; the end of the log: {fleet.log()}"]


def judge(home: Home, sweep_id: str) -> list[str]:
    queue = Queue(home)
    repair.repair(queue)
    violations = small_sweeps.check(home, sweep_id)
    for trial in small_sweeps.record_of(home, sweep_id).trials:
        end = queue.records.sound_end(trial.job)
        if end is None or end.outcome not in ("succeeded", "pruned"):
            violations.append(f"trial {trial.number} has ended as {end and (end.outcome, end.why)}")
    if queue.tickets.state(sweep_id) != "done":
        violations.append(f"the sweep is {queue.tickets.state(sweep_id)}: {queue.records.sound_end(sweep_id)}")
    violations += [f"{path} ran after its result" for path in home.runs.glob("*/twice")]
    return violations + invariants.check(home, [sweep_id]) + invariants.is_drained(home)


def attack(scale: Scale) -> Iterator[Case]:
    for number in range(scale.cases):
        folder = scale.folder / str(number)
        folder.mkdir()
        yield carry_out(folder, 1000 * scale.seed + number)
