"""The commands that change what becomes of a job: cancel, retry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.cli.arguments import Ids, message, queue_of
from pipeline.cli.streams import drop_unwritten_output
from pipeline.errors import QueueError, UsageError
from pipeline.home import durable
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
    """Do it to each job and say what was done, on stderr where stdout does not take it.

    Raises UsageError where an id is none, and else QueueError, with all that was refused, after the others.
    """
    refused: list[UsageError | QueueError] = []
    say: Callable[[str], None] = typer.echo
    for job_id in list(found(queue, ids, refused)):
        try:
            line = f"{job_id}: {do(job_id)}"
        except QueueError as error:
            refused.append(error)
            continue
        try:
            say(line)
        except OSError as error:  # no reason to leave the others
            drop_unwritten_output()
            say = message
            say(f"stdout does not take it ({error.strerror}), but this was done:\n{line}")
    if refused:
        kind = UsageError if any(isinstance(error, UsageError) for error in refused) else QueueError
        raise kind("\n".join(map(str, refused)))


def found(queue: Queue, ids: Sequence[str], refused: list[UsageError | QueueError]) -> Iterator[str]:
    """The jobs that are meant, each once. refused: takes what is wrong with the other ids."""
    seen = set()
    for prefix in ids:
        try:
            job_id = queue.tickets.find(prefix)
        except UsageError as error:
            refused.append(error)
        except OSError as error:
            refused.append(QueueError(f"{prefix}: cannot be looked for now: {durable.in_words(error)}"))
        else:
            if job_id not in seen:
                yield job_id
            seen.add(job_id)
