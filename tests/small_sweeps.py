"""Small sweeps, and workers without processes for them: with each poll of a sweep, every trial trains an epoch.

A sweep runs in this process as its own would run it, by `pipeline.search.attempt`, and may be killed by an exception.

A test module that imports `folder` from here has that fixture.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from attack.campaigns import MEMORY
from optuna.storages.journal._storage import JournalOperation
from quick import NOTHING_SHOWN

from pipeline.home import durable, epoch_record
from pipeline.home.paths import STATES, Home
from pipeline.home.records import Outcome, Progress, Result
from pipeline.home.sweep_record import SweepRecord
from pipeline.jobfile.spec import Spec
from pipeline.queue import repair
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket
from pipeline.search import attempt
from pipeline.stop import Stop
from pipeline.worker.running_job import prepare_run
from pipeline.worker.verdicts import judge

EPOCHS = 3  # of a trial
LR, OPTIMIZER = "train.optimizer.lr", "train.optimizer.name"
SPACE: dict[str, Any] = {LR: {"from": 1e-4, "to": 1e-1, "log": True}, OPTIMIZER: ["sgd", "adamw"]}
TURNS = 2000  # polls of a sweep, after which it has got stuck
_OUTCOMES = {"succeeded": "COMPLETE", "pruned": "PRUNED"}
_STATES = ["RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where the system has such a folder: a sweep waits for the disk some hundred times."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path, prefix="sweep-") as name:
        yield Path(name)


def written(
    *, name: str = "sweep", epochs: int = EPOCHS, resources: Mapping[str, Any] | None = None, **search: Any
) -> dict[str, Any]:
    """The job file of a sweep, as plain data. search: its fields, laid over three trials at random."""
    return {
        "name": name,
        "model": {"name": "cnn_bn"},
        "data": {"name": "digits", "batch_size": 64},
        "train": {"epochs": epochs, "optimizer": {"name": "sgd", "lr": 0.1}},
        "log": {**NOTHING_SHOWN},
        "resources": {"device": "cpu", "retries": 5, **(resources or {})},
        "search": {"trials": 3, "sampler": "random", "space": SPACE, **search},
    }


def submit(queue: Queue, **options: Any) -> str:
    file = written(**options)
    return queue.submit(Ticket.of_sweep(Spec.model_validate_json(json.dumps(file)), file, {}))


def accuracy(spec: Mapping[str, Any], epoch: int) -> float:
    """What a trial reaches in an epoch: most in the last one, and by a learning rate of 0.01."""
    return round(math.exp(-abs(math.log10(spec["train"]["optimizer"]["lr"]) + 2)) * epoch / (epoch + 1), 6)


class Workers(Stop):
    """Looks of a sweep whether it is to stop are the turns of its trials' workers.

    ends_as: how the trial of a number ends, once it has trained. at_turn: is called with each, by its number.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        slots: int = 2,
        ends_as: Callable[[int], Outcome] = lambda _: "succeeded",
        metrics: Callable[[Mapping[str, Any], int], dict[str, float]] | None = None,
        at_turn: Callable[[int], object] = str,
    ) -> None:
        super().__init__()
        self.queue, self.slots, self.ends_as, self.at_turn = queue, slots, ends_as, at_turn
        self.metrics = metrics or (lambda spec, epoch: {"val/accuracy": accuracy(spec, epoch)})
        self.running: dict[str, Claim] = {}
        self.turns = 0

    def check(self) -> None:
        self.turns += 1
        assert self.turns < TURNS, "the sweep has got stuck"
        self.at_turn(self.turns)
        self.turn()
        super().check()

    def attempt(self) -> AbstractContextManager[None]:
        """What is around an attempt at the sweep itself."""
        return contextlib.nullcontext()

    def turn(self) -> None:
        for claim in list(self.running.values()):
            self.train(claim)
        forget_back_offs(self.queue)
        while len(self.running) < self.slots:
            claim = self.queue.claim("stand-in", with_sweeps=False)
            if claim is None:
                return
            if isinstance(claim, Claim):
                self.running[claim.id] = claim
                durable.make_folder(self.queue.home.run(claim.id).root)

    def train(self, claim: Claim) -> None:
        """An epoch, or the end."""
        run = self.queue.home.run(claim.id)
        if request := self.queue.stop_request(claim.id):
            self.settle(claim, request.outcome)
        elif (done := max(epoch_record.read(run.epochs), default=0)) < claim.ticket.spec["train"]["epochs"]:
            metrics = self.metrics(claim.ticket.spec, done + 1)
            epoch_record.append(run.epochs, epoch=done + 1, step=10 * (done + 1), metrics=metrics)
        else:
            self.settle(claim, self.ends_as(claim.ticket.trial or 0))

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        run, number = self.queue.home.run(claim.id), claim.attempts.number
        epochs = epoch_record.read(run.epochs)
        result = Result(
            number, outcome, f"{outcome}, as it was", step=10, metrics=epochs[max(epochs)] if epochs else {}
        )
        result.write(run.result)
        self.queue.settle(claim, result)
        self.let_go(claim)

    def let_go(self, claim: Claim) -> None:
        del self.running[claim.id]
        claim.lease.release()

    def die(self) -> None:
        """As all of them do that are killed with what they run."""
        for claim in list(self.running.values()):
            self.let_go(claim)


def forget_back_offs(queue: Queue) -> None:
    """Nobody waits for one here."""
    for path in queue.paths.control.glob("*.wait"):
        path.unlink(missing_ok=True)


def claim(queue: Queue, sweep_id: str) -> Claim | None:
    """Claim the sweep as a worker does; None where it ends at that, or has ended."""
    forget_back_offs(queue)
    others = []
    try:
        while (found := queue.claim("driver")) is not None:
            if isinstance(found, Ended):
                continue
            if found.id == sweep_id:
                prepare_run(queue.home.run(sweep_id), found)
                return found
            others.append(found)
    finally:
        for other in others:
            other.attempts.entries.pop()
            queue.requeue(other)
            other.lease.release()
    return None


def drive(queue: Queue, sweep_id: str, workers: Workers) -> str:
    """An attempt at the sweep, from its claim on. Returns the state of its ticket; what kills it comes through."""
    found = claim(queue, sweep_id)
    if found is None:
        return queue.tickets.state(sweep_id) or "gone"
    run, number = queue.home.run(sweep_id), found.attempts.number
    try:
        with workers.attempt():
            status = attempt.execute(queue.home, sweep_id, number, workers)
        asked = None
        if workers.why:
            request = queue.stop_request(sweep_id)
            asked = request.outcome if request else "interrupted"
        verdict = judge(
            Result.read(run.result),
            Progress.glance(run.progress),
            attempt=number,
            status=status,
            asked=asked,
            timeout_s=None,
        )
        queue.settle(found, verdict.result, lacked_room=verdict.lacked_room)
    finally:
        found.lease.release()
    return queue.tickets.state(sweep_id) or "gone"


def drive_to_the_end(queue: Queue, sweep_id: str, workers: Workers, *, attempts: int = 50) -> str:
    """Attempts at the sweep until it has ended. Returns the state of its ticket."""
    state = ""
    for _ in range(attempts):
        repair.repair(queue)
        state = drive(queue, sweep_id, workers)
        if state not in ("pending", "running"):
            return state
    return f"{state}, after {attempts} attempts"


def record_of(home: Home, sweep_id: str) -> SweepRecord:
    record = SweepRecord.read(home.run(sweep_id).trials)
    assert record is not None
    return record


def journal(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of Optuna's journal that make trials, and those that say how one ended."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ends = [line for line in lines if line["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES]
    return [line for line in lines if line["op_code"] == JournalOperation.CREATE_TRIAL], ends


def check(home: Home, sweep_id: str) -> list[str]:
    """What is violated of a sweep that was done to its end."""
    queue, record = Queue(home), record_of(home, sweep_id)
    made, ends = journal(home.run(sweep_id).study)
    numbers = list(range(record.num_trials))
    violations = []
    if (found := [trial.number for trial in record.trials]) != numbers:
        violations.append(f"its record has the trials {found}, and not {numbers}")
    if len(made) != len(numbers):
        violations.append(f"Optuna has {len(made)} trials, and not {len(numbers)}")
    if (told := sorted(line["trial_id"] for line in ends)) != numbers:
        violations.append(f"Optuna was told of the ends of {told}")
    states = [(job_id, state) for state in STATES for job_id in queue.tickets.ids(state) if job_id != sweep_id]
    if Counter(job_id for job_id, _ in states) != Counter(trial.job for trial in record.trials):
        violations.append(f"the trials are {[trial.job for trial in record.trials]}, and the jobs {states}")
    told_of = {line["trial_id"]: (_STATES[line["state"]], line["values"]) for line in ends}
    for trial in record.trials:
        end = queue.records.sound_end(trial.job)
        state, values = told_of.get(trial.number, ("nothing", None))
        if end is None or state != _OUTCOMES.get(end.outcome, "FAIL"):
            violations.append(f"trial {trial.number} has ended as {end}, and Optuna was told {state}")
        elif state == "COMPLETE":
            epochs = epoch_record.read(home.run(trial.job).epochs)
            best = max((metrics.get("val/accuracy", 0.0) for metrics in epochs.values()), default=None)
            violations += [f"trial {trial.number} came to {best}, and Optuna was told {values}"] * (values != [best])
    if left := sorted(durable.names_in(queue.paths.control)):
        violations.append(f"left in control/: {left}")
    return violations
