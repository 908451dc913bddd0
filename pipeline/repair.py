"""What is done to a job by others than its worker: repair after a crash, cancelling, retrying.

All of it happens under the job's lease, so that it is safe beside any number of live workers.
"""

from __future__ import annotations

import dataclasses
import time

from pipeline import durable
from pipeline.errors import QueueError
from pipeline.jobqueue import Claim, Queue
from pipeline.lease import Lease
from pipeline.records import Result, now

OLD_TEMPORARY_S = 3600


def repair(queue: Queue) -> list[str]:
    """Bring every ticket where its recorded end says; what was done, in words."""
    _remove_old_temporaries(queue)
    done = []
    for state in ("pending", "done", "failed", "cancelled"):
        for job_id in queue.tickets.ids(state):
            ended = queue.paths.end(job_id).exists()
            if state == "pending" and ended and _place(queue, job_id, state):
                done.append(f"{job_id}: had ended; moved out of pending")
            elif state != "pending" and not ended and _place(queue, job_id, state):
                done.append(f"{job_id}: has no recorded end; queued again")
    return done + repair_running(queue)


def _place(queue: Queue, job_id: str, state: str) -> bool:
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        return False
    try:
        if not queue.follow_end(job_id, state) and state != "pending":
            queue.tickets.move(job_id, state, "pending")
    finally:
        lease.release()
    return True


def repair_running(queue: Queue) -> list[str]:
    """Settle the jobs in `running/` whose lease nobody holds: their worker and their child are dead."""
    done = []
    for job_id in queue.tickets.ids("running"):
        lease = Lease.acquire(queue.paths.lease(job_id))
        if lease is None:
            continue
        try:
            state = _settle_abandoned(queue, job_id, lease)
        finally:
            lease.release()
        if state is not None:
            done.append(f"{job_id}: its worker died; now {state}")
    return done


def _settle_abandoned(queue: Queue, job_id: str, lease: Lease) -> str | None:
    """Go by what the last attempt left. The job's state; None where its ticket has moved on meanwhile."""
    ticket = queue.tickets.read("running", job_id)
    if ticket is None:
        return None
    if queue.follow_end(job_id, "running"):
        return queue.tickets.state(job_id)
    claim = Claim(ticket, lease, queue.attempts(job_id))
    number, run = claim.attempts.number, queue.home.run(job_id)
    left = Result.read(run.result) or Result(number, "lost", "")
    if queue.is_cancel_requested(job_id):
        why = "cancelled" if number else "cancelled before it ran"
        return queue.settle(claim, dataclasses.replace(left, attempt=number, outcome="cancelled", why=why))
    if not claim.attempts.is_open:
        return queue.requeue(claim)
    if left.attempt != number or not left.why:
        left = Result(number, "lost", f"attempt {number} was lost: its worker was killed, or the machine went down")
        durable.make_folder(run.root)
        left.write(run.result)
    return queue.settle(claim, left)


def _remove_old_temporaries(queue: Queue) -> None:
    """Half-written files of processes that were killed; nobody was told of them."""
    for path in queue.paths.tmp.iterdir():
        try:
            if time.time() - path.lstat().st_mtime > OLD_TEMPORARY_S:
                path.unlink()
        except OSError:
            continue  # a folder, or gone meanwhile


def cancel(queue: Queue, job_id: str) -> str:
    """Cancel a job that waits, or ask the worker of a running one to stop it: `cancelled` or `stopping`.

    Raises QueueError where the job has ended.
    """
    if queue.tickets.state(job_id) not in ("pending", "running"):
        raise QueueError(f"{job_id}: has ended already ({queue.tickets.state(job_id)})")
    durable.replace_json(queue.paths.cancel_request(job_id), {"requested_at": now()})
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        return "stopping"
    try:
        queue.tickets.move(job_id, "pending", "running")
        state = _settle_abandoned(queue, job_id, lease) or queue.tickets.state(job_id)
    finally:
        lease.release()
    if state != "cancelled":  # it ended by itself meanwhile
        queue.paths.cancel_request(job_id).unlink(missing_ok=True)
        raise QueueError(f"{job_id}: has ended already ({state})")
    return "cancelled"


def retry(queue: Queue, job_id: str) -> None:
    """Queue an ended job that did not succeed again; it goes on from its last checkpoint, in the same run.

    Raises QueueError where the job did not end, or succeeded.
    """
    state = queue.tickets.state(job_id)
    if state not in ("failed", "cancelled"):
        hint = "; submit its job file again for a new run" if state == "done" else ""
        raise QueueError(f"{job_id}: is {state}; only a failed or cancelled job can be retried{hint}")
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        raise QueueError(f"{job_id}: somebody else is changing it right now; try again")
    try:
        attempts = queue.attempts(job_id)
        attempts.retries_used = 0
        attempts.write(queue.paths.attempts(job_id))
        end = queue.paths.end(job_id)
        if end.exists():
            end.replace(end.with_name(f"result-{attempts.number}.json"))
            durable.fsync_folder(end.parent)
        queue.tickets.move(job_id, state, "pending")
    finally:
        lease.release()
