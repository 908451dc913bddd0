"""Jobs that nobody needs any more: which those are, what room they take, and how they are removed.

runs/<id>/ --rename--> runs/.removed-<id>/    first: from here on nobody takes it for a run
the ticket, then the job's records            in this order: a ticket without a recorded end would be queued again
runs/.removed-<id>/                           last; what a kill leaves goes with the next removal
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.ids import ID
from pipeline.home.lease import Lease
from pipeline.queue import sweeps
from pipeline.queue.job_queue import Queue
from pipeline.queue.repair import finish_removals, settle_abandoned
from pipeline.queue.tickets import Ticket
from pipeline.queue.views import ENDED, JobView, survey


@dataclass(frozen=True)
class Wanted:
    """Which of the jobs that have ended are to go: those that meet all that is asked. A sweep stands for its trials."""

    keep: int = 0  # the latest ones of them, which stay
    older_than_s: float = 0.0  # since they ended
    only_failed: bool = False


def choose(queue: Queue, wanted: Wanted) -> list[JobView]:
    """The jobs that are to go, oldest first. Raises OSError."""
    jobs = survey(queue).jobs
    there = {job.id for job in jobs}
    ended = [job for job in jobs if job.outcome is not None and (job.trial is None or job.sweep not in there)]
    if wanted.only_failed:
        well = {job.sweep for job in jobs if job.outcome == "succeeded"}
        ended = [job for job in ended if job.state == "failed" and job.id not in well]
    ended = ended[: max(0, len(ended) - wanted.keep)]
    return [job for job in ended if _age_s(job) >= wanted.older_than_s]


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
                found |= dict.fromkeys(_needed_by(ticket, queue.home.runs), job_id)
    return found


def who_needs(job_id: str, needed: Mapping[str, str]) -> str | None:
    """One of the jobs that need a job, by what `needs` has found."""
    return next((by for named, by in needed.items() if job_id.startswith(named)), None)


def _needed_by(ticket: Ticket, runs: Path) -> Iterator[str]:
    yield from ticket.after
    model, search = ticket.spec.get("model"), ticket.spec.get("search")
    tried = search.get("space", {}).get("model.init") if isinstance(search, dict) else None
    begun_with = [model.get("init") if isinstance(model, dict) else None, *(tried if isinstance(tried, list) else [])]
    for init in begun_with:
        if isinstance(init, str) and init:
            path = Path(init)
            yield path.relative_to(runs).parts[0] if path.is_relative_to(runs) and path != runs else init


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


def remove(queue: Queue, job_id: str, needed: Mapping[str, str] | None = None) -> int:
    """Removes a job that has ended, with all that it left; a sweep with its trials. Returns how many trials those were.

    needed: what others need, where that is known. Raises QueueError where the job has not ended, another job needs it,
    or some of its files stay, and OSError.
    """
    needed = needs(queue) if needed is None else needed
    trials = [trial for trial in _trials(queue, job_id) if queue.tickets.state(trial)]
    for each in (job_id, *trials):
        if (by := who_needs(each, needed)) is not None:
            raise QueueError(f"{each}: {by} needs it; cancel that first, or wait for its end")
        with _held(queue, each):
            pass  # before anything is removed: all have ended
    with _held(queue, job_id):  # so that nobody takes a sweep up meanwhile
        _require_no_sweep(queue, job_id)
        for trial in trials:
            with _held(queue, trial):
                _remove(queue, trial)
        _remove(queue, job_id)
    return len(trials)


@contextlib.contextmanager
def _held(queue: Queue, job_id: str) -> Iterator[None]:
    """With the lease of a job that has ended. Raises QueueError."""
    lease = Lease.acquire(queue.paths.lease(job_id))
    if lease is None:
        raise QueueError(f"{job_id}: is running; `pipeline cancel {job_id}` stops it")
    try:
        settle_abandoned(queue, job_id, lease)
        state = queue.tickets.state(job_id)
        if state in ("pending", "running"):
            what = "waits" if state == "pending" else "is running"
            raise QueueError(f"{job_id}: {what}; `pipeline cancel {job_id}` first")
        yield
    finally:
        lease.release()


def _require_no_sweep(queue: Queue, job_id: str) -> None:
    """Raises QueueError for a trial whose sweep still counts on it."""
    end = queue.records.sound_end(job_id)
    sweep = None if end is None or end.sweep == job_id else end.sweep
    if sweep is not None and queue.tickets.state(sweep) in ("pending", "running"):
        raise QueueError(f"{job_id}: is a trial of {sweep}, which has not ended")


def _remove(queue: Queue, job_id: str) -> None:
    run, hidden = queue.home.run(job_id).root, queue.home.removed_run(job_id)
    shutil.rmtree(hidden, ignore_errors=True)  # of a removal that was killed, of a job that was retried then
    if run.is_symlink():
        run.unlink()
    with contextlib.suppress(FileNotFoundError):
        run.rename(hidden)
        durable.fsync_folder(run.parent)
    for state in ENDED:
        queue.paths.ticket(state, job_id).unlink(missing_ok=True)
        durable.fsync_folder(queue.paths.state(state))
    queue.records.clear(queue.paths.cancel_request(job_id))
    shutil.rmtree(queue.paths.job(job_id), ignore_errors=True)
    shutil.rmtree(hidden, ignore_errors=True)
    if os.path.lexists(hidden):
        raise QueueError(f"{job_id}: is removed, but not all of its files: {hidden}")


def finish(queue: Queue) -> None:
    """Removes what removals that were killed have left. Raises OSError where a folder cannot be listed."""
    finish_removals(queue)
    there = queue.tickets.states()
    for job_id in durable.names_in(queue.paths.jobs):
        if job_id not in there and ID.fullmatch(job_id):
            lease = Lease.acquire(queue.paths.lease(job_id))
            if lease is not None:
                if queue.tickets.state(job_id) is None:
                    shutil.rmtree(queue.paths.job(job_id), ignore_errors=True)
                lease.release()
