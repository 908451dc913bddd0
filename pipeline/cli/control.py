"""The commands that change what becomes of a job: cancel, retry."""

from __future__ import annotations

import typer

from pipeline.cli.arguments import Ids, queue_of
from pipeline.errors import QueueError
from pipeline.queue import repair


def cancel(context: typer.Context, ids: Ids) -> None:
    """Cancel jobs that wait or run."""
    queue = queue_of(context)
    refused = []
    for job_id in [queue.tickets.find(prefix) for prefix in ids]:
        try:
            done = repair.cancel(queue, job_id)
        except QueueError as error:  # the others are cancelled all the same
            refused.append(str(error))
            continue
        typer.echo(f"{job_id}: {'cancelled' if done == 'cancelled' else 'its worker was asked to stop it'}")
    if refused:
        raise QueueError("\n".join(refused))


def retry(context: typer.Context, ids: Ids) -> None:
    """Queue failed or cancelled jobs again; each goes on from its last checkpoint, in the same run."""
    queue = queue_of(context)
    for job_id in [queue.tickets.find(prefix) for prefix in ids]:
        repair.retry(queue, job_id)
        typer.echo(f"{job_id}: queued again")
