"""Whether nothing is left to do, so that a worker which drains the queue may leave."""

from __future__ import annotations

from collections.abc import Container, Set

from pipeline.home.records import FOREGROUND
from pipeline.queue.job_queue import Queue, is_held
from pipeline.queue.tickets import Ticket


def is_drained(queue: Queue, but_for: Set[str] = frozenset()) -> bool:
    """Whether nothing waits: no ticket, no retry for its time, no job of a dead worker for its attempt to leave.

    Nor a sweep that runs, which may submit a further job. Running jobs are looked at first: one that goes back is seen
    there, or among those that wait. but_for: jobs that are not waited for, whatever state they are in.
    """
    running, alive = queue.tickets.ids("running"), queue.live_workers()
    if not set(queue.tickets.ids("pending")).issubset(but_for):
        return False
    return all(job_id in but_for or _leaves_nothing(queue, job_id, alive) for job_id in running)


def _leaves_nothing(queue: Queue, job_id: str, alive: Container[str]) -> bool:
    """Whether a worker that lives has it, or a terminal, and nothing but it; an unreadable record does not say."""
    if not is_held(queue.paths.lease(job_id)):
        return False
    try:
        ticket = queue.tickets.read("running", job_id)
        if isinstance(ticket, Ticket) and ticket.is_sweep:
            return False
        latest = queue.attempts(job_id).latest
        return latest.get("executor") == FOREGROUND or latest.get("worker", "") in alive
    except OSError:
        return True
