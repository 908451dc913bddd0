"""The commands that remove jobs with all that they left: rm, prune."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.arguments import Ids, message, print_lines, queue_of
from pipeline.cli.control import do_each
from pipeline.errors import PipelineError, UsageError
from pipeline.home import durable
from pipeline.home.ids import ID
from pipeline.queue import removal
from pipeline.wording import in_bytes, plural, table

if TYPE_CHECKING:
    from pipeline.queue.job_queue import Queue
    from pipeline.queue.views import JobView


def rm(context: typer.Context, ids: Ids) -> None:
    """Remove jobs that have ended, with their runs and checkpoints; a sweep with its trials."""
    queue = queue_of(context)

    def remove_one(job_id: str) -> str:
        num_trials = removal.remove(queue, job_id)
        return f"removed, and {plural(num_trials, 'trial')} of it" if num_trials else "removed"

    removal.finish(queue)
    do_each(queue, ids, remove_one, find=lambda word: _find(queue, word))


def _find(queue: Queue, word: str) -> str:
    """A job; or, by its whole id, a run that has no ticket, as of an earlier version. Raises UsageError."""
    if ID.fullmatch(word) and queue.tickets.state(word) is None and queue.home.run(word).root.is_dir():
        return word
    return queue.tickets.find(word)


def prune(
    context: typer.Context,
    keep: Annotated[int | None, typer.Option(min=0, metavar="N", help="The latest N stay.", show_default=False)] = None,
    older: Annotated[
        str | None, typer.Option(metavar="30d", help="Only what ended so long ago.", show_default=False)
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only jobs that failed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them, and do not ask.")] = False,
) -> None:
    """Show which jobs that have ended would be removed, and remove them once that is confirmed.

    Of several options all count: --failed --keep 5 leaves the latest five that failed, and all that did not fail.
    """
    if keep is None and older is None and not failed:
        raise UsageError("which jobs? --keep N, --older 30d, --failed, or several of these")
    queue = queue_of(context)
    wanted = removal.Wanted(keep or 0, _seconds(older) if older is not None else 0.0, failed)
    needed = removal.needs(queue)
    meant = removal.choose(queue, wanted)
    chosen = [job for job in meant if removal.who_needs(job.id, needed) is None]
    if len(meant) > len(chosen):
        message(f"left out, as other jobs need what they have: {plural(len(meant) - len(chosen), 'job')}")
    if not chosen:
        message(f"there is nothing to remove in {queue.home.root}")
        return
    sizes = [removal.size_of(queue, job) for job in chosen]
    rows = [("ID", "OUTCOME", "FINISHED", "SIZE")]
    rows += [(job.id, str(job.outcome), _day(job), in_bytes(size)) for job, size in zip(chosen, sizes, strict=True)]
    print_lines(table(rows))
    what = f"{plural(len(chosen), 'job')} with {in_bytes(sum(sizes))}"
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"remove {what}?", err=True)):
        message(f"nothing was removed; --yes removes {what}")
        return
    _remove_all(queue, [job.id for job in chosen], needed)
    message(f"removed {what}")


def _day(job: JobView) -> str:
    return (job.finished_at or "")[:16].replace("T", " ")


def _seconds(text: str) -> float:
    """Raises UsageError for what is no duration."""
    from pydantic_core import PydanticCustomError

    from pipeline.jobfile.fields import InSeconds

    try:
        return InSeconds().convert(text)
    except PydanticCustomError as error:
        raise UsageError(f"--older: {text!r} {error.message()}") from None


def _remove_all(queue: Queue, job_ids: list[str], needed: Mapping[str, str]) -> None:
    """Raises PipelineError with all that could not be removed, after the others."""
    removal.finish(queue)
    refused = []
    for job_id in job_ids:
        try:
            removal.remove(queue, job_id, needed)
        except PipelineError as error:
            refused.append(str(error))
        except OSError as error:
            refused.append(f"{job_id}: cannot be removed now: {durable.in_words(error)}")
    if refused:
        raise PipelineError("\n".join(refused))
