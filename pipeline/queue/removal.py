"""Jobs that nobody needs any more: which those are, what room they take, and how they are removed.

runs/<id>/ --rename--> runs/.removed-<id>/    first: from here on nobody takes it for a run
the ticket, then the job's records            in this order: a ticket without a recorded end would be queued again
runs/.removed-<id>/                           last; what a kill leaves of it goes with the next removal, or repair
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.queue import sweeps
from pipeline.queue.job_queue import Queue
from pipeline.queue.repair import settle_abandoned
from pipeline.queue.tickets import Ticket
from pipeline.queue.views import JobView, survey


@dataclass(frozen=True)
class Wanted:
    """Which of the jobs that have ended are to go: those that meet all that is asked. A sweep stands for its trials."""

    keep: int = 0  # the latest ones of them, which stay
    older_than_s: float = 0.0  # since they ended
    only_failed: bool = False


def choose(queue: Queue, wanted: Wanted) -> list[JobView]:
    """The jobs that are to go, oldest first, without those that others need. Raises OSError."""
    jobs = survey(queue).jobs
    there = {job.id for job in jobs}
    ended = [job for job in jobs if job.outcome is not None and (job.trial is None or job.sweep not in there)]
    if wanted.only_failed:
        ended = [job for job in ended if job.state == "failed"]
    ended = ended[: max(0, len(ended) - wanted.keep)]
    needed = needs(queue)
    return [job for job in ended if not who_needs(job.id, needed) and _age_s(job) >= wanted.older_than_s]


def _age_s(job: JobView) -> float:
    """Since it ended; of one whose record does not say when, none."""
    with contextlib.suppress(ValueError):
        return time.time() - datetime.fromisoformat(job.finished_at or "").timestamp()
    return 0.0


def needs(queue: Queue) -> dict[str, str]:
    """Ids, or beginnings of ids, that jobs name which wait or run, each with one of these jobs. Raises OSError."""
    found: dict[str, str] = {}
    durable.expect(len(queue.tickets.ids("pending")))
    for state in ("pending", "running"):
        for job_id in queue.tickets.ids(state):
            ticket = queue.tickets.read(state, job_id)
            if isinstance(ticket, Ticket):
                found |= dict.fromkeys(_needed_by(ticket), job_id)
    return found


def who_needs(job_id: str, needed: dict[str, str]) -> str | None:
    """One of the jobs that need a job, by what `needs` has found."""
    return next((by for named, by in needed.items() if job_id.startswith(named)), None)


def _needed_by(ticket: Ticket) -> Iterator[str]:
    yield from ticket.after
    model = ticket.spec.get("model")
    if isinstance(model, dict) and isinstance(begun_with := model.get("init"), str):
        yield begun_with


def size_of(queue: Queue, job: JobView) -> int:
    """Bytes on the disk of a job's run, and of its trials'. What cannot be read counts nothing."""
    ids = [job.id, *(_trials(queue, job.id) if job.is_sweep else [])]
    return sum(_size(queue.home.run(job_id).root) for job_id in ids)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_blocks * 512
    return total


def _trials(queue: Queue, sweep_id: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sweeps.jobs_of(queue, sweep_id)
    return []


def remove(queue: Queue, job_id: str) -> int:
    """Removes a job that has ended, with all that it left; a sweep with its trials. How many trials those were.

    Raises QueueError where it has not ended, or another job needs it, and OSError.
    """
    trials = [trial for trial in _trials(queue, job_id) if queue.tickets.state(trial)]
    needed = needs(queue)
    for each in (job_id, *trials):
        if (by := who_needs(each, needed)) is not None:
            raise QueueError(f"{each}: {by} needs it; cancel that first, or wait for its end")
    with contextlib.ExitStack() as stack:
        for each in (job_id, *trials):
            stack.callback(_hold(queue, each).release)
        for each in (*trials, job_id):  # the sweep last: it knows of the others
            _remove(queue, each)
    return len(trials)


def _hold(queue: Queue, job_id: str) -> Lease:
    """The lease of a job that has ended. Raises QueueError."""
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        raise QueueError(f"{job_id}: is running; `pipeline cancel {job_id}` stops it")
    try:
        settle_abandoned(queue, job_id, lease)
        state = queue.tickets.state(job_id)
    except BaseException:
        lease.release()
        raise
    if state in ("pending", "running"):
        lease.release()
        what = "waits" if state == "pending" else "is running"
        raise QueueError(f"{job_id}: {what}; `pipeline cancel {job_id}` first")
    return lease


def _remove(queue: Queue, job_id: str) -> None:
    run = queue.home.run(job_id).root
    hidden = queue.home.removed_run(job_id)
    with contextlib.suppress(FileNotFoundError):
        run.rename(hidden)
        durable.fsync_folder(run.parent)
    for state in ("done", "failed", "cancelled"):
        queue.paths.ticket(state, job_id).unlink(missing_ok=True)
        durable.fsync_folder(queue.paths.state(state))
    queue.records.clear(queue.paths.cancel_request(job_id))
    shutil.rmtree(queue.paths.job(job_id), ignore_errors=True)
    shutil.rmtree(hidden, ignore_errors=True)
