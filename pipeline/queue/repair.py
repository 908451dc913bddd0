"""What is done to a job by others than its worker: repair after a crash, cancelling, retrying.

All of it happens under the job's lease, so that it is safe beside any number of live workers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.records import FOLDER_OF, End, Result, now
from pipeline.queue.job_queue import Claim, Queue

OLD_TEMPORARY_S = 3600


def repair(queue: Queue) -> list[str]:
    """Bring every ticket where its recorded end says; what was done, in words."""
    _remove_old_temporaries(queue)
    _remove_free_leases(queue)
    _remove_old_stop_requests(queue)
    done = []
    for state in ("pending", "done", "failed", "cancelled"):
        for job_id in queue.tickets.ids(state):
            try:
                done += _place(queue, job_id, state)
            except OSError as error:
                done.append(f"{job_id}: cannot be repaired now: {error}")
    return done + repair_running(queue)


def _place(queue: Queue, job_id: str, state: str) -> list[str]:
    """Move a ticket that nobody runs where its recorded end says."""
    end = End.read(queue.paths.end(job_id))
    if state == (FOLDER_OF[end.outcome] if end else "pending"):
        return []
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        return []
    try:
        if queue.follow_end(job_id, state):
            return [f"{job_id}: had ended; moved out of {state}"]
        if state == "pending":
            return []
        queue.tickets.move(job_id, state, "pending")
    finally:
        lease.release()
    return [f"{job_id}: has no recorded end; queued again"]


def repair_running(queue: Queue) -> list[str]:
    """Settle the jobs in `running/` whose lease nobody holds: their worker and their child are dead."""
    done = []
    for job_id in queue.tickets.ids("running"):
        try:
            lease = Lease.acquire(queue.paths.lease(job_id))
            if lease is None:
                continue
            try:
                state = _settle_abandoned(queue, job_id, lease)
            finally:
                lease.release()
        except OSError as error:
            done.append(f"{job_id}: its worker died, and it cannot be queued again now: {error}")
            continue
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
    claim = Claim(ticket, lease, queue.sound_attempts(job_id))
    number, run = claim.attempts.number, queue.home.run(job_id)
    if not claim.attempts.is_open:
        return queue.end_waiting(claim) if queue.is_cancel_requested(job_id) else queue.requeue(claim)
    left = Result.read(run.result)
    if left is None or left.attempt != number:
        left = Result(number, "lost", f"attempt {number} was lost: its worker was killed, or the machine went down")
        durable.make_folder(run.root)
        left.write(run.result)
    return queue.settle(claim, left)


def _remove_old_temporaries(queue: Queue) -> None:
    """Half-written files of processes that were killed; nobody was told of them."""
    folders = (queue.paths.tmp, queue.paths.control, queue.paths.quarantine)
    for path in (path for folder in folders for path in folder.glob(".*.tmp")):
        with contextlib.suppress(OSError):  # a folder, or gone meanwhile
            if time.time() - path.lstat().st_mtime > OLD_TEMPORARY_S:
                path.unlink()


def _remove_free_leases(queue: Queue) -> None:
    """The files of workers and children that were killed; nobody can mistake them, but they would add up."""
    for path in queue.paths.leases.iterdir():
        with contextlib.suppress(OSError):
            lease = Lease.acquire(path)
            if lease is not None:
                lease.release()


def _remove_old_stop_requests(queue: Queue) -> None:
    """To workers that are gone, where nobody waited for them to the end."""
    for path in queue.paths.control.glob(".worker-*.stop"):
        with contextlib.suppress(OSError):
            if not Lease.is_held(queue.paths.leases / path.stem):
                path.unlink()


def cancel(queue: Queue, job_id: str) -> str:
    """Cancel a job that waits, or ask the worker of a running one to stop it: `cancelled` or `stopping`.

    Raises QueueError where the job has ended.
    """
    state = queue.tickets.state(job_id)
    if state not in ("pending", "running"):
        raise QueueError(_cannot_be_cancelled(job_id, state))
    with _as_queue_error(f"{job_id}: cannot be cancelled now"):
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
        raise QueueError(_cannot_be_cancelled(job_id, state))
    return "cancelled"


def _cannot_be_cancelled(job_id: str, state: str | None) -> str:
    return f"{job_id}: has ended already ({state})" if state else f"{job_id}: its ticket is not in the queue any more"


def retry(queue: Queue, job_id: str) -> None:
    """Queue an ended job that did not succeed again; it goes on from its last checkpoint, in the same run.

    Raises QueueError where the job did not end, or succeeded.
    """
    with _as_queue_error(f"{job_id}: cannot be queued again now"):
        lease = Lease.acquire(queue.paths.lease(job_id))
        if lease is None:
            raise QueueError(f"{job_id}: is running, or somebody is changing it right now")
        try:
            _retry(queue, job_id, queue.tickets.state(job_id))
        finally:
            lease.release()


def _retry(queue: Queue, job_id: str, state: str | None) -> None:
    if state not in ("failed", "cancelled"):
        hint = "; submit its job file again for a new run" if state == "done" else ""
        raise QueueError(f"{job_id}: is {state}; only a failed or cancelled job can be retried{hint}")
    end, attempts = queue.recorded_end(job_id), queue.sound_attempts(job_id)
    if end is not None and attempts.is_open:
        attempts.end(end.outcome, end.why)
    attempts.retries_used = 0
    attempts.write(queue.paths.attempts(job_id))
    queue.paths.cancel_request(job_id).unlink(missing_ok=True)  # one that came when it had just ended
    if end is not None:
        path = queue.paths.end(job_id)
        path.replace(path.with_name(f"result-{attempts.number}.json"))
        durable.fsync_folder(path.parent)
    queue.tickets.move(job_id, state, "pending")


@contextlib.contextmanager
def _as_queue_error(what: str) -> Iterator[None]:
    """Make what the disk refuses a message for a person; what was half done is finished by the next repair."""
    try:
        yield
    except OSError as error:
        raise QueueError(f"{what}: {error.strerror}") from None
