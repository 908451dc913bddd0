"""The time that a sweep takes, with one worker and with two, beside Optuna's own loop over the same trials.

    python benchmarks/sweep.py [--trials 40] [--epochs 20] [--rounds 1] [--sides peer,1-worker,2-workers] [--json]

A sweep of `jobs/digits.yaml` over learning rate, weight decay and label smoothing, by TPE; none of them changes how
long a training takes. Each side has a home of its own in a temporary folder, and is timed from the start of its first
process to the end of its last one; where there are rounds, the sides take turns in them, and ratios are taken within
each round.

- *peer*: `benchmarks/optuna_peer.py`: `study.optimize` in one process, which trains with the same engine, logging and
  checkpoints, torch's own number of threads, and the environment that a worker gives its attempts.
- *peer-1-thread*: the same with `OMP_NUM_THREADS=1`. *peer-plain*: in the environment of whoever runs this.
- *1-worker*, *2-workers*: as many `pipeline worker --drain`, which run each trial as a process and write its report.
- *2-workers-1-thread*: the same with one thread each. *2-slots*: one `pipeline worker --drain --slots 2`.

Beside the wall time stand the processor time of the side's processes, which other programs disturb less, and what these
took of the processors. It fails where two workers do not beat the peer. Precision is fp32 for all sides, as what `auto`
chooses is measured, and programs that come and go make it another one from trial to trial; `--precision auto` has it.
`--log nothing` leaves out all that is logged beside scalars, for all sides alike; by default it is a job's default.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from throughput import busy_seconds, describe

from pipeline.home.paths import Home
from pipeline.queue.job_queue import Queue
from pipeline.worker.executors.local import child_environment

ROOT = Path(__file__).parent.parent
JOB = ROOT / "jobs" / "digits.yaml"
PEER = Path(__file__).with_name("optuna_peer.py")
PIPELINE = (sys.executable, "-m", "pipeline.cli")
SPACE = {
    "train.optimizer.lr": {"from": 1e-4, "to": 1e-1, "log": True},
    "train.optimizer.weight_decay": {"from": 1e-5, "to": 1e-1, "log": True},
    "train.label_smoothing": {"from": 0.0, "to": 0.2},
}
NOTHING = dict.fromkeys(("histograms", "images", "graph", "figures", "pr_curves", "embeddings"), False)
PARTS = ("process", "loads", "trains", "leaves")  # of a trial: "process" and "leaves" are known to a worker
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Side:
    """workers: how many; none of the peer. environment: set for all processes of the side."""

    workers: int
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None


SIDES = {
    "peer": Side(0, environment=child_environment()),
    "peer-1-thread": Side(0, environment={**child_environment(), **ONE_THREAD}),
    "peer-plain": Side(0),
    "1-worker": Side(1),
    "2-workers": Side(2),
    "2-workers-1-thread": Side(2, environment=ONE_THREAD),
    "2-slots": Side(1, options=("--slots", "2")),
}


@dataclass(frozen=True)
class Turn:
    """Of a side: seconds, the share of the processors that other programs took, and a trial's parts (medians)."""

    wall: float
    processor: float
    others: float
    parts: dict[str, float]


def main() -> int:
    arguments = parse()
    conditions = describe(len(os.sched_getaffinity(0)))
    conditions["versions"] += f", optuna {importlib.metadata.version('optuna')}"
    if not arguments.json:
        print("\n".join(f"{key:8} {value}" for key, value in conditions.items()), flush=True)
        print(f"{'sweep':8} {arguments.trials} trials of {arguments.epochs} epochs, {arguments.precision}", flush=True)
    rounds: list[dict[str, Turn]] = []
    for number in range(arguments.rounds):
        rounds.append({})
        for name in arguments.sides:
            turn = rounds[-1][name] = take_turn(SIDES[name], arguments)
            took = f"{turn.wall:.0f} s, {turn.processor:.0f} s of processor time; others took {turn.others:.0%}"
            print(f"round {number + 1}: {name}: {took}", file=sys.stderr, flush=True)
    if arguments.json:
        found = [{name: asdict(turn) for name, turn in turns.items()} for turns in rounds]
        print(json.dumps({**conditions, "trials": arguments.trials, "epochs": arguments.epochs, "rounds": found}))
    else:
        print_tables(rounds, arguments.sides)
    return 0 if is_met(rounds) is not False else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=40, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="of a trial (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each side (default: %(default)s)")
    parser.add_argument("--sides", default="peer,1-worker,2-workers", help=f"some of {', '.join(SIDES)}")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--log", default="default", choices=["default", "nothing"], help="beside scalars")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.sides = arguments.sides.split(",")
    if unknown := set(arguments.sides) - set(SIDES):
        parser.error(f"no such side: {', '.join(sorted(unknown))}; there are {', '.join(SIDES)}")
    return arguments


# A turn of a side


def take_turn(side: Side, arguments: argparse.Namespace) -> Turn:
    with tempfile.TemporaryDirectory() as folder:
        home, sweep = Home(Path(folder) / "home"), Path(folder) / "sweep.yaml"
        sweep.write_text(yaml.safe_dump(sweep_of(arguments)))
        if side.workers:
            submit = (*PIPELINE, "--home", str(home.root), "submit", "--quiet", str(sweep))
            subprocess.run(submit, capture_output=True, check=True)
            commands = [(*PIPELINE, "--home", str(home.root), "worker", "--drain", *side.options)] * side.workers
        else:
            home.root.mkdir()
            commands = [(sys.executable, str(PEER), str(home.root), str(sweep))]
        busy, began = busy_seconds(), time.perf_counter()
        processor = run_together(commands, {**os.environ, **(side.environment or {})}, Path(folder) / "said")
        wall = time.perf_counter() - began
        others = max(0.0, busy_seconds() - busy - processor) / wall / (os.cpu_count() or 1)
        return Turn(wall, processor, others, parts_of_trials(home, arguments.trials))


def sweep_of(arguments: argparse.Namespace) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(JOB.read_text())
    tree["train"] |= {"epochs": arguments.epochs, "precision": arguments.precision}
    tree["train"]["optimizer"]["lr"] = float(tree["train"]["optimizer"]["lr"])  # 3e-3 is text to PyYAML
    tree["log"] |= NOTHING if arguments.log == "nothing" else {}
    return {**tree, "search": {"trials": arguments.trials, "sampler": "tpe", "space": SPACE}}


def run_together(commands: Sequence[tuple[str, ...]], environment: dict[str, str], said: Path) -> float:
    """Returns the processor seconds of all, with those they have waited for. Raises RuntimeError where one fails."""
    with said.open("wb") as output:
        running = [subprocess.Popen(each, stdout=output, stderr=output, env=environment) for each in commands]
    seconds = 0.0
    for process in running:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds += usage.ru_utime + usage.ru_stime
    if failed := [process for process in running if process.returncode]:
        raise RuntimeError(f"{failed[0].args} exits with {failed[0].returncode}:\n{said.read_text()[-2000:]}")
    return seconds


def parts_of_trials(home: Home, trials: int) -> dict[str, float]:
    """Where a trial's time went, by its records: medians in seconds. Raises RuntimeError where trials are missing."""
    found = [parts for folder in sorted(home.runs.iterdir()) if (parts := parts_of(home, folder.name))]
    if len(found) != trials:
        raise RuntimeError(f"{len(found)} of {trials} trials have trained")
    return {part: statistics.median(each[part] for each in found) for part in PARTS if part in found[0]}


def parts_of(home: Home, run_id: str) -> dict[str, float]:
    """Of a run; nothing of the sweep itself, which has no manifest."""
    run = home.run(run_id)
    if not run.manifest.exists():
        return {}
    result, manifest = json.loads(run.result.read_text()), json.loads(run.manifest.read_text())
    loaded = manifest["attempts"][-1]["started_at"]
    parts = {"loads": between(result["started_at"], loaded), "trains": between(loaded, result["finished_at"])}
    queue = Queue(home)
    if not queue.paths.attempts(run_id).exists():
        return parts
    claim = queue.attempts(run_id).latest
    parts["process"] = between(claim["started_at"], result["started_at"])
    parts["leaves"] = between(result["finished_at"], claim["finished_at"])
    return parts


def between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


# What was found


def ratios(rounds: Sequence[Mapping[str, Turn]], one: str, other: str) -> list[float]:
    """How many times as long one side took as the other, in each round that has both."""
    return [turns[one].wall / turns[other].wall for turns in rounds if one in turns and other in turns]


def is_met(rounds: Sequence[Mapping[str, Turn]]) -> bool | None:
    """Whether two workers beat the peer; None where one of them was not measured."""
    found = ratios(rounds, "peer", "2-workers")
    return statistics.median(found) > 1 if found else None


def print_tables(rounds: Sequence[Mapping[str, Turn]], sides: Sequence[str]) -> None:
    width = max(map(len, sides))
    print(
        f"\n{'side':{width}}  {'seconds':>8}  {'processor':>9}  {'others':>6}  {'to the peer':>20}  {'to 1-worker':>20}"
    )
    for name in sides:
        turns = [each[name] for each in rounds]
        wall, processor = (statistics.median(getattr(turn, what) for turn in turns) for what in ("wall", "processor"))
        others = max(turn.others for turn in turns)
        times = [span(ratios(rounds, name, other)) for other in ("peer", "1-worker")]
        print(f"{name:{width}}  {wall:6.0f} s  {processor:7.0f} s  {others:6.0%}  {times[0]:>20}  {times[1]:>20}")
    print(f"\n{'a trial':{width}}" + "".join(f"  {part:>9}" for part in PARTS))
    for name in sides:
        print(f"{name:{width}}" + "".join(f"  {cell:>9}" for cell in part_cells([each[name] for each in rounds])))
    print("\n" + verdict(rounds))


def span(found: Sequence[float]) -> str:
    if not found:
        return "-"
    median = f"{statistics.median(found):.2f}"
    return median if len(found) == 1 else f"{median} ({min(found):.2f}-{max(found):.2f})"


def part_cells(turns: Sequence[Turn]) -> Iterator[str]:
    for part in PARTS:
        known = [turn.parts[part] for turn in turns if part in turn.parts]
        yield f"{statistics.median(known):.2f} s" if known else "-"


def verdict(rounds: Sequence[Mapping[str, Turn]]) -> str:
    met = is_met(rounds)
    if met is None:
        return "two workers beside the peer: not measured"
    return f"two workers beat the peer: {'met' if met else 'NOT MET'}"


if __name__ == "__main__":
    sys.exit(main())
