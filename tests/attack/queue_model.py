"""The queue against a simple model of it, in any order of moves, with kills amid some of them.

The model is each job's state and who runs it. What a kill left open, the model takes over from the disk after the next
repair, if it is one of what may have come of it.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from hypothesis import HealthCheck, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from quick import quick_spec

from attack import invariants
from attack.campaign import Case, Scale
from pipeline.errors import QueueError
from pipeline.home.paths import STATES, Home
from pipeline.home.records import FOLDER_OF, Result
from pipeline.queue import repair
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue

MOVES = 25  # of one example
MAX_CALLS = 30  # of the system, before one of which a move is killed
folders: list[Path] = []  # where examples lie, for a campaign that has one of its own
counted = itertools.count()  # moves


def queue_at(root: Path) -> Queue:
    queue = Queue(Home(root))
    queue.create()
    return queue


# Moves that are killed, in processes of their own


def do_submit(root: Path, given: Any) -> None:  # noqa: ARG001
    queue_at(root).submit_all([quick_spec()] * 2)


def do_claim(root: Path, given: Any) -> None:  # noqa: ARG001
    queue_at(root).claim("victim")


def do_settle(root: Path, outcome: Any) -> None:
    queue = queue_at(root)
    claim = queue.claim("victim")
    if isinstance(claim, Claim):
        queue.settle(claim, Result(claim.attempts.number, outcome, "because"))


def do_cancel(root: Path, job_id: str) -> None:
    repair.cancel(queue_at(root), job_id)


def do_retry(root: Path, job_id: str) -> None:
    repair.retry(queue_at(root), job_id)


def do_repair(root: Path, given: Any) -> None:  # noqa: ARG001
    repair.repair(queue_at(root))


class AnyOrder(RuleBasedStateMachine):
    """A model of the queue: each job's state, and who runs it. Crashes and repairs come in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(dir=folders[-1] if folders else None)
        self.queue = queue_at(Path(self.folder))
        self.state: dict[str, str] = {}
        self.running: dict[str, Claim] = {}
        self.cancelled: set[str] = set()

    def teardown(self) -> None:
        """Everything drains."""
        for claimed in self.running.values():
            claimed.lease.release()
        repair.repair(self.queue)
        for path in self.queue.paths.control.glob("*.wait"):
            path.unlink()
        while (claimed := self.queue.claim("last")) is not None:
            if isinstance(claimed, Claim):
                self.queue.settle(claimed, Result(claimed.attempts.number, "succeeded", "because"))
                claimed.lease.release()
        assert invariants.is_drained(self.queue.home) + invariants.check(self.queue.home, list(self.state)) == []
        shutil.rmtree(self.folder)

    def pick(self, *states: str) -> str | None:
        return next((job_id for job_id, state in self.state.items() if state in states), None)

    @rule(priority=st.integers(-1000, 1000), retries=st.integers(0, 2))
    def submit(self, priority: int, retries: int) -> None:
        self.state[self.queue.submit(quick_spec(resources={"priority": priority, "retries": retries}))] = "pending"

    @rule()
    def claim(self) -> None:
        for path in self.queue.paths.control.glob("*.wait"):
            path.unlink()
        claimed = self.queue.claim("worker")
        assert (claimed is None) == (self.pick("pending") is None)
        if isinstance(claimed, Claim):
            assert self.state[claimed.id] == "pending"
            self.state[claimed.id], self.running[claimed.id] = "running", claimed
        elif claimed is not None:
            assert claimed.id in self.cancelled, "only what is cancelled ends without being run"
            self.cancelled.discard(claimed.id)
            self.state[claimed.id] = "cancelled"

    @rule(outcome=st.sampled_from([*FOLDER_OF, "interrupted"]))
    def settle(self, outcome: Any) -> None:
        if self.running:
            job_id, claimed = self.running.popitem()
            self.queue.settle(claimed, Result(claimed.attempts.number, outcome, "because"))
            self.state[job_id] = self.queue.tickets.state(job_id) or "nowhere"
            if job_id in self.cancelled and outcome not in ("succeeded", "failed"):
                assert self.state[job_id] == "cancelled"
            self.cancelled.discard(job_id)
            claimed.lease.release()

    @rule()
    def kill_a_worker_and_repair(self) -> None:
        if self.running:
            job_id, claimed = self.running.popitem()
            os.close(claimed.lease.fd)
            repair.repair(self.queue)
            self.state[job_id] = self.queue.tickets.state(job_id) or "nowhere"
            assert self.state[job_id] in (["cancelled"] if job_id in self.cancelled else ["pending", "failed"])
            self.cancelled.discard(job_id)

    @rule(which=st.sampled_from(STATES))
    def cancel(self, which: str) -> None:
        job_id = self.pick(which)
        if job_id is None:
            return
        if which == "pending":
            assert repair.cancel(self.queue, job_id) == "cancelled"
            self.state[job_id] = "cancelled"
            self.cancelled.discard(job_id)
        elif which == "running":
            assert repair.cancel(self.queue, job_id) == "stopping"
            self.cancelled.add(job_id)
        else:
            with pytest.raises(QueueError):
                repair.cancel(self.queue, job_id)

    @rule(which=st.sampled_from(STATES))
    def retry(self, which: str) -> None:
        job_id = self.pick(which)
        if job_id is None:
            return
        if which in ("failed", "cancelled"):
            repair.retry(self.queue, job_id)
            self.state[job_id] = "pending"
            self.cancelled.discard(job_id)
        else:
            with pytest.raises(QueueError):
                repair.retry(self.queue, job_id)

    @rule(at=st.integers(1, MAX_CALLS))
    def submit_killed(self, at: int) -> None:
        self.crash(do_submit, None, at, {})
        new = {job_id for state in STATES for job_id in self.queue.tickets.ids(state)} - self.state.keys()
        assert len(new) <= 2
        self.state.update(dict.fromkeys(new, "pending"))

    @rule(at=st.integers(1, MAX_CALLS))
    def claim_killed(self, at: int) -> None:
        self.crash(do_claim, None, at, {"pending": {"pending", "failed", "cancelled"}})

    @rule(at=st.integers(1, 2 * MAX_CALLS), outcome=st.sampled_from([*FOLDER_OF, "interrupted"]))
    def settle_killed(self, at: int, outcome: Any) -> None:
        self.crash(
            do_settle, outcome, at, {"pending": {"pending", "failed", "cancelled", FOLDER_OF.get(outcome, "pending")}}
        )

    @rule(at=st.integers(1, MAX_CALLS))
    def cancel_killed(self, at: int) -> None:
        if (job_id := self.pick("pending")) is not None:
            self.crash(do_cancel, job_id, at, {"pending": {"pending", "failed", "cancelled"}})

    @rule(at=st.integers(1, MAX_CALLS))
    def retry_killed(self, at: int) -> None:
        if (job_id := self.pick("failed", "cancelled")) is not None:
            was = self.state[job_id]
            self.crash(do_retry, job_id, at, {was: {was, "pending"}})

    @rule(at=st.integers(1, MAX_CALLS))
    def repair_killed(self, at: int) -> None:
        self.crash(do_repair, None, at, {})

    def crash(self, move: Callable[[Path, Any], None], given: Any, at: int, may_become: dict[str, set[str]]) -> None:
        """Kill a move before its n-th call, repair, and take over what became of the jobs, if that may be."""
        outcome = faults.run(move, Path(self.folder), given, fault="kill", at=at)
        assert outcome.error is None or isinstance(outcome.error, (QueueError, OSError)), outcome.error
        repair.repair(self.queue)
        for job_id, was in self.state.items():
            found = self.queue.tickets.state(job_id) or "nowhere"
            assert found == was or found in may_become.get(was, ()), f"{job_id} was {was}, and is {found}"
            self.state[job_id] = found
            if self.queue.stop_request(job_id):
                self.cancelled.add(job_id)

    @rule(number=st.integers(0, 2**32), state=st.sampled_from(STATES))
    def litter(self, number: int, state: str) -> None:
        (self.queue.paths.state(state) / f"litter-{number}").write_bytes(random.Random(number).randbytes(50))

    @rule()
    def repair(self) -> None:
        """Of jobs nothing is to be repaired here; what does not belong there goes."""
        done = repair.repair(self.queue)
        assert all(repaired.line.startswith("to quarantine: ") for repaired in done), done
        assert self.queue.foreign() == []

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        next(counted)
        found = {job_id: state for state in STATES for job_id in self.queue.tickets.ids(state)}
        assert found == self.state
        ended = {job_id for job_id in found if self.queue.paths.end(job_id).exists()}
        assert ended == {job_id for job_id, state in found.items() if state not in ("pending", "running")}


def run_model(examples: int, number: int) -> None:
    """Raises the failure of the shortest order of moves that hypothesis finds."""
    setting = settings(
        max_examples=examples,
        stateful_step_count=MOVES,
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(seed(number)(AnyOrder), settings=setting)


def attack(scale: Scale) -> Iterator[Case]:
    """Each move is a case; those of ten examples are said together."""
    folders.append(scale.folder)
    numbers, tried = itertools.count(scale.seed), 0
    while tried < scale.cases:
        number, before = next(numbers), next(counted)
        violations: tuple[str, ...] = ()
        try:
            run_model(10, number)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a violation
            violations = ("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]),)
        moves = next(counted) - before
        tried += moves
        yield Case(f"an order of moves from hypothesis' seed {number}", violations)
        yield from (Case("a move") for _ in range(moves - 1))
