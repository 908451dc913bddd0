"""Jobs that are run by the command that names them, and by no worker: a ticket that is running from the start.

So they are listed, shown, compared and removed as all jobs are. Nobody else takes one up again: one that was stopped or
killed ends, and a person has it go on, here (`pipeline run --resume`) or in the queue (`pipeline retry`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from pipeline.errors import QueueError
from pipeline.home.lease import Lease
from pipeline.home.records import FOREGROUND, Attempts
from pipeline.jobfile.spec import Spec
from pipeline.queue import repair, submitting
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket


def begin(queue: Queue, spec: Spec) -> Claim:
    """A new job, in the hands of this process, with its first attempt begun: it waits for no other.

    Raises QueueError, and OSError.
    """
    queue.create()
    (ticket,) = submitting.numbered(queue.home, [dataclasses.replace(Ticket.new(spec), after=[])])
    while (lease := Lease.acquire(queue.paths.lease(ticket.id))) is None:
        time.sleep(0.01)  # nobody knows the id yet, but a repair may be looking whether the lease is free
    claim = Claim(ticket, lease, Attempts(), spec)
    with _released_on_error(lease):
        claim.attempts.begin(FOREGROUND, record_of(claim))
        queue.records.write_attempts(ticket.id, claim.attempts)  # first: without it the next repair would queue the job
        submitting.put(queue.paths, [ticket], "running")
    return claim


def take_up(queue: Queue, job_id: str) -> Claim:
    """A job of the queue that does not run, in the hands of this process, to go on from its last checkpoint, at once.

    Raises QueueError where it runs or has succeeded, or is no training, and OSError.
    """
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        raise QueueError(f"{job_id}: is running, or somebody is changing it right now")
    with _released_on_error(lease):
        repair.settle_abandoned(queue, job_id, lease)
        if queue.tickets.state(job_id) != "pending":
            repair.retry_held(queue, job_id)
        ticket = queue.tickets.read("pending", job_id)
        if not isinstance(ticket, Ticket):
            raise QueueError(f"{job_id}: its ticket cannot be read")
        if ticket.is_sweep:
            raise QueueError(f"{job_id}: is a sweep, which a worker runs; `pipeline retry {job_id}` queues it again")
        taken = queue.take(dataclasses.replace(ticket, after=[]), lease, FOREGROUND, record_of)
        if isinstance(taken, Ended):
            raise QueueError(f"{job_id}: {taken.end.outcome}: {taken.end.why}")
        if taken is None:
            raise QueueError(f"{job_id}: its ticket has moved on")
    return taken


def record_of(claim: Claim) -> dict[str, Any]:
    """What the record of an attempt says of who runs it."""
    return {"executor": FOREGROUND, "handle": {"lease": claim.lease.path.name}}


@contextlib.contextmanager
def _released_on_error(lease: Lease) -> Iterator[None]:
    try:
        yield
    except BaseException:
        lease.release()
        raise
