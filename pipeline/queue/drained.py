"""Whether nothing is left to do, so that a worker which drains the queue may leave."""

from __future__ import annotations

from collections.abc import Container, Set

from pipeline.queue.job_queue import Queue, is_held
from pipeline.queue.tickets import Ticket


def is_drained(queue: Queue, but_for: Set[str] = frozenset()) -> bool:
    """Whether nothing waits: no ticket, no retry for its time, no job of a dead worker for its attempt to leave.

    Nor a sweep that runs, which may submit a further job. Running jobs are looked at first: one that goes back is seen
    there, or among those that wait. but_for: jobs that are not waited for, whatever state they are in.
    """
    running, alive = queue.tickets.ids("running"), queue.live_workers()
    if _without(but_for, queue, set(queue.tickets.ids("pending"))):
        return False
    return all(job_id in but_for or _leaves_nothing(queue, job_id, alive) for job_id in running)


def _without(but_for: Set[str], queue: Queue, pending: set[str]) -> set[str]:
    """Those that are waited for: not `but_for`, nor what is to run after one of these."""
    left, not_waited_for = pending - but_for, set(but_for)
    if not but_for:
        return left
    tickets = [ticket for job_id in left if isinstance(ticket := queue.tickets.read("pending", job_id), Ticket)]
    while more := {ticket.id for ticket in tickets if ticket.id in left and not_waited_for.intersection(ticket.after)}:
        not_waited_for |= more
        left -= more
    return left


def _leaves_nothing(queue: Queue, job_id: str, alive: Container[str]) -> bool:
    """Whether a worker that lives has it, or a terminal, and nothing but it; an unreadable record does not say."""
    if not is_held(queue.paths.lease(job_id)):
        return False
    try:
        ticket = queue.tickets.read("running", job_id)
        if isinstance(ticket, Ticket) and ticket.is_sweep:
            return False
        attempts = queue.attempts(job_id)
        return attempts.is_in_foreground or attempts.latest.get("worker", "") in alive
    except OSError:
        return True
