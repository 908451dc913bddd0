"""Tickets on their way into the queue: each gets its id, and all are there or none."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from pipeline.errors import QueueError
from pipeline.home import durable, sequence
from pipeline.home.paths import Home, QueuePaths
from pipeline.queue.tickets import Ticket


def numbered(home: Home, tickets: Sequence[Ticket]) -> list[Ticket]:
    """The tickets with ids; one that has its id keeps it. Raises QueueError."""
    try:
        ids = iter(sequence.new_ids(home, [ticket.name for ticket in tickets if not ticket.id]))
    except OSError as error:
        raise QueueError(f"{home.queue.sequence}: no id can be given: {durable.in_words(error)}") from error
    return [ticket if ticket.id else dataclasses.replace(ticket, id=next(ids)) for ticket in tickets]


def put(paths: QueuePaths, tickets: Sequence[Ticket], state: str = "pending") -> None:
    """Writes tickets that have their ids into a state's folder, in their order.

    All are in, or none, and QueueError says why.
    """
    ids: list[str] = []
    try:
        for ticket in tickets:
            content = ticket.to_json()
            ids.append(ticket.id)  # first: an error below may come when the ticket is there already
            durable.create(paths.ticket(state, ticket.id), content, by_way_of=paths.tmp)
        durable.fsync_folder(paths.state(state))
    except BaseException as error:
        for job_id in reversed(ids):  # nobody was told of it yet; a worker that was quicker keeps its job
            with contextlib.suppress(OSError):
                paths.ticket(state, job_id).unlink()
        if isinstance(error, OSError):
            raise QueueError(f"{paths.root}: nothing was submitted: {error.strerror}") from error
        raise
