"""Attempts on other machines: each is a task of an engine, which places it, and ends it by its own rules.

Worker and queue stay on one machine. The runs, datasets and modules lie on a filesystem that the nodes share. An
attempt there is no child of the worker and does not end with it; the next worker of the same engine finds it again by
its name, which its record has had before it was handed over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import QueueError, SpecError
from pipeline.home import durable, paths
from pipeline.home.paths import Home
from pipeline.home.records import Order, Progress, Result
from pipeline.jobfile import settings
from pipeline.jobfile.resources import Resources
from pipeline.queue.claims import Claim
from pipeline.worker.executors.desk import Desk, Watched
from pipeline.worker.executors.engine import Engine, Task
from pipeline.worker.executors.interface import EngineEnd
from pipeline.worker.executors.local import (
    LocalAttempt,
    LocalExecutor,
    attempt_command,
    attempt_environment,
)
from pipeline.worker.executors.log_reader import LogReader

KILL_AGAIN_S = 5.0


@dataclass
class ClusterExecutor:
    """Sweeps, which compute nothing and need the queue, run beside the worker all the same.

    Raises SpecError where the settings of the home are wrong.
    """

    home: Home
    engine: Engine
    complain: Callable[[str], None]  # takes a line for people, again and again while it is so
    desk: Desk = field(init=False)
    local: LocalExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.engine.name
        settings.read(self.home)  # said at once, not with the first job
        self.desk, self.local = Desk(self.engine), LocalExecutor(self.home)

    @property
    def cluster(self) -> str:
        return self.engine.cluster

    def record(self, claim: Claim) -> dict[str, Any]:
        if claim.is_sweep:
            return self.local.record(claim)
        name = new_name(claim, claim.attempts.number + 1)
        return {"executor": self.name, "handle": {"name": name, "cluster": self.engine.cluster}}

    def start(self, claim: Claim) -> LocalAttempt | ClusterAttempt:
        if claim.is_sweep:
            return self.local.start(claim)
        run, number, resources = self.home.run(claim.id), claim.attempts.number, self._fill_in(claim)
        environment = attempt_environment(resources.cpus) | self._places()
        command = attempt_command(self.home, claim)
        task = Task(name_of(claim), command, environment, run.log(number), resources)
        run.log(number).touch()  # the engine's own words may come first, or be all there is
        return ClusterAttempt(self, claim, self.desk.hand_over(task))

    def _fill_in(self, claim: Claim) -> Resources:
        """What the job leaves open, from the home's settings: the worker goes by that too, as by its timeout."""
        assert claim.spec is not None
        try:
            resources = claim.spec.resources.over(settings.read(self.home).resources)
        except SpecError as error:  # they were changed since: no job is lost by that
            raise QueueError(str(error)) from None
        claim.spec = claim.spec.model_copy(update={"resources": resources})
        return resources

    def _places(self) -> dict[str, str]:
        found = {paths.RUNS: str(self.home.runs), paths.DATASETS: str(self.home.datasets)}
        if path := os.environ.get("PYTHONPATH"):
            found["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
        if data := os.environ.get(paths.DATA):
            found[paths.DATA] = os.path.abspath(data)  # noqa: PTH100 - links are the nodes' to follow
        return found

    def tick(self) -> None:
        if problem := self.desk.problem:
            self.complain(f"{self.name} does not answer, and what it runs goes on: {problem}")

    def take_up(self, claim: Claim) -> ClusterAttempt:
        if claim.spec is not None:
            with contextlib.suppress(QueueError, OSError):
                self._fill_in(claim)
        return ClusterAttempt(self, claim, self.desk.watch(name_of(claim)), is_taken_up=True)

    def close(self) -> None:
        self.desk.close()


def make_executor(
    home: Home, slots: int, engine: Engine | None, complain: Callable[[str], None]
) -> LocalExecutor | ClusterExecutor:
    """Of this machine where there is no engine."""
    return LocalExecutor(home, slots) if engine is None else ClusterExecutor(home, engine, complain)


def new_name(claim: Claim, number: int) -> str:
    """A name for an attempt's task that no other home has: in its engine, ids of several homes may be the same."""
    ticket = claim.ticket
    home = hashlib.sha256(f"{ticket.submitted_at} {ticket.spec}".encode()).hexdigest()[:6]
    return f"{claim.id}-{home}.{number}"


def name_of(claim: Claim) -> str:
    """The name of its latest attempt's task, as it was recorded before the task was handed over."""
    return str(claim.attempts.latest["handle"]["name"])


class ClusterAttempt:
    """A task, and the run that it writes to."""

    outlives_worker = True

    def __init__(self, executor: ClusterExecutor, claim: Claim, watched: Watched, *, is_taken_up: bool = False) -> None:
        self.executor, self.watched, self.is_taken_up = executor, watched, is_taken_up
        self.run, self.number = executor.home.run(claim.id), claim.attempts.number
        self.log = LogReader(self.run.log(self.number), keeps_small=False)
        self.started_at: float | None = None
        self._killed_at: float | None = None
        self._end: EngineEnd | None = None  # once `poll` has told that it has ended
        self._must_order_stop = False
        self._shown = ""
        self._epochs = claim.spec.train.num_epochs if claim.spec else 0

    @property
    def handle(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.watched.name, "cluster": self.executor.engine.cluster}
        if seen := self.watched.seen:
            found |= {"id": seen.id, **({"node": seen.node} if seen.node else {})}
        return found

    @property
    def _place(self) -> str:
        """The engine, and its number of the task where that is not the name."""
        name, seen = self.executor.name, self.watched.seen
        return name if seen is None or seen.id == self.watched.name else f"{name} (job {seen.id})"

    @property
    def waits_for(self) -> str:
        name, seen = self.executor.name, self.watched.seen
        if self.executor.desk.problem:
            return f"{name} does not answer: {self.executor.desk.problem}"
        if self.watched.busy:
            return f"{name} has no place for it now: {self.watched.busy}"
        if seen is None:
            return f"is handed to {name}" if not self.is_taken_up else f"{name} is asked for it"
        if seen.phase == "waits":
            return f"waits in {self._place}" + (f": {seen.words}" if seen.words else "")
        return ""

    @property
    def has_run(self) -> bool:
        seen = self.watched.seen
        return self.started_at is not None or (seen is not None and bool(seen.node))

    @property
    def end(self) -> EngineEnd | None:
        return self._end

    def _find_end(self) -> EngineEnd | None:
        name, watched = self.executor.name, self.watched
        if watched.refusal:
            return EngineEnd("failed", f"{name} refuses it: {watched.refusal}")
        if watched.seen is not None and watched.seen.phase == "ended":
            outcome = watched.seen.outcome
            if outcome == "cancelled" and self._killed_at is not None:
                return None  # by this worker, which knows why
            if outcome == "cancelled" and self.has_run and not self._has_recorded():
                why = "was ended there without a word, as by a controller that has forgotten it"
                return EngineEnd("lost", f"{self._place}: {why}")  # whoever cancels one has it save itself
            return None if outcome is None else EngineEnd(outcome, f"{self._place}: {watched.seen.words}")
        if not watched.is_forgotten:
            return None
        if watched.seen is None:
            return EngineEnd("interrupted", f"{name} does not know it; it was never handed over, or long ago")
        return EngineEnd("lost", f"{self._place} does not know it any more")

    def _has_recorded(self) -> bool:
        with contextlib.suppress(OSError):
            left = Result.read(self.run.result)
            return left is not None and left.attempt == self.number
        return False

    def poll(self) -> int | None:
        watched, seen = self.watched, self.watched.seen
        if self._must_order_stop:
            self._order_stop()
        if watched.is_over or watched.is_forgotten:
            self._end = self._find_end()
        if watched.refusal or watched.is_forgotten:
            return 1
        if seen is None or seen.phase == "waits":
            self._show(self.waits_for)
            return None
        if seen.phase == "ended":
            return seen.status
        if self.started_at is None:
            self.started_at = time.monotonic() - seen.ran_s
        return None

    def _show(self, note: str) -> None:
        """Have people see why nothing happens; from its start on, the attempt speaks for itself."""
        if note != self._shown:
            self._shown = note
            progress = Progress.glance(self.run.progress) or Progress(self.number)
            with contextlib.suppress(OSError):
                shown = dataclasses.replace(progress, attempt=self.number, epochs=self._epochs, note=note)
                durable.replace_json(self.run.progress, shown.to_json())

    def ask_to_stop(self) -> None:
        """By the engine, which takes back what waits, and by a file, which reaches it wherever it is."""
        self.executor.desk.ask_to_stop(self.watched)
        self._must_order_stop = True
        self._order_stop()

    def _order_stop(self) -> None:
        """Where the disk does not take it now, the next `poll` tries again."""
        with contextlib.suppress(OSError):
            durable.replace_json(self.run.order, Order(self.number, stop=True).to_json())
            self._must_order_stop = False

    def kill(self) -> None:
        """The engine may take its time, or not answer; it is asked again."""
        now = time.monotonic()
        if self._killed_at is None or now > self._killed_at + KILL_AGAIN_S:
            self._killed_at = now
            self.executor.desk.kill(self.watched)

    def read_log(self, *, to_the_end: bool = False) -> list[str]:
        return self.log.read(to_the_end=to_the_end)

    def used_bytes(self, limit: int) -> int:  # noqa: ARG002
        """The engine sees to that."""
        return 0

    def describe(self) -> str:
        return f"in {self.executor.name}"

    def close(self) -> None:
        """Where it has ended as far as anybody can tell, a process that is still there is told to leave."""
        if self.watched.is_over or self.watched.is_forgotten:
            self._order_stop()
        self.executor.desk.forget(self.watched)
        self.log.close()
