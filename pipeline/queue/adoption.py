"""Jobs whose attempt lives elsewhere, at an engine, and that no worker watches: for the next worker of that engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipeline.errors import SpecError
from pipeline.home.lease import Lease
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import ForeignFile


def left_alone(queue: Queue, executor: str, cluster: str) -> Iterator[Claim]:
    """Claims to the running jobs of a cluster whose worker has gone. Who takes one holds its lease. Raises OSError.

    executor: the engine. cluster: which one of its kind.
    """
    for job_id in queue.tickets.ids("running"):
        if Lease.is_held(queue.paths.lease(job_id)) or not _is_of(queue, job_id, executor, cluster):
            continue
        lease = Lease.acquire(queue.paths.lease(job_id))
        if lease is None:
            continue
        claim = None
        try:
            claim = _claim(queue, job_id, lease) if _is_of(queue, job_id, executor, cluster) else None
        finally:
            if claim is None:
                lease.release()
        if claim is not None:
            yield claim


def _is_of(queue: Queue, job_id: str, executor: str, cluster: str) -> bool:
    attempts = queue.attempts(job_id)
    entry = attempts.latest
    is_there = entry.get("executor") == executor and entry.get("handle", {}).get("cluster", "") == cluster
    return attempts.is_elsewhere and is_there


def _claim(queue: Queue, job_id: str, lease: Lease) -> Claim | None:
    ticket = queue.tickets.read("running", job_id)
    if ticket is None or isinstance(ticket, ForeignFile) or queue.follow_end(job_id, "running"):
        return None
    claim = Claim(ticket, lease, queue.records.sound_attempts(job_id))
    with contextlib.suppress(SpecError):  # of another version: it is watched all the same
        claim.spec = ticket.validated()
    return claim
