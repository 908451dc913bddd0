"""The directory queue. A job is one ticket file; the folder it lies in is its state; moving it is the only transition.

    submit    tmp/x            --link-->    pending/<id>.json     after this the id may be told
    claim     pending/<id>     --rename-->  running/<id>          by whoever holds leases/<id>; one wins
    end       tmp/x            --link-->    jobs/<id>/result.json once, then the ticket follows
    requeue   running/<id>     --rename-->  pending/<id>

Only the holder of a job's lease moves its ticket out of `running/`. Where a ticket lies is derived from the recorded
end, so that a crash between two steps is repaired by looking (`repair.py`). One queue is one directory on one local
filesystem.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import QueueError, SpecError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.home.records import FOLDER_OF, Attempts, End, Progress, Result, StopRequest, now
from pipeline.home.sweep_record import CANCELLED, GIVEN_UP
from pipeline.home.temporaries import remove_temporaries
from pipeline.queue import back_off, dependencies, submitting
from pipeline.queue.claims import Claim, Ended, RecordExecutor, by_nobody
from pipeline.queue.dependencies import Dependencies
from pipeline.queue.job_records import JobRecords
from pipeline.queue.refusals import Refusals
from pipeline.queue.tickets import ForeignFile, Ticket, Tickets
from pipeline.queue.waiting import Waiting

if TYPE_CHECKING:
    from pipeline.jobfile.spec import Spec


@dataclass
class Queue:
    home: Home
    refusals: Refusals = field(default_factory=Refusals)

    def __post_init__(self) -> None:
        self.paths = self.home.queue
        self.tickets = Tickets(self.paths)
        self.waiting = Waiting(self.tickets)
        self.records = JobRecords(self.home, self.tickets)
        self._is_durable = False

    def create(self) -> None:
        """Make the queue's folders where they are missing, and make sure, once a process, that a crash leaves them."""
        folders = [*self.paths.folders(), self.home.runs]
        to_make = [folder for folder in folders if not folder.is_dir()]
        if not self._is_durable:  # who made them may have been killed; one of each parent, which is what is synced
            to_make += {folder.parent: folder for folder in folders}.values()
        try:
            for folder in to_make:
                durable.make_folder(folder)
        except OSError as error:
            raise QueueError(f"{self.paths.root}: the queue cannot be made here: {error.strerror}") from error
        self._is_durable = True

    # Submitting

    def submit(self, job: Spec | Ticket) -> str:
        """Puts a job into the queue and returns its id, once it is on stable storage."""
        return self.submit_all([job])[0]

    def submit_all(self, jobs: Iterable[Spec | Ticket]) -> list[str]:
        """As `submit`, waiting once for the storage. All are in, or none and QueueError or UsageError says why."""
        self.create()
        tickets = [job if isinstance(job, Ticket) else Ticket.new(job) for job in jobs]
        numbered = submitting.numbered(self.home, tickets)
        submitting.put(self.paths, dependencies.resolved(self.tickets, numbered))
        return [ticket.id for ticket in numbered]

    # Claiming

    def claim(
        self,
        worker: str,
        executor: RecordExecutor = by_nobody,
        *,
        with_sweeps: bool = True,
        with_others: bool = True,
    ) -> Claim | Ended | None:
        """The next job: highest priority, then oldest. None where nothing can be run now.

        with_sweeps, with_others: whether it may be a sweep, or anything else. executor: gives what the record of a
        job's attempt says of who runs it. A job that needs no attempt any more, as it was cancelled or this version
        does not take its spec, is ended instead. Raises OSError where the disk does not let it take the next one, which
        it passes over for a while from then on. While the queue is paused, nothing is claimed.
        """
        if self.is_paused():
            return None
        for ticket in self._candidates(only_sweeps=not with_others):
            if ticket.is_sweep and not with_sweeps:
                continue
            try:
                claim = self._claim_one(ticket, worker, executor)
            except OSError as error:
                self.refusals.add(ticket.id, error)
                raise
            if not isinstance(claim, Claim):  # of one it is not known yet: it is to be started
                self.refusals.end(ticket.id)
            if claim is not None:
                return claim
        return None

    def _claim_one(self, ticket: Ticket, worker: str, executor: RecordExecutor) -> Claim | Ended | None:
        lease = Lease.acquire(self.paths.lease(ticket.id))
        if lease is None:
            return None
        taken = None
        try:
            taken = self.take(ticket, lease, worker, executor)
        except OSError:
            with contextlib.suppress(OSError):
                self.tickets.move(ticket.id, "running", "pending")
            raise
        finally:
            if not isinstance(taken, Claim):
                lease.release()
        return taken

    def take(self, ticket: Ticket, lease: Lease, worker: str, executor: RecordExecutor) -> Claim | Ended | None:
        """As `claim`, a job that waits and whose lease this process holds; None where its ticket has moved on."""
        try:
            self.paths.ticket("pending", ticket.id).rename(self.paths.ticket("running", ticket.id))
        except FileNotFoundError:
            return None
        self.records.clear(self.paths.wait(ticket.id))
        durable.remove_temporaries(self.paths.job(ticket.id))
        if self.follow_end(ticket.id, "running"):
            return None
        claim = Claim(ticket, lease, self.records.sound_attempts(ticket.id))
        if request := self.stop_request(ticket.id) or self._never_starts(claim):
            return self.end_waiting(claim, request)
        try:
            claim.spec = ticket.validated()
        except SpecError as error:
            why = error.problems[0].message
            return self.end(claim, Result(claim.attempts.number, "invalid", why))
        claim.attempts.begin(worker, executor(claim))
        self.records.write_attempts(ticket.id, claim.attempts)
        return claim

    def _never_starts(self, claim: Claim) -> StopRequest | None:
        """Why a job has to end that waits for others. One that was started once has waited for them."""
        if claim.attempts.number:
            return None
        why = Dependencies(self.records).why_never(claim.ticket.after)
        return StopRequest(why=why) if why else None

    def _candidates(self, *, only_sweeps: bool) -> Iterator[Ticket]:
        """Those that wait and may be claimed now, each read when it is asked for."""
        self.waiting.look()
        others = Dependencies(self.records, self.waiting)
        held = set(durable.names_in(self.paths.control))
        for job_id in self.waiting.sweeps() if only_sweeps else self.waiting:
            if self.refusals.is_passed_over(job_id):
                continue
            try:
                must_wait = self._must_wait(job_id, held) or others.hold(self.waiting.after(job_id))
                ticket = None if must_wait else self.tickets.read("pending", job_id)
            except OSError as error:  # `status` says it; the others are not held up
                self.refusals.add(job_id, error)
                continue
            if isinstance(ticket, ForeignFile):
                self.waiting.forget(job_id)
            elif ticket is not None and not others.hold(ticket.after):
                yield ticket

    def _must_wait(self, job_id: str, held: Container[str]) -> bool:
        path = self.paths.wait(job_id)
        return path.name in held and back_off.must_wait(path)

    def foreign(self) -> list[ForeignFile]:
        """What lies among the tickets and is none."""
        self.waiting.look()
        return [*self.waiting.foreign, *self.tickets.foreign(self.waiting)]

    # Ending and requeueing

    def settle(self, claim: Claim, result: Result, *, lacked_room: bool = False) -> End | None:
        """Record the verdict on an attempt, then end the job or queue it again. The recorded end; None if it goes on.

        lacked_room: the disk was full; the job waits a while, and longer with each time in a row, but uses no retry.
        """
        claim = copy.copy(claim)
        claim.attempts = copy.deepcopy(claim.attempts)  # so that it can be called again where the disk was full
        if claim.attempts.is_open:
            claim.attempts.end(result, lacked_room=lacked_room)
        if claim.attempts.is_in_foreground and result.outcome == "interrupted":
            result = dataclasses.replace(result, outcome="cancelled")
        retry_on, retries = claim.retry_on
        used = claim.attempts.retries_used
        is_retried = result.outcome in retry_on and used < retries
        request = self.stop_request(claim.id)
        if request and (is_retried or result.outcome not in ("succeeded", "failed")):
            why = request.in_words(f"at step {result.step}" if result.step else "")
            return self.end(claim, dataclasses.replace(result, outcome=request.outcome, why=why)).end
        if result.outcome == "interrupted":
            times = claim.attempts.num_without_room
            self.requeue(claim, delay_s=back_off.delay_s(times - 1) if times else 0)
            return None
        if is_retried:
            claim.attempts.retries_used += 1
            self.requeue(claim, delay_s=back_off.delay_s(used))
            return None
        return self.end(claim, result).end

    def end_waiting(self, claim: Claim, request: StopRequest) -> Ended:
        """End a job that nobody runs, and nobody is to run, with the figures that its latest attempt left."""
        run, number = self.home.run(claim.id), claim.attempts.number
        left = Result.read(run.result) or Progress.glance(run.progress) or Progress(0)
        why = request.in_words("while it waited")
        return self.end(claim, Result.after(left, attempt=number, outcome=request.outcome, why=why))

    def end(self, claim: Claim, result: Result) -> Ended:
        """Record the job's end, once: a second end changes nothing, and the first is given. The lease stays held.

        Raises OSError where that cannot be done now; it may be tried again.
        """
        ticket = claim.ticket
        end = End(
            **{**result.to_json(), "started_at": claim.attempts.started_at, "finished_at": now()},
            id=ticket.id,
            name=ticket.name,
            priority=ticket.priority,
            submitted_at=ticket.submitted_at,
            sweep=ticket.sweep_id,
            trial=ticket.trial,
        )
        if claim.is_sweep and result.outcome != "succeeded":  # first, so that a kill in between forgets none
            self.records.stop_trials(claim.id, CANCELLED if result.outcome == "cancelled" else GIVEN_UP)
        path = self.paths.end(claim.id)
        self.records.recorded_end(claim.id)  # takes a damaged one out of the way
        durable.make_folder(path.parent)
        with contextlib.suppress(FileExistsError):  # the first recorded end stands
            durable.create(path, durable.to_json(end.to_json()), by_way_of=self.paths.tmp)
        durable.fsync_folder(path.parent)
        self.records.write_attempts(claim.id, claim.attempts)  # after the end: a crash between repeats no attempt
        remove_temporaries(self.home.run(claim.id))
        recorded = self.follow_end(claim.id, "running")
        if recorded is None:
            raise OSError(errno.EIO, "the end that was recorded cannot be read back", str(path))
        return Ended(claim.id, recorded)

    def requeue(self, claim: Claim, *, delay_s: float = 0) -> None:
        self.records.write_attempts(claim.id, claim.attempts)
        if delay_s:
            self.records.make_way(self.paths.wait(claim.id))
            back_off.hold(self.paths.wait(claim.id), delay_s)
        self.tickets.move(claim.id, "running", "pending")

    def follow_end(self, job_id: str, state: str) -> End | None:
        """Move the ticket where its recorded end says, if there is one, and give that."""
        end = self.records.recorded_end(job_id)
        if end is None:
            return None
        self.tickets.move(job_id, state, FOLDER_OF[end.outcome])
        self.records.clear(self.paths.cancel_request(job_id))
        self.records.clear(self.paths.wait(job_id))
        return end

    # Looking

    def is_paused(self) -> bool:
        """Whether no job is to be started, until somebody resumes the queue. Raises OSError."""
        return durable.is_there(self.paths.pause)

    def attempts(self, job_id: str) -> Attempts:
        return Attempts.read(self.paths.attempts(job_id)) or Attempts()

    def stop_request(self, job_id: str) -> StopRequest | None:
        """What somebody has asked of a job that waits or runs: to end as cancelled, or pruned."""
        path = self.paths.cancel_request(job_id)
        return (StopRequest.read(path) or StopRequest()) if durable.is_plain(path) else None

    def live_workers(self) -> list[str]:
        """Their names."""
        return sorted(path.name.removeprefix(".worker-") for path in self.worker_leases() if is_held(path))

    def worker_leases(self) -> list[Path]:
        return list(self.paths.leases.glob(".worker-*"))


def is_held(path: Path) -> bool:
    """Whether somebody holds a worker's lease; one that cannot be opened tells nothing, and is nobody's."""
    try:
        return Lease.is_held(path)
    except OSError:
        return False
