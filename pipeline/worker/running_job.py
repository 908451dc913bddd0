"""A job that a worker has running: its claim, its attempt, and what it was asked to stop for."""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass

from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.home.records import Order, Outcome, Progress, Result
from pipeline.jobfile import frozen
from pipeline.queue.claims import Claim
from pipeline.queue.job_records import JobRecords
from pipeline.stop import GRACE_S
from pipeline.worker.executors.interface import RunningAttempt
from pipeline.worker.verdicts import Verdict, judge

IN_VAIN = 5  # attempts in a row that an engine has stopped


def prepare_run(run: RunPaths, claim: Claim) -> None:
    """Leave in the run's folder what an attempt goes by, and what people see until it speaks for itself."""
    number = claim.attempts.number
    assert claim.spec is not None
    if claim.is_sweep:
        frozen.save_sweep(run, claim.ticket.spec, claim.ticket.modules)
    else:
        frozen.save(run, claim.spec)
    before = Progress.glance(run.progress) or Progress(number)
    durable.replace_json(run.order, Order(number).to_json())  # from here on an earlier attempt changes nothing
    durable.replace_json(run.progress, dataclasses.replace(before, attempt=number, note="starting").to_json())


@dataclass
class RunningJob:
    claim: Claim
    attempt: RunningAttempt
    asked: Outcome | None = None  # what it was asked to stop for
    too_much: str = ""  # what it took more of than it may, so that it was killed
    kill_at: float | None = None  # on the monotonic clock
    gone_at: float | None = None  # when its attempt was seen to have ended
    verdict: Verdict | None = None  # on its attempt, while that could not be recorded yet

    @property
    def id(self) -> str:
        return self.claim.id

    @property
    def number(self) -> int:
        """The number of the attempt, from 1."""
        return self.claim.attempts.number

    @property
    def timeout_s(self) -> float | None:
        return None if self.claim.is_sweep else self.claim.resources.timeout  # that of its trials

    @property
    def takes_slot(self) -> bool:
        """Whether no other job can take its place: a sweep computes nothing, and what is gone is yet to be recorded."""
        return not self.is_gone and not self.claim.is_sweep

    @property
    def is_too_long(self) -> bool:
        began, limit = self.attempt.started_at, self.timeout_s
        return began is not None and limit is not None and time.monotonic() - began > limit

    def note_where(self, records: JobRecords) -> None:
        """Keep with the job's records what its engine calls it, and where it runs. Raises OSError."""
        if not self.is_gone and self.attempt.handle != self.claim.attempts.latest.get("handle"):
            attempts = copy.deepcopy(self.claim.attempts)
            attempts.latest["handle"] = self.attempt.handle
            records.write_attempts(self.id, attempts)
            self.claim.attempts = attempts  # so that it is tried again where the disk did not take it

    def progress(self, run: RunPaths) -> Progress | None:
        """What its attempt tells of itself; None before it does."""
        progress = Progress.glance(run.progress)
        return progress if progress and progress.attempt == self.number else None

    def has_recorded(self, run: RunPaths) -> bool:
        """Whether its attempt has left its result."""
        left = Result.read(run.result)
        return left is not None and left.attempt == self.number

    def judge(self, run: RunPaths, status: int) -> Verdict:
        """The verdict on its attempt, which is gone. Raises OSError where its result cannot be read now."""
        left, progress = Result.read(run.result), Progress.glance(run.progress)
        timeout_s = self.timeout_s
        told = self.attempt.end
        verdict = judge(
            left, progress, attempt=self.number, status=status, asked=self.asked, timeout_s=timeout_s, told=told
        )
        if self.too_much and verdict.result.outcome != "succeeded":
            return Verdict(dataclasses.replace(verdict.result, outcome="failed", why=self.too_much))
        if verdict.result.outcome == "interrupted" and not verdict.lacked_room and self.was_in_vain(verdict.result):
            why = f"it was stopped {IN_VAIN} times in a row before it had gained a step; a longer time limit may help"
            return Verdict(dataclasses.replace(verdict.result, outcome="failed", why=why))
        return verdict

    def was_in_vain(self, result: Result) -> bool:
        """Whether an engine stops it again and again before it gets anywhere, as by a time limit that is too short."""
        if not self.attempt.outlives_worker or self.asked is not None or not self.attempt.has_run:
            return False
        before = self.claim.attempts.entries[-IN_VAIN:-1]
        is_stuck = [entry.get("outcome") == "interrupted" and entry.get("step", 0) >= result.step for entry in before]
        return len(is_stuck) == IN_VAIN - 1 and all(is_stuck)

    def ask_to_stop(self, outcome: Outcome) -> None:
        """Ask once; what does not react within the grace period is killed."""
        if self.asked is None:
            self.asked = outcome
            self.leave_soon()
            self.attempt.ask_to_stop()

    def leave_soon(self) -> None:
        """It is to be gone within the grace period: it was asked, or has recorded its result and hangs after that."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + GRACE_S

    def kill_if_too_large(self) -> None:
        """Without a grace period: by the time of a checkpoint it may have taken all that the machine has."""
        limit = None if self.claim.is_sweep else self.claim.resources.memory
        if limit is not None and not self.too_much and (used := self.attempt.used_bytes(limit)) > limit:
            self.too_much = (
                f"it took {used / 1e6:,.0f} MB of memory, more than resources.memory, {limit / 1e6:,.0f} MB; "
                "a smaller data.batch_size or data.image_size helps"
            )
            self.attempt.kill()

    def kill_if_overdue(self) -> None:
        if self.kill_at is not None and time.monotonic() > self.kill_at:
            self.attempt.kill()

    @property
    def is_gone(self) -> bool:
        """Whether its attempt has ended; then it is here only until that is recorded."""
        return self.gone_at is not None

    def has_gone(self) -> None:
        """To be called once, when its attempt was seen to have ended: lets go of what it computed on."""
        self.gone_at = time.monotonic()
        self.attempt.close()

    def was_gone_for(self, seconds: float) -> bool:
        return self.gone_at is not None and time.monotonic() > self.gone_at + seconds
