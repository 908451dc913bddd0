"""The commands that remove jobs with all that they left: rm, prune."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.arguments import Ids, message, print_lines, queue_of
from pipeline.cli.control import do_each
from pipeline.errors import PipelineError, UsageError
from pipeline.home import durable
from pipeline.queue import removal, repair
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

    do_each(queue, ids, remove_one, find=lambda prefix: _find(queue, prefix))
    repair.finish_removals(queue)


def _find(queue: Queue, prefix: str) -> str:
    """A job, or a run that has no ticket. Raises UsageError."""
    from pipeline.results import runs

    try:
        return queue.tickets.find(prefix)
    except UsageError:
        try:
            return runs.find(queue.home, prefix).root.name
        except UsageError:
            pass
        raise


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
    chosen = removal.choose(queue, wanted)
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
    _remove_all(queue, [job.id for job in chosen])
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


def _remove_all(queue: Queue, job_ids: list[str]) -> None:
    """Raises PipelineError with all that could not be removed, after the others."""
    refused = []
    for job_id in job_ids:
        try:
            removal.remove(queue, job_id)
        except PipelineError as error:
            refused.append(str(error))
        except OSError as error:
            refused.append(f"{job_id}: cannot be removed now: {durable.in_words(error)}")
    repair.finish_removals(queue)
    if refused:
        raise PipelineError("\n".join(refused))
