"""The commands that change what becomes of a job: cancel, retry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.cli.arguments import Ids, queue_of
from pipeline.errors import QueueError
from pipeline.queue import repair

if TYPE_CHECKING:
    from pipeline.queue.job_queue import Queue


def cancel(context: typer.Context, ids: Ids) -> None:
    """Cancel jobs that wait or run."""
    queue = queue_of(context)

    def cancel_one(job_id: str) -> str:
        return "cancelled" if repair.cancel(queue, job_id) == "cancelled" else "its worker was asked to stop it"

    do_each(queue, ids, cancel_one)


def retry(context: typer.Context, ids: Ids) -> None:
    """Queue failed or cancelled jobs again; each goes on from its last checkpoint, in the same run."""
    queue = queue_of(context)

    def retry_one(job_id: str) -> str:
        repair.retry(queue, job_id)
        return "queued again"

    do_each(queue, ids, retry_one)


def do_each(queue: Queue, ids: Sequence[str], do: Callable[[str], str]) -> None:
    """Do it to each job and say what was done. Raises QueueError with all that was refused, after the others."""
    refused = []
    for job_id in [queue.tickets.find(prefix) for prefix in ids]:
        try:
            typer.echo(f"{job_id}: {do(job_id)}")
        except QueueError as error:
            refused.append(str(error))
    if refused:
        raise QueueError("\n".join(refused))
