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
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from pipeline import durable
from pipeline.errors import QueueError
from pipeline.lease import Lease
from pipeline.paths import Home
from pipeline.records import FOLDER_OF, Attempts, End, Result, now
from pipeline.spec import Spec
from pipeline.tickets import Ticket, Tickets, age_key

BACK_OFF_S = (1, 2, 4, 8, 16, 32, 60)  # before the first retry, the second, ...; the last for all that follow


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
    _known: dict[str, Ticket] = field(default_factory=dict)  # pending tickets read so far; a ticket never changes

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
                durable.create(self.paths.ticket("pending", ticket.id), ticket.to_json(), by_way_of=self.paths.tmp)
                ids.append(ticket.id)
            durable.fsync_folder(self.paths.state("pending"))
        except OSError as error:
            self._withdraw(ids)
            raise QueueError(f"{self.paths.root}: nothing was submitted: {error.strerror}") from None
        return ids

    def _withdraw(self, ids: list[str]) -> None:
        """Take back what nobody was told of yet; a worker that was quicker keeps its job."""
        for job_id in ids:
            self.paths.ticket("pending", job_id).unlink(missing_ok=True)

    # Claiming

    def claim(self, worker: str) -> Claim | None:
        """The next job: highest priority, then oldest. None where nothing can be run now."""
        waiting = {path.stem for path in self.paths.control.glob("*.wait") if _must_wait(path)}
        for ticket in self._candidates():
            if ticket.id in waiting:
                continue
            lease = Lease.acquire(self.paths.lease(ticket.id))
            if lease is None:
                continue
            try:
                claim = self._take(ticket, lease, worker)
            except BaseException:
                lease.release()
                raise
            if claim is not None:
                return claim
            lease.release()
        return None

    def _take(self, ticket: Ticket, lease: Lease, worker: str) -> Claim | None:
        try:
            self.paths.ticket("pending", ticket.id).rename(self.paths.ticket("running", ticket.id))
        except FileNotFoundError:
            return None
        self.paths.wait(ticket.id).unlink(missing_ok=True)
        claim = Claim(ticket, lease, self.attempts(ticket.id))
        if self.follow_end(ticket.id, "running"):
            return None
        if self.is_cancel_requested(ticket.id):
            self.end(claim, Result(claim.attempts.number, "cancelled", "cancelled before it ran"))
            return None
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
        ids = self.tickets.ids("pending")
        known = {job_id: self._known.get(job_id) or self.tickets.read("pending", job_id) for job_id in ids}
        self._known = {job_id: ticket for job_id, ticket in known.items() if ticket is not None}
        return sorted(self._known.values(), key=lambda ticket: (-ticket.priority, age_key(ticket.id)))

    # Ending and requeueing

    def settle(self, claim: Claim, result: Result) -> str:
        """Record how an attempt ended, then end the job or queue it again. The state that the job is in now."""
        claim = copy.copy(claim)
        claim.attempts = copy.deepcopy(claim.attempts)  # so that it can be called again where the disk was full
        if claim.attempts.is_open:
            claim.attempts.end(result.outcome, result.why)
        resources = claim.ticket.spec.get("resources", {})
        if result.outcome == "interrupted":
            return self.requeue(claim)
        if result.outcome in resources.get("retry_on", ["lost"]) and claim.attempts.retries_used < resources["retries"]:
            delay_s = BACK_OFF_S[min(claim.attempts.retries_used, len(BACK_OFF_S) - 1)]
            claim.attempts.retries_used += 1
            return self.requeue(claim, delay_s=delay_s)
        return self.end(claim, result)

    def end(self, claim: Claim, result: Result) -> str:
        """Record the job's end, once: a second end changes nothing. The lease stays held."""
        claim.attempts.write(self.paths.attempts(claim.id))
        ticket = claim.ticket
        end = End(
            **{**result.to_json(), "started_at": claim.attempts.started_at, "finished_at": now()},
            id=ticket.id,
            name=ticket.name,
            priority=ticket.priority,
            submitted_at=ticket.submitted_at,
        )
        path = self.paths.end(claim.id)
        with contextlib.suppress(FileExistsError):  # the first recorded end stands
            durable.create(path, durable.to_json(end.to_json()), by_way_of=self.paths.tmp)
        durable.fsync_folder(path.parent)
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
        end = End.read(self.paths.end(job_id))
        if end is None:
            return False
        self.tickets.move(job_id, state, FOLDER_OF[end.outcome])
        self.paths.cancel_request(job_id).unlink(missing_ok=True)
        self.paths.wait(job_id).unlink(missing_ok=True)
        return True

    # Looking

    def attempts(self, job_id: str) -> Attempts:
        return Attempts.read(self.paths.attempts(job_id)) or Attempts()

    def is_cancel_requested(self, job_id: str) -> bool:
        return self.paths.cancel_request(job_id).exists()

    def live_workers(self) -> int:
        return sum(Lease.is_held(path) for path in self.paths.leases.glob(".worker-*"))

    def is_drained(self) -> bool:
        """Whether nothing waits, retries that wait for their time included."""
        return not self.tickets.ids("pending")


def _must_wait(path: Path) -> bool:
    """Whether a retry's time has not come. A clock that was set back does not hold a job for long."""
    until = (durable.read_json(path) or {}).get("until", 0)
    return isinstance(until, (int, float)) and 0 < until - time.time() <= 2 * BACK_OFF_S[-1]
