"""What is done to a job by others than its worker: repair after a crash, cancelling, retrying.

All of it happens under the job's lease, so that it is safe beside any number of live workers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.errors import QueueError, SpecError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import REMOVED
from pipeline.home.records import FOLDER_OF, End, Progress, Result, StopRequest
from pipeline.home.sweep_record import FOR_ITS_SWEEP
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import ForeignFile

OLD_TEMPORARY_S = 3600.0
HOPELESS = 3  # repairs in a row


@dataclass(frozen=True)
class Repaired:
    """Something that was put right, or could not be, in words. end: of a job that has ended by it."""

    line: str
    job_id: str = ""
    end: End | None = None
    is_stuck: bool = False  # it could not be put right now, and is tried again
    was_in_foreground: bool = False


@dataclass
class StuckJobs:
    """The jobs that repair could not help time after time, so that nobody waits for them."""

    _times: dict[str, int] = field(default_factory=dict)

    def count(self, done: Sequence[Repaired]) -> None:
        """To be told of each repair."""
        stuck = {repaired.job_id for repaired in done if repaired.is_stuck}
        self._times = {job_id: self._times.get(job_id, 0) + 1 for job_id in stuck}

    @property
    def jobs(self) -> set[str]:
        return {job_id for job_id, times in self._times.items() if times >= HOPELESS}


def repair(queue: Queue) -> list[Repaired]:
    """Bring everything where it belongs: leftovers away, foreign files to quarantine, tickets where their end says.

    Raises OSError where a folder cannot be listed now; what was done by then stays done.
    """
    _remove_old_temporaries(queue)
    _remove_free_leases(queue)
    _remove_old_stop_requests(queue)
    finish_removals(queue)
    done = quarantine_foreign_files(queue)
    for state in ("pending", "done", "failed", "cancelled"):
        ids = queue.tickets.ids(state)
        if state == "pending":  # most of them have no records at all
            ids = list(set(ids).intersection(durable.names_in(queue.paths.jobs)))
        durable.expect(len(ids))
        for job_id in ids:
            try:
                done += _move_where_its_end_says(queue, job_id, state)
            except OSError as error:
                why = f"cannot be repaired now: {durable.in_words(error)}"
                done.append(Repaired(f"{job_id}: {why}", job_id, is_stuck=True))
    return done + repair_running(queue)


def quarantine_foreign_files(queue: Queue) -> list[Repaired]:
    """Move what is no ticket out of the tickets' folders; where that cannot be done it stays."""
    return [_quarantine(queue, file) for file in queue.foreign()]


def _quarantine(queue: Queue, file: ForeignFile) -> Repaired:
    if queue.tickets.quarantine(file.path, file.why):
        return Repaired(f"to quarantine: {file}")
    return Repaired(f"cannot be moved to quarantine now: {file}")


def _move_where_its_end_says(queue: Queue, job_id: str, state: str) -> list[Repaired]:
    """Move a ticket that nobody runs where its recorded end says."""
    end = queue.records.sound_end(job_id)
    if state == (FOLDER_OF[end.outcome] if end else "pending"):
        return []
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        return []
    try:
        if queue.follow_end(job_id, state):
            return [Repaired(f"{job_id}: had ended; moved out of {state}", job_id)]
        if state == "pending":
            return []
        if isinstance(file := queue.tickets.read(state, job_id), ForeignFile):
            return [_quarantine(queue, file)]
        queue.tickets.move(job_id, state, "pending")
    finally:
        lease.release()
    return [Repaired(f"{job_id}: has no recorded end; queued again", job_id)]


def repair_running(queue: Queue) -> list[Repaired]:
    """Settle the jobs in `running/` that nobody runs: their worker and their attempt are dead."""
    done: list[Repaired] = []
    for job_id in queue.tickets.ids("running"):
        try:
            done += _settle_if_abandoned(queue, job_id)
        except OSError as error:
            why = f"its worker died, and it cannot be queued again now: {durable.in_words(error)}"
            done.append(Repaired(f"{job_id}: {why}", job_id, is_stuck=True))
    return done


def _settle_if_abandoned(queue: Queue, job_id: str) -> list[Repaired]:
    if Lease.is_held(queue.paths.lease(job_id)):
        return []
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        return []
    try:
        settled = settle_abandoned(queue, job_id, lease)
    finally:
        lease.release()
    if settled is None:
        return []
    state, end = settled
    what = f"now {state}" if end is None else f"{end.outcome}: {end.why}"
    in_foreground = queue.attempts(job_id).is_in_foreground
    who = "process" if in_foreground else "worker"
    return [Repaired(f"{job_id}: its {who} died; {what}", job_id, end, was_in_foreground=in_foreground)]


def settle_abandoned(queue: Queue, job_id: str, lease: Lease) -> tuple[str | None, End | None] | None:
    """Go by what the last attempt left. The job's state, and its end.

    None where its ticket has moved on meanwhile, or its attempt may live elsewhere: then a worker of its engine asks.
    """
    ticket = queue.tickets.read("running", job_id)
    if ticket is None or isinstance(ticket, ForeignFile):
        return None
    durable.remove_temporaries(queue.paths.job(job_id))
    if end := queue.follow_end(job_id, "running"):
        return queue.tickets.state(job_id), end
    claim = Claim(ticket, lease, queue.records.sound_attempts(job_id))
    if claim.attempts.is_elsewhere:
        return None
    with contextlib.suppress(SpecError):  # then it ends as invalid when it is claimed
        claim.spec = ticket.validated()
    run = queue.home.run(job_id)
    if claim.attempts.is_open:
        end = queue.settle(claim, _left_by(claim, Result.read(run.result), Progress.glance(run.progress)))
    elif request := queue.stop_request(job_id):
        end = queue.end_waiting(claim, request).end
    else:
        queue.requeue(claim)
    return queue.tickets.state(job_id), end


def _left_by(claim: Claim, result: Result | None, progress: Progress | None) -> Result:
    """How the latest attempt ended, by what it left."""
    number = claim.attempts.number
    if result is not None and result.attempt == number:
        return result
    who = "process" if claim.attempts.is_in_foreground else "worker"
    why = f"attempt {number} was lost: its {who} was killed, or the machine went down"
    return Result.after(progress or Progress(number), attempt=number, outcome="lost", why=why)


def _remove_old_temporaries(queue: Queue) -> None:
    """Removes what processes that were killed were writing; nobody was told of it."""
    folders = (queue.paths.tmp, queue.paths.control, queue.paths.quarantine, queue.paths.root, queue.home.runs)
    for folder in folders:
        durable.remove_temporaries(folder, older_than_s=OLD_TEMPORARY_S)


def _remove_free_leases(queue: Queue) -> None:
    """Removes the files of workers and attempts that were killed; they harm nobody, but they would add up."""
    for path in queue.paths.leases.iterdir():
        with contextlib.suppress(OSError):
            lease = Lease.acquire(path)
            if lease is not None:
                lease.release()


def _remove_old_stop_requests(queue: Queue) -> None:
    """Removes requests to workers that are gone, where nobody waited for them to the end."""
    for path in queue.paths.control.glob(".worker-*.stop"):
        with contextlib.suppress(OSError):
            if not Lease.is_held(queue.paths.leases / path.stem):
                path.unlink()


def finish_removals(queue: Queue) -> None:
    """Removes what removals of jobs that were killed have left. Raises OSError where the runs cannot be listed."""
    for name in durable.names_in(queue.home.runs):
        if name.startswith(REMOVED):
            shutil.rmtree(queue.home.runs / name, ignore_errors=True)


def cancel(queue: Queue, job_id: str, why: str = "") -> str:
    """Cancel a job that waits, or ask the worker of a running one to stop it: `cancelled` or `stopping`.

    why: what its end is to say, where that is more. Raises QueueError where the job has ended.
    """
    with _as_queue_error(f"{job_id}: cannot be cancelled now"):
        state = queue.tickets.state(job_id)
        if state not in ("pending", "running"):
            raise QueueError(_cannot_be_cancelled(job_id, state))
        queue.records.ask_to_stop(job_id, StopRequest(why=why), gives_way=why in FOR_ITS_SWEEP)
        lease = Lease.acquire(queue.paths.lease(job_id))
        if lease is None:
            return "stopping"
        try:
            queue.tickets.move(job_id, "pending", "running")
            if settle_abandoned(queue, job_id, lease) is None and queue.attempts(job_id).is_elsewhere:
                return "stopping"
            state = queue.tickets.state(job_id)
        finally:
            lease.release()
    if state != "cancelled":  # it ended by itself meanwhile
        queue.records.clear(queue.paths.cancel_request(job_id))
        raise QueueError(_cannot_be_cancelled(job_id, state))
    return "cancelled"


def prune(queue: Queue, job_id: str, why: str) -> None:
    """Have a job end as pruned, whether it runs or is to be run again. Raises OSError."""
    queue.records.ask_to_stop(job_id, StopRequest("pruned", why), gives_way=True)


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
            retry_held(queue, job_id)
        finally:
            lease.release()


def retry_held(queue: Queue, job_id: str) -> None:
    """As `retry`, for whoever holds the job's lease. Raises OSError."""
    state = queue.tickets.state(job_id)
    if state not in ("failed", "cancelled"):
        hint = "; submit its job file again for a new run" if state == "done" else ""
        raise QueueError(
            f"{job_id}: is {state or 'not there any more'}; only a failed or cancelled job can be retried{hint}"
        )
    end, attempts = queue.records.recorded_end(job_id), queue.records.sound_attempts(job_id)
    if end is not None and attempts.is_open:
        attempts.end(end)
    attempts.retries_used = 0
    queue.records.write_attempts(job_id, attempts)
    queue.records.clear(queue.paths.cancel_request(job_id))  # one that came when it had just ended
    durable.fsync_folder(queue.paths.control)
    path = queue.paths.end(job_id)
    if end is not None:
        with contextlib.suppress(FileExistsError):  # kept by a retry that was killed
            os.link(path, path.with_name(f"result-{attempts.number}.json"))
    queue.tickets.move(job_id, state, "pending")
    if end is not None:  # until it is gone the job has ended, wherever its ticket lies
        path.unlink()
        durable.fsync_folder(path.parent)


@contextlib.contextmanager
def _as_queue_error(what: str) -> Iterator[None]:
    """Make what the disk refuses a message for a person; what was half done is finished by the next repair."""
    try:
        yield
    except OSError as error:
        raise QueueError(f"{what}: {durable.in_words(error)}") from error
