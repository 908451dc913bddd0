"""kill -9 and refusals at each call of the system that an operation of the queue makes, by strace.

Each case: a home as it was before, the operation in a process of its own with one fault, the invariants as they are
then, the next worker's repair, all that waits carried out, and the invariants again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quick import quick_spec

from attack import invariants, stand_in, strace
from attack.campaign import Case, Scale
from attack.strace import Act, Outcome
from pipeline.home.paths import Home
from pipeline.home.records import Outcome as JobOutcome
from pipeline.home.records import Result
from pipeline.queue import repair
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue

RETRIES = 5  # more than a case kills attempts


def submitted(queue: Queue) -> str:
    return queue.submit(quick_spec(resources={"retries": RETRIES}))


def failed(queue: Queue) -> str:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    stand_in.take_turn(queue, "failed")
    return job_id


def waits_for_retry(queue: Queue) -> str:
    job_id = submitted(queue)
    stand_in.take_turn(queue, "lost")
    queue.paths.wait(job_id).unlink()  # its time has come
    return job_id


def abandoned(queue: Queue) -> str:
    submitted(queue)
    return stand_in.abandon(queue)


def abandoned_with_result(queue: Queue) -> str:
    submitted(queue)
    return stand_in.abandon(queue, result="succeeded")


def half_settled(queue: Queue) -> str:
    """Its end is recorded; its ticket still lies in `running/`."""
    job_id = submitted(queue)
    stand_in.take_turn(queue)
    queue.tickets.move(job_id, "done", "running")
    return job_id


def cancelled_while_it_ran(queue: Queue) -> str:
    job_id = abandoned(queue)
    queue.paths.cancel_request(job_id).write_text("{}")
    return job_id


def nothing(queue: Queue) -> str:  # noqa: ARG001
    return ""


# What is done; each is prepared in the process that does it


def submit(root: str, job_id: str) -> Act:  # noqa: ARG001
    queue, specs = stand_in.queue_at(Home(Path(root))), [quick_spec("one"), quick_spec("two")]
    return lambda: queue.submit_all(specs)


def claim(root: str, job_id: str) -> Act:  # noqa: ARG001
    queue = stand_in.queue_at(Home(Path(root)))
    return lambda: (queue.claim("victim"), None)[1]


def settle(outcome: JobOutcome, root: str, job_id: str) -> Act:
    queue = stand_in.queue_at(Home(Path(root)))
    claim = queue.claim("victim")
    assert isinstance(claim, Claim)
    assert claim.id == job_id
    result = stand_in.leave_result(queue.home, claim, outcome)
    return lambda: _settle(queue, claim, result)


def _settle(queue: Queue, claim: Claim, result: Result) -> None:
    """As a worker does, which tries again with its next turn."""
    try:
        queue.settle(claim, result)
    except OSError:
        queue.settle(claim, result)
    claim.lease.release()


def succeed(root: str, job_id: str) -> Act:
    return settle("succeeded", root, job_id)


def lose(root: str, job_id: str) -> Act:
    return settle("lost", root, job_id)


def interrupt(root: str, job_id: str) -> Act:
    return settle("interrupted", root, job_id)


def cancel(root: str, job_id: str) -> Act:
    queue = stand_in.queue_at(Home(Path(root)))
    return lambda: repair.cancel(queue, job_id)


def retry(root: str, job_id: str) -> Act:
    queue = stand_in.queue_at(Home(Path(root)))
    return lambda: repair.retry(queue, job_id)


def mend(root: str, job_id: str) -> Act:  # noqa: ARG001
    queue = stand_in.queue_at(Home(Path(root)))
    return lambda: [repaired.line for repaired in repair.repair(queue)]


def save_checkpoint(root: str, job_id: str) -> Act:
    import torch

    from pipeline.training import checkpoint

    run = Home(Path(root)).run(job_id)
    run.root.mkdir(parents=True, exist_ok=True)
    state = {"position": {"step": 1}, "weights": torch.arange(50_000)}
    checkpoint.save(run, state, is_best=True)
    state["position"]["step"] = 2
    return lambda: checkpoint.save(run, state, is_best=True)


@dataclass(frozen=True)
class Operation:
    """What is there before, what is done, and what may come of it: the ends, and how many attempts at most."""

    name: str
    before: Callable[[Queue], str]
    act: Callable[[str, str], Act]
    ends: tuple[str, ...] = ("done",)
    attempts: int = 2
    then: Callable[[Home, str, Outcome], list[str]] = lambda *_: []


def is_cancelled_if_told_so(home: Home, job_id: str, outcome: Outcome) -> list[str]:
    state = Queue(home).tickets.state(job_id)
    return [f"`cancel` said that it is, and it is {state}"] if outcome.value == "cancelled" != state else []


def is_queued_if_told_so(home: Home, job_id: str, outcome: Outcome) -> list[str]:
    was_told = not outcome.killed and not outcome.error
    state = Queue(home).tickets.state(job_id)
    return [f"`retry` said that it is queued, and it is {state}"] if was_told and state != "done" else []


def is_whole_checkpoint(home: Home, job_id: str, outcome: Outcome) -> list[str]:
    from pipeline.training import checkpoint

    run, wrong, steps = home.run(job_id), [], {}
    for path in (run.last, run.best):
        state = checkpoint.load(path)
        if state is None or int(state["weights"].sum()) != 50_000 * 49_999 // 2:
            wrong.append(f"{path.name} is not whole")
        else:
            steps[path.name] = state["position"]["step"]
    if not outcome.killed and not outcome.error and steps.get("last.pt") != 2:
        wrong.append(f"it was saved without an error, and last.pt is of step {steps.get('last.pt')}")
    return wrong


OPERATIONS = (
    Operation("submit", nothing, submit, attempts=1),
    Operation("claim", submitted, claim),
    Operation("claim of a retry", waits_for_retry, claim, attempts=3),
    Operation("settle: succeeded", submitted, succeed, attempts=1),
    Operation("settle: lost", submitted, lose),
    Operation("settle: interrupted", submitted, interrupt),
    Operation("cancel", submitted, cancel, ends=("cancelled", "done"), then=is_cancelled_if_told_so),
    Operation(
        "cancel of an abandoned job", abandoned, cancel, ends=("cancelled", "done"), then=is_cancelled_if_told_so
    ),
    Operation("retry", failed, retry, ends=("failed", "done"), then=is_queued_if_told_so),
    Operation("repair: abandoned", abandoned, mend),
    Operation("repair: with a result", abandoned_with_result, mend, attempts=1),
    Operation("repair: half settled", half_settled, mend, attempts=1),
    Operation("repair: to be cancelled", cancelled_while_it_ran, mend, ends=("cancelled",), attempts=1),
    Operation("checkpoint", submitted, save_checkpoint, then=is_whole_checkpoint),
)


def attack(scale: Scale) -> Iterator[Case]:
    """All faults of all operations, or as many of them as the scale allows, by chance."""
    strace.find_strace()
    templates = {operation: Template(operation, scale.folder) for operation in OPERATIONS}
    tried = []
    for operation, template in templates.items():
        home, job_id = template.copy()
        undisturbed = strace.run(operation.act, str(home.root), job_id)
        yield Case(f"{operation.name}, undisturbed", tuple(judge(operation, home, job_id, undisturbed)))
        tried += [(operation, fault) for fault in strace.faults_for(undisturbed.calls)]
    for operation, fault in sample(tried, scale):
        home, job_id = templates[operation].copy()
        outcome = strace.run(operation.act, str(home.root), job_id, fault=fault)
        if outcome.struck:
            yield Case(f"{operation.name}: {fault}", tuple(judge(operation, home, job_id, outcome)))


def sample(tried: list[Any], scale: Scale) -> list[Any]:
    return random.Random(scale.seed).sample(tried, min(scale.cases, len(tried)))


@dataclass
class Template:
    """A home as it is before the operation, of which each case has a copy."""

    operation: Operation
    folder: Path

    def __post_init__(self) -> None:
        name = self.operation.name.replace(" ", "-").replace(":", "")
        self.source, self.target = self.folder / f"before-{name}", self.folder / f"home-{name}"
        self.job_id = self.operation.before(stand_in.queue_at(Home(self.source)))

    def copy(self) -> tuple[Home, str]:
        shutil.rmtree(self.target, ignore_errors=True)
        shutil.copytree(self.source, self.target)
        return Home(self.target), self.job_id


def judge(operation: Operation, home: Home, job_id: str, outcome: Outcome) -> list[str]:
    """What was violated, right after the operation and after the next worker."""
    violations = [outcome.error] if not outcome.is_expected else []
    told = [job_id] if job_id else []
    if operation.act is submit:
        violations += of_submit(home, outcome)
        told += outcome.value or []
    violations += [f"before repair: {line}" for line in invariants.looks(home, told)]
    violations += stand_in.drain(home)
    violations += invariants.check(home, told) + invariants.is_drained(home)
    queue = Queue(home)
    for each in told:
        state, attempts = queue.tickets.state(each), queue.attempts(each).number
        if state not in operation.ends:
            violations.append(f"{each} ends as {state}")
        if attempts > operation.attempts:
            violations.append(f"{each} has {attempts} attempts")
    violations += [f"in quarantine: {line}" for line in queue.tickets.quarantined()]
    return violations + operation.then(home, job_id, outcome)


def of_submit(home: Home, outcome: Outcome) -> list[str]:
    """Nothing is in the queue that was refused, unless the process could not take it back."""
    waiting = Queue(home).tickets.ids("pending")
    if outcome.value and set(outcome.value) != set(waiting):
        return [f"the ids {outcome.value} were told, and {waiting} wait"]
    if outcome.error and waiting:
        return [f"{outcome.error!r} was said, and {waiting} wait"]
    return []
