"""What `status` and a worker's start take with very many jobs.

    python benchmarks/many_jobs.py [--jobs 100000] [--rounds 3] [--json]

Makes homes of as many jobs as are asked for, written as `submit` and a worker write them, but for the fsync: one where
all wait, one where all have ended, and one each of a tenth as many. Then it runs the commands as a person does, as
processes, start of the interpreter included, and reports the median of the rounds: wall time and, beside it, processor
time by the system's own account, which other programs disturb less; and for the worker its peak resident memory
(`VmHWM`) when it has claimed a job. The files are in the system's cache. It fails where a wall time or the memory is
over its target; the targets are for 100,000 jobs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.home import durable
from pipeline.home.ids import make_id
from pipeline.home.paths import Home
from pipeline.home.records import FOLDER_OF, Attempts, End, Outcome, now
from pipeline.jobfile.reading import load
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

ROOT = Path(__file__).parent.parent
PIPELINE = (sys.executable, "-m", "pipeline.cli")
JOB = ROOT / "jobs" / "digits.yaml"
OUTCOMES: tuple[Outcome, ...] = ("succeeded", "succeeded", "succeeded", "failed", "cancelled")
SECOND_REPAIR_S = 6.0  # after the first claim; a worker repairs every five seconds


@dataclass(frozen=True)
class Times:
    """Seconds."""

    wall: float
    processor: float


@dataclass
class Figure:
    """One thing that is measured, in every round."""

    name: str
    target: float
    unit: str = "s"
    values: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)  # seconds, where it is a time

    def add(self, measured: Times) -> None:
        self.values.append(measured.wall)
        self.processor.append(measured.processor)

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the homes are made (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(Path(folder), arguments.jobs, arguments.rounds)
        if arguments.json:
            print(json.dumps({figure.name: vars(figure) for figure in figures}, indent=2), flush=True)
        else:
            print_table(figures)
        print("removing the homes, which may take minutes", file=sys.stderr, flush=True)
    return 0 if all(figure.median <= figure.target for figure in figures) else 1


def measure(folder: Path, jobs: int, rounds: int) -> list[Figure]:
    waiting, ended = Home(folder / "waiting"), Home(folder / "ended")
    some_waiting, some_ended = Home(folder / "some-waiting"), Home(folder / "some-ended")
    few = jobs // 10
    homes = ((waiting, wait, jobs), (ended, end, jobs), (some_waiting, wait, few), (some_ended, end, few))
    for home, fill, number in homes:
        Queue(home).create()
        fill(home, number)
    os.sync()  # what is written back later would be in the way of what is measured
    figures = [*looks(waiting, jobs, "waiting", 3.0), *looks(ended, jobs, "ended", 3.0)]
    figures += [*looks(some_waiting, few, "waiting", 0.5), *looks(some_ended, few, "ended", 0.5)]
    claim, memory = Figure(f"worker: first claim of {jobs:,}", 3.0), Figure("worker: its memory then", 150.0, "MiB")
    start, turn = Figure(f"worker: start with {jobs:,} ended", 2.0), Figure("worker: a claim after the first", 0.5)
    for _ in range(rounds):
        for figure, command in figures:
            figure.add(times_of(command))
        times, mebibytes = first_claim(waiting)
        claim.add(times)
        memory.values.append(mebibytes)
        turn.add(turn_times(waiting))
        start.add(times_of(pipeline(ended, "worker", "--drain")))
    return [*(figure for figure, _ in figures), claim, turn, memory, start]


def looks(home: Home, jobs: int, what: str, target: float) -> Iterator[tuple[Figure, tuple[str, ...]]]:
    """The ways to look at all jobs of a home."""
    for options in ((), ("--all",), ("--json",)):
        yield Figure(" ".join(("status", *options, f"of {jobs:,} {what}")), target), pipeline(home, "status", *options)


def pipeline(home: Home, *words: str) -> tuple[str, ...]:
    return (*PIPELINE, "--home", str(home.root), *words)


def wait(home: Home, number: int) -> None:
    """Write tickets that wait."""
    spec = load(JOB)
    for nth in range(1, number + 1):
        ticket = dataclasses.replace(Ticket.new(spec), id=make_id(spec.name, nth))
        home.queue.ticket("pending", ticket.id).write_bytes(ticket.to_json())


def end(home: Home, number: int) -> None:
    """Write jobs that have ended, each with its records and a run's folder."""
    spec = load(JOB)
    metrics = {f"{part}/{what}": 0.9876543 for part in ("train", "test") for what in ("loss", "accuracy", "top5")}
    for nth in range(1, number + 1):
        outcome = OUTCOMES[nth % len(OUTCOMES)]
        ticket = dataclasses.replace(Ticket.new(spec), id=make_id(spec.name, nth))
        home.queue.ticket(FOLDER_OF[outcome], ticket.id).write_bytes(ticket.to_json())
        home.queue.job(ticket.id).mkdir()
        home.run(ticket.id).root.mkdir()
        attempts = Attempts([{"started_at": now(), "worker": "bench", "finished_at": now(), "outcome": outcome}])
        home.queue.attempts(ticket.id).write_bytes(durable.to_json(attempts.to_json()))
        figures = (1, outcome, "trained for 20 epochs", 20, 20, 4600, metrics, now(), now())
        ended = End(*figures, ticket.id, ticket.name, ticket.priority, ticket.submitted_at)
        home.queue.end(ticket.id).write_bytes(durable.to_json(ended.to_json()))


def times_of(command: tuple[str, ...]) -> Times:
    """Of a process, from its start to its end. Raises RuntimeError where it fails."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exits with {process.returncode}")
    return Times(time.monotonic() - begun, usage.ru_utime + usage.ru_stime)


def first_claim(home: Home) -> tuple[Times, float]:
    """Until a worker has its first job; and its peak memory in MiB by the end of its second repair."""
    begun = time.monotonic()
    worker = subprocess.Popen(pipeline(home, "worker"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(home.queue.state("running").iterdir()):
            time.sleep(0.01)
        times = Times(time.monotonic() - begun, processor_seconds(worker.pid))
        time.sleep(SECOND_REPAIR_S)
        memory = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{worker.pid}/status").read_text(), re.M)
        return times, int(memory[0]) / 1024
    finally:
        worker.terminate()  # it queues its job again
        worker.wait()


def processor_seconds(process: int) -> float:
    """Of a process that runs, user and system, to a hundredth."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def turn_times(home: Home) -> Times:
    """Of a claim that is not the first: what each job costs, and each turn of the loop while nothing can be claimed."""
    queue, walls, processor = Queue(home), [], []
    for _ in range(6):
        begun, before = time.monotonic(), time.process_time()
        claim = queue.claim("bench")
        walls.append(time.monotonic() - begun)
        processor.append(time.process_time() - before)
        assert isinstance(claim, Claim)
        queue.tickets.move(claim.id, "running", "pending")
        claim.lease.release()
    return Times(statistics.median(walls[1:]), statistics.median(processor[1:]))


def print_table(figures: list[Figure]) -> None:
    width = max(len(figure.name) for figure in figures)
    print(f"{'':{width}}  {'median':>10}  {'at most':>10}  {'processor':>9}  range")
    for figure in figures:
        cells = [f"{value:.2f} {figure.unit}" for value in (figure.median, figure.target)]
        processor = f"{statistics.median(figure.processor):.2f} s" if figure.processor else ""
        missed = "" if figure.median <= figure.target else "  MISSED"
        span = f"{min(figure.values):.2f} to {max(figure.values):.2f}"
        print(f"{figure.name:{width}}  {cells[0]:>10}  {cells[1]:>10}  {processor:>9}  {span}{missed}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
