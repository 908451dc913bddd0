"""The worker: claim a job, have an executor start it, watch it, record how it ended. It survives whatever a job does.

    claim -> start -> watch --- exits -----------------------------> settle: end, or queue again
                        |------ timeout, cancel, stop: asked, then killed after a grace period

Nothing here imports torch, or knows what an attempt computes: they share a command line, a run folder and records.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import WELL, End, Result
from pipeline.queue import checks
from pipeline.queue.adoption import left_alone
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.drained import is_drained
from pipeline.queue.job_queue import Queue
from pipeline.queue.repair import Repaired
from pipeline.stop import ASKED, GRACE_S, Stop
from pipeline.worker.afterwards import Afterwards
from pipeline.worker.complaints import Complaints
from pipeline.worker.display import Display
from pipeline.worker.executors.cluster import make_executor
from pipeline.worker.executors.engine import Engine
from pipeline.worker.executors.interface import Executor
from pipeline.worker.places import Places
from pipeline.worker.presence import Presence
from pipeline.worker.repairs import Repairs
from pipeline.worker.room import Room
from pipeline.worker.running_job import RunningJob, prepare_run

TICK_S = 0.2
MOST_REFUSED = 20  # jobs in a tick: each is said
RECORD_S = 10.0  # for which a job that is gone is tried to be recorded, where its worker was stopped
LEAVE_S = 3.0  # the same, for one that was asked twice
DRAIN_S = 30.0  # the same, for one that has nothing else left to do


@dataclass
class Worker:
    home: Home
    display: Display
    slots: int = 1
    drain: bool = False
    stop: Stop = field(default_factory=Stop)
    on_tick: Callable[[], None] = lambda: None
    engine: Engine | None = None  # that attempts are handed to; None: they are processes of this machine
    executor: Executor = field(init=False)
    jobs: list[RunningJob] = field(default_factory=list)
    num_unsuccessful: int = 0  # jobs that ended here, but not well

    def __post_init__(self) -> None:
        self.queue = Queue(self.home)
        self.presence = Presence(self.queue.paths)
        self.afterwards = Afterwards(self.home, self.display.say)
        self.room = Room((self.home.queue.root, self.home.runs, self.home.datasets), self.display.say)
        self.places = Places(self.slots)
        self.repairs = Repairs(self.queue, self.tell_repair)
        self.complaints = Complaints(self.display.say)
        self.executor = make_executor(self.home, self.slots, self.engine, self.complaints.make)
        self._leave_at: float | None = None  # on the monotonic clock, whatever could not be recorded by then

    def run(self) -> None:
        """Work until asked to stop or, with `drain`, until nothing waits. Running jobs are queued again."""
        self.queue.create()
        self.presence.begin()
        try:
            with self.trying_again("the home"):
                for line in checks.complaints(self.home):
                    self.display.say(line)
            self.tick()
            while not self.is_done():
                time.sleep(TICK_S)
                self.presence.beat()
                self.tick()
        finally:
            self.leave_running()
            for job in self.jobs:
                job.attempt.kill()
            self.executor.close()
            self.presence.end()
        self.afterwards.finish(is_stopped=bool(self.stop.why))

    def is_done(self) -> bool:
        is_late = self._leave_at is not None and time.monotonic() > self._leave_at
        if is_late or (self.stop.why and all(job.was_gone_for(RECORD_S) for job in self.jobs)):
            self.leave_unrecorded()
            return True
        if self.stop.why or not all(job.was_gone_for(DRAIN_S) for job in self.jobs):
            return False
        with self.trying_again("the queue"):
            return self.drain and self.room.is_there() and self.is_drained()
        return False

    def is_drained(self) -> bool:
        """Whether nothing waits that could ever be run or repaired from here; what cannot is said, and counted."""
        stuck = self.repairs.stuck.jobs | self.queue.refusals.hopeless
        if not is_drained(self.queue, but_for=stuck):
            return False
        self.leave_unrecorded()
        left = stuck.intersection(self.queue.tickets.ids("pending") + self.queue.tickets.ids("running"))
        for job_id in sorted(left):
            self.display.say(f"{job_id}: is not waited for: the system did not let this worker take it")
        self.num_unsuccessful += len(left)
        return True

    def leave_running(self) -> None:
        """Let go of what goes on without this worker; the next one of its kind takes it up."""
        for job in [job for job in self.jobs if job.attempt.outlives_worker and not job.is_gone]:
            job.attempt.close()
            self.let_go(job)
            self.display.say(f"{job.id}: goes on in {self.executor.name}; the next worker takes it up")

    def leave_unrecorded(self) -> None:
        for job in self.jobs:
            self.display.say(f"{job.id}: how it ended cannot be recorded now; the next worker sees to it")
        self.num_unsuccessful += len(self.jobs)

    def tick(self) -> None:
        """One turn of the loop. Each part is tried again with the next one where the system refuses something now."""
        with self.trying_again("the queue"):
            if durable.is_there(self.queue.paths.stop_request(self.presence.name)):
                self.stop.request(ASKED)
        if self.stop.why and self._leave_at is None:
            self._leave_at = time.monotonic() + GRACE_S + RECORD_S
        if self.stop.why:
            self.leave_running()
        if self.stop.why and self.jobs:
            self.complaints.make(
                "stopping: running jobs are saved and go on later; asked once more, it does not wait for that"
            )
        with self.trying_again("repair"):
            if self.repairs.tick() and not self.stop.why:
                self.take_up_jobs()
        for job in list(self.jobs):
            with self.trying_again(job.id):
                self.watch(job)
        self.executor.tick()
        self.fill_slots()
        with self.trying_again("reports and notifications"):
            self.afterwards.tick()
        with self.trying_again("the display"):
            told = [(job.id, job.progress(self.home.run(job.id))) for job in self.jobs]
            self.display.progress([(job_id, progress) for job_id, progress in told if progress])
            self.on_tick()

    def trying_again(self, what: str) -> AbstractContextManager[None]:
        """For what the system may refuse now and allow with a later tick: nothing is given up for it."""
        return self.complaints.in_place_of_errors(what, on_full_disk=self.room.was_missed)

    # Claiming and starting

    def fill_slots(self) -> None:
        """Where the system refuses a job, go on with the next one, so that many such jobs hold up no other."""
        for _ in range(MOST_REFUSED):
            num_refused = self.queue.refusals.total
            with self.trying_again("the queue"):
                self.start_jobs()
            if self.queue.refusals.total == num_refused:
                break

    def start_jobs(self) -> None:
        """Raises OSError where the system refuses something now; if that is a job, it is passed over from then on."""
        while not self.stop.why and self.room.is_there() and any(kinds := self.places.kinds(self.jobs)):
            with_sweeps, with_others = kinds
            worker = self.presence.name
            claim = self.queue.claim(worker, self.executor.record, with_sweeps=with_sweeps, with_others=with_others)
            if claim is None:
                break
            if isinstance(claim, Ended):
                self.tell_end(claim.id, claim.end)
            else:
                self.start(claim)

    def start(self, claim: Claim) -> None:
        """Start the job's next attempt. Raises OSError; then the claim is given back, or the next repair does it."""
        try:
            self.queue.records.make_way_for_run(claim.id)
            prepare_run(self.home.run(claim.id), claim)
            attempt = self.executor.start(claim)
        except BaseException as error:
            self.give_back(claim, error)
            raise
        self.jobs.append(RunningJob(claim, attempt))
        self.queue.refusals.end(claim.id)
        self.display.say(f"{claim.id}: attempt {claim.attempts.number} starts {attempt.describe()}".rstrip())

    def give_back(self, claim: Claim, error: BaseException) -> None:
        lacked_room = isinstance(error, OSError) and error.errno in durable.DISK_FULL
        why = f"could not be started: {durable.in_words(error) if isinstance(error, OSError) else error}"
        with contextlib.suppress(OSError):
            self.queue.settle(claim, Result(claim.attempts.number, "interrupted", why), lacked_room=lacked_room)
        self.queue.refusals.add(claim.id, error)
        claim.lease.release()

    def take_up_jobs(self) -> None:
        """Go on watching what another worker has handed to this one's engine."""
        for claim in left_alone(self.queue, self.executor.name, self.executor.cluster):
            self.jobs.append(RunningJob(claim, self.executor.take_up(claim)))
            self.display.say(f"{claim.id}: attempt {claim.attempts.number} in {self.executor.name} is taken up")

    # Watching

    def watch(self, job: RunningJob) -> None:
        """Raises OSError; then the lease stays held, so that nobody else runs it, and the next tick tries it again."""
        status = job.attempt.poll()
        if not job.is_gone:
            with self.trying_again(f"the log of {job.id}"):
                for line in job.attempt.read_log(to_the_end=status is not None):
                    self.display.log_line(job.id, line)
        if status is None:
            job.note_where(self.queue.records)
            self.stop_if_asked(job)
            job.kill_if_overdue()
            job.kill_if_too_large()
            return
        if self.stop.why and job.asked is None:  # whoever asked this process may have asked the attempt as well
            job.asked = "interrupted"
        if not job.is_gone:
            job.has_gone()
        self.settle(job, status)

    def stop_if_asked(self, job: RunningJob) -> None:
        if self.stop.why:
            job.ask_to_stop("interrupted")
        elif request := self.queue.stop_request(job.id):
            job.ask_to_stop(request.outcome)
        elif job.is_too_long:
            job.ask_to_stop("timed_out")
        if job.has_recorded(self.home.run(job.id)):
            job.leave_soon()

    def settle(self, job: RunningJob, status: int) -> None:
        """Record how an attempt ended that is gone, and let go of its job."""
        if job.verdict is None:
            try:
                job.verdict = job.judge(self.home.run(job.id), status)
            except OSError as error:
                self.give_up(job, error)
                raise
        result, lacked_room = job.verdict.result, job.verdict.lacked_room
        if lacked_room:
            self.room.was_missed()
        end = self.queue.settle(job.claim, result, lacked_room=lacked_room)
        self.let_go(job)
        if end is None:
            self.display.say(f"{job.id}: {result.outcome}: {result.why}; queued again")
        else:
            self.tell_end(job.id, end)

    def give_up(self, job: RunningJob, error: OSError) -> None:
        """Leave a job whose result the disk does not give to repair, which asks again."""
        if job.was_gone_for(RECORD_S):
            self.let_go(job)
            self.display.say(f"{job.id}: how it ended cannot be read now: {durable.in_words(error)}")

    def let_go(self, job: RunningJob) -> None:
        self.jobs.remove(job)
        job.claim.lease.release()

    def tell_end(self, job_id: str, end: End) -> None:
        """Say how a job ended, count it, and have its report written and people told."""
        self.num_unsuccessful += end.outcome not in WELL
        self.display.say(f"{job_id}: {end.outcome}: {end.why}")
        self.afterwards.ask(job_id, end)

    # Repairing and leaving

    def tell_repair(self, repaired: Repaired) -> None:
        self.complaints.make(repaired.line)
        if repaired.end is not None:
            self.num_unsuccessful += repaired.end.outcome not in WELL and not repaired.was_in_foreground
            self.afterwards.ask(repaired.job_id, repaired.end)

    def leave_at_once(self) -> None:
        """Wait for neither checkpoints nor what follows an end; jobs go on from the last checkpoint that was written.

        It may be called from a signal handler. How the jobs ended is recorded if that takes no longer than some
        seconds; called once more after that, the process is gone at once.
        """
        now = time.monotonic()
        if self.afterwards.is_abandoned and self._leave_at is not None:
            if now > self._leave_at:
                os._exit(1)
            return
        self._leave_at = now + LEAVE_S
        self.afterwards.abandon()
        for job in [job for job in self.jobs if not job.attempt.outlives_worker]:
            job.asked = job.asked or "interrupted"
            with contextlib.suppress(OSError):
                job.attempt.kill()
