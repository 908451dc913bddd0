"""The commands that change what becomes of jobs: cancel, retry; of all that wait: pause, resume."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.cli.arguments import Ids, make_home, message, queue_of
from pipeline.cli.streams import drop_unwritten_output
from pipeline.errors import QueueError, UsageError
from pipeline.home import durable
from pipeline.home.sweep_record import CANCELLED
from pipeline.queue import pausing, repair, sweeps
from pipeline.wording import plural

if TYPE_CHECKING:
    from pipeline.queue.job_queue import Queue


def cancel(context: typer.Context, ids: Ids) -> None:
    """Cancel jobs that wait or run; a sweep with its trials."""
    queue = queue_of(context)

    def cancel_one(job_id: str) -> str:
        is_ended = repair.cancel(queue, job_id) == "cancelled"
        num_trials = 0
        with contextlib.suppress(OSError):
            num_trials = cancel_each(queue, sweeps.jobs_of(queue, job_id))
        trials = f", and {plural(num_trials, 'trial')} of it" if num_trials else ""
        return f"cancelled{trials}" if is_ended else f"its worker was asked to stop it{trials}"

    do_each(queue, ids, cancel_one)


def cancel_each(queue: Queue, job_ids: Sequence[str]) -> int:
    """Cancel the trials of a sweep that have not ended; how many those were."""
    count = 0
    for job_id in job_ids:
        with contextlib.suppress(QueueError):
            repair.cancel(queue, job_id, CANCELLED)
            count += 1
    return count


def retry(context: typer.Context, ids: Ids) -> None:
    """Queue failed or cancelled jobs again; each goes on from its last checkpoint, in the same run."""
    queue = queue_of(context)

    def retry_one(job_id: str) -> str:
        repair.retry(queue, job_id)
        return "queued again"

    do_each(queue, ids, retry_one)


def pause(context: typer.Context) -> None:
    """Start no further job of the queue; those that run go on."""
    queue = queue_of(context)
    make_home(queue)
    pausing.pause(queue)
    message(f"paused: no job of {queue.home.root} is started until `pipeline resume`; those that run go on")


def resume(context: typer.Context) -> None:
    """Have the queue's jobs started again."""
    queue = queue_of(context)
    message(f"{queue.home.root}: {'goes on' if pausing.resume(queue) else 'was not paused'}")


def do_each(
    queue: Queue,
    ids: Sequence[str],
    do: Callable[[str], str],
    find: Callable[[str], str] | None = None,
) -> None:
    """Do it to each job and say what was done, on stderr where stdout does not take it.

    find: gives the job that an argument means; else it is the queue's. Raises UsageError, before anything is done,
    where an id is none. Raises QueueError with all that was refused, after the others.
    """
    jobs, refused = find_each(find or queue.tickets.find, ids)
    say: Callable[[str], None] = typer.echo
    for job_id in jobs:
        try:
            line = f"{job_id}: {do(job_id)}"
        except QueueError as error:
            refused.append(str(error))
            continue
        except OSError as error:
            refused.append(f"{job_id}: that cannot be done now: {durable.in_words(error)}")
            continue
        try:
            say(line)
        except OSError as error:  # no reason to leave the others
            drop_unwritten_output()
            say = message
            say(f"stdout does not take it ({error.strerror}), but this was done:\n{line}")
    if refused:
        raise QueueError("\n".join(refused))


def find_each(find: Callable[[str], str], ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """The jobs that are meant, each once, and what the disk refused. Raises UsageError with all ids that are none."""
    jobs, refused, wrong = [], [], []
    for prefix in ids:
        try:
            jobs.append(find(prefix))
        except UsageError as error:
            wrong.append(str(error))
        except OSError as error:
            refused.append(f"{prefix}: cannot be looked for now: {durable.in_words(error)}")
    if wrong:
        raise UsageError("\n".join([*wrong, *(["so nothing was done"] if len(ids) > 1 else [])]))
    return list(dict.fromkeys(jobs)), refused
