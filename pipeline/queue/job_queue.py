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
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.ids import age_key
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.home.records import FOLDER_OF, Attempts, End, Result, now
from pipeline.queue.tickets import Ticket, Tickets

if TYPE_CHECKING:
    from pipeline.jobfile.spec import Spec

BACK_OFF_S = (1, 2, 4, 8, 16, 32, 60)  # before the first retry, the second, ...; the last for all that follow
PASS_OVER_S = 10.0  # a job that the disk did not let this process take


@dataclass
class Claim:
    """A job that this process may run. Holding the lease is the right to move its ticket."""

    ticket: Ticket
    lease: Lease
    attempts: Attempts

    @property
    def id(self) -> str:
        return self.ticket.id


@dataclass
class Queue:
    home: Home
    _known: dict[str, tuple[tuple[int, str, str], Ticket]] = field(default_factory=dict)  # pending, with its place
    _passed_over: dict[str, float] = field(default_factory=dict)  # until when, on the monotonic clock

    def __post_init__(self) -> None:
        self.paths = self.home.queue
        self.tickets = Tickets(self.paths)

    def create(self) -> None:
        """Make the queue's folders where they are missing."""
        try:
            for folder in [*self.paths.folders(), self.home.runs]:
                durable.make_folder(folder)
        except OSError as error:
            raise QueueError(f"{self.paths.root}: the queue cannot be made here: {error.strerror}") from None

    # Submitting

    def submit(self, spec: Spec) -> str:
        """Put a job into the queue; its id, once it is on stable storage."""
        return self.submit_all([spec])[0]

    def submit_all(self, specs: Iterable[Spec]) -> list[str]:
        """As `submit`, waiting once for the folder's storage. All are in, or none and QueueError says why."""
        self.create()
        ids: list[str] = []
        try:
            for spec in specs:
                ticket = Ticket.new(spec)
                ids.append(ticket.id)  # first: an error below may come when the ticket is there already
                durable.create(self.paths.ticket("pending", ticket.id), ticket.to_json(), by_way_of=self.paths.tmp)
            durable.fsync_folder(self.paths.state("pending"))
        except BaseException as error:
            self._withdraw(ids)
            if isinstance(error, OSError):
                raise QueueError(f"{self.paths.root}: nothing was submitted: {error.strerror}") from None
            raise
        return ids

    def _withdraw(self, ids: list[str]) -> None:
        """Take back what nobody was told of yet; a worker that was quicker keeps its job."""
        for job_id in ids:
            with contextlib.suppress(OSError):
                self.paths.ticket("pending", job_id).unlink()

    # Claiming

    def claim(self, worker: str) -> Claim | None:
        """The next job: highest priority, then oldest. None where nothing can be run now.

        Raises OSError where the disk does not let it take the next one, which it passes over for a while from then on.
        """
        waiting = {path.stem for path in self.paths.control.glob("*.wait") if _must_wait(path)}
        for ticket in self._candidates():
            if ticket.id in waiting or self._passed_over.get(ticket.id, 0) > time.monotonic():
                continue
            try:
                claim = self._claim_one(ticket, worker)
            except OSError:
                self.pass_over(ticket.id)
                raise
            if claim is not None:
                return claim
        return None

    def pass_over(self, job_id: str) -> None:
        """Leave a job that the disk or the system did not let this process start to others for a while."""
        self._passed_over[job_id] = time.monotonic() + PASS_OVER_S

    def _claim_one(self, ticket: Ticket, worker: str) -> Claim | None:
        lease = Lease.acquire(self.paths.lease(ticket.id))
        if lease is None:
            return None
        claim = None
        try:
            claim = self._take(ticket, lease, worker)
        except OSError:
            with contextlib.suppress(OSError):
                self.tickets.move(ticket.id, "running", "pending")
            raise
        finally:
            if claim is None:
                lease.release()
        return claim

    def _take(self, ticket: Ticket, lease: Lease, worker: str) -> Claim | None:
        try:
            self.paths.ticket("pending", ticket.id).rename(self.paths.ticket("running", ticket.id))
        except FileNotFoundError:
            return None
        self.paths.wait(ticket.id).unlink(missing_ok=True)
        if self.follow_end(ticket.id, "running"):
            return None
        claim = Claim(ticket, lease, self.sound_attempts(ticket.id))
        if self.is_cancel_requested(ticket.id):
            self.end_waiting(claim)
            return None
        from pydantic_core import ValidationError

        try:
            ticket.validated()
        except ValidationError as error:
            why = f"this version of the program does not take its spec: {error.errors(include_input=False)[0]['msg']}"
            self.end(claim, Result(claim.attempts.number, "invalid", why))
            return None
        claim.attempts.begin(worker)
        claim.attempts.write(self.paths.attempts(ticket.id))
        return claim

    def _candidates(self) -> list[Ticket]:
        known = {}
        for job_id in self.tickets.ids("pending"):
            if (entry := self._known.get(job_id)) is not None:
                known[job_id] = entry
            elif (ticket := self.tickets.read("pending", job_id)) is not None:
                known[job_id] = ((-ticket.priority, age_key(job_id), job_id), ticket)
        self._known = known
        return [ticket for _, ticket in sorted(known.values(), key=itemgetter(0))]

    # Ending and requeueing

    def settle(self, claim: Claim, result: Result) -> str:
        """Record how an attempt ended, then end the job or queue it again. The state that the job is in now."""
        claim = copy.copy(claim)
        claim.attempts = copy.deepcopy(claim.attempts)  # so that it can be called again where the disk was full
        if claim.attempts.is_open:
            claim.attempts.end(result.outcome, result.why)
        resources, used = claim.ticket.resources, claim.attempts.retries_used
        is_retried = result.outcome in resources.retry_on and used < resources.retries
        if self.is_cancel_requested(claim.id) and (is_retried or result.outcome not in ("succeeded", "failed")):
            why = f"cancelled at step {result.step}" if result.step else "cancelled"
            return self.end(claim, dataclasses.replace(result, outcome="cancelled", why=why))
        if result.outcome == "interrupted":
            return self.requeue(claim)
        if is_retried:
            claim.attempts.retries_used += 1
            return self.requeue(claim, delay_s=BACK_OFF_S[min(used, len(BACK_OFF_S) - 1)])
        return self.end(claim, result)

    def end_waiting(self, claim: Claim) -> str:
        """End a cancelled job that nobody runs, with the figures that its latest attempt left."""
        left = Result.read(self.home.run(claim.id).result) or Result(0, "cancelled", "")
        number, why = claim.attempts.number, "cancelled while it waited"
        return self.end(claim, dataclasses.replace(left, attempt=number, outcome="cancelled", why=why))

    def end(self, claim: Claim, result: Result) -> str:
        """Record the job's end, once: a second end changes nothing. The lease stays held."""
        ticket = claim.ticket
        end = End(
            **{**result.to_json(), "started_at": claim.attempts.started_at, "finished_at": now()},
            id=ticket.id,
            name=ticket.name,
            priority=ticket.priority,
            submitted_at=ticket.submitted_at,
        )
        path = self.paths.end(claim.id)
        durable.make_folder(path.parent)
        self.recorded_end(claim.id)  # takes a damaged one out of the way
        with contextlib.suppress(FileExistsError):  # the first recorded end stands
            durable.create(path, durable.to_json(end.to_json()), by_way_of=self.paths.tmp)
        durable.fsync_folder(path.parent)
        claim.attempts.write(self.paths.attempts(claim.id))  # after the end: a crash between them repeats no attempt
        self.follow_end(claim.id, "running")
        return self.tickets.state(claim.id) or "running"

    def requeue(self, claim: Claim, *, delay_s: float = 0) -> str:
        claim.attempts.write(self.paths.attempts(claim.id))
        if delay_s:
            durable.replace_json(self.paths.wait(claim.id), {"until": time.time() + delay_s})
        self.tickets.move(claim.id, "running", "pending")
        return "pending"

    def follow_end(self, job_id: str, state: str) -> bool:
        """Move the ticket where its recorded end says; whether there is one."""
        end = self.recorded_end(job_id)
        if end is None:
            return False
        self.tickets.move(job_id, state, FOLDER_OF[end.outcome])
        self.paths.cancel_request(job_id).unlink(missing_ok=True)
        self.paths.wait(job_id).unlink(missing_ok=True)
        return True

    # Records, for the holder of the job's lease: a damaged one goes to quarantine

    def recorded_end(self, job_id: str) -> End | None:
        path = self.paths.end(job_id)
        if os.path.lexists(path.parent) and not path.parent.is_dir():
            self.tickets.quarantine(path.parent, "it is not a folder")
        was_there = os.path.lexists(path)  # asked before it is read: one that comes meanwhile is not damaged
        end = End.read(path)
        if end is None and was_there:
            self.tickets.quarantine(path, "it is not a job's end; the job counts as not ended")
        return end

    def sound_attempts(self, job_id: str) -> Attempts:
        """The attempts; where their record is damaged, as many as there are logs."""
        path = self.paths.attempts(job_id)
        if not os.path.lexists(path):
            return Attempts()
        attempts = Attempts.read(path)
        if attempts is not None:
            return attempts
        self.tickets.quarantine(path, "it is not a record of attempts; they are counted by their logs")
        numbers = [int(log.stem.removeprefix("attempt-")) for log in self.home.run(job_id).logs()]
        unknown = {"outcome": "lost", "why": "not known: the record of attempts was damaged"}
        return Attempts([dict(unknown) for _ in range(max(numbers, default=0))])

    # Looking

    def attempts(self, job_id: str) -> Attempts:
        return Attempts.read(self.paths.attempts(job_id)) or Attempts()

    def is_cancel_requested(self, job_id: str) -> bool:
        return self.paths.cancel_request(job_id).exists()

    def live_workers(self) -> list[str]:
        """Their names."""
        return sorted(path.name.removeprefix(".worker-") for path in self.worker_leases() if Lease.is_held(path))

    def worker_leases(self) -> list[Path]:
        return list(self.paths.leases.glob(".worker-*"))

    def is_drained(self) -> bool:
        """Whether nothing waits: no ticket, no retry for its time, no job of a dead worker for its child to leave."""
        if self.tickets.ids("pending"):
            return False
        alive = self.live_workers()
        latest = [self.attempts(job_id).entries[-1:] for job_id in self.tickets.ids("running")]
        return all(entry and entry[0].get("worker", "") in alive for entry in latest)


def _must_wait(path: Path) -> bool:
    """Whether a retry's time has not come. A clock that was set back does not hold a job for long."""
    until = (durable.read_json(path) or {}).get("until", 0)
    return isinstance(until, (int, float)) and 0 < until - time.time() <= 2 * BACK_OFF_S[-1]
