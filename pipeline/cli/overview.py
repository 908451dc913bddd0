"""The commands that look at jobs and change nothing: status, show, logs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipeline.cli import sweeps as sweep_output
from pipeline.cli.address import way_to_tensorboard
from pipeline.cli.arguments import Id, Json, hint_at_worker, message, print_json, print_json_lines, queue_of
from pipeline.cli.terminal import RECENT, print_facts, print_job, print_jobs
from pipeline.errors import UsageError
from pipeline.queue import sweeps, views
from pipeline.queue.job_log import JobLog

State = Literal["pending", "running", "done", "failed", "cancelled"]


def status(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.", show_default=False)] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all jobs, not only the latest that ended and the next that wait.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing them, with a bar for each that runs; Ctrl-C ends it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the jobs."""
    queue = queue_of(context)
    if live:
        from pipeline.cli.watch import watch

        if as_json:
            raise UsageError("--watch and --json cannot be given together: a program asks for --json again and again")
        watch(queue, state=state, everything=everything)
        return
    found = views.survey(queue, state, most_ended=None if everything or as_json else RECENT)
    if as_json:
        print_json_lines(job.to_json() for job in found.jobs)
        return
    if not found.jobs:
        message(
            f"no jobs{f' are {state}' if state else ''} in {queue.home.root}; submit one with `make submit JOB=digits`"
        )
    else:
        print_jobs(found, show_all=everything, all_ids=queue.tickets.states)
    for file in [*found.foreign, *queue.tickets.foreign(found.ids)]:
        message(f"not a ticket, the next worker puts it into quarantine: {file}")
    for line in queue.tickets.quarantined():
        message(f"in quarantine: {line}")
    if any(job.state == "pending" for job in found.jobs):
        hint_at_worker(queue)


def show(context: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """Show one job: its end, its figures, where its run lies and how to look at it; of a sweep, its best trials."""
    queue = queue_of(context)
    job = views.find(queue, job_id)
    if job.is_sweep and (sweep := sweeps.look(queue, job.id)):
        if as_json:
            print_json(sweep_output.to_json(job, sweep))
        else:
            print_facts([*sweep_output.facts(job, sweep), ("TensorBoard", way_to_tensorboard(queue.home))])
            sweep_output.print_trials(sweep)
        return
    if as_json:
        print_json(job.to_json())
        return
    print_job(job, tensorboard=way_to_tensorboard(queue.home))


def logs(
    context: typer.Context,
    job_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print a job's log, all attempts of it."""
    queue = queue_of(context)
    job = views.find(queue, job_id)
    if follow and job.state == "pending":
        hint_at_worker(queue)
    log = JobLog(queue.home.run(job.id))
    for latest in views.changes(queue, job.id):
        typer.echo(log.read_more(), nl=False)
        job = latest
        if not follow:
            break
    typer.echo(log.read_more(), nl=False)  # what was written before its end was
    if not log.positions:
        reason = "its run folder was removed" if job.outcome else f"it is {job.state}"
        message(f"{job.id}: there is no log: {reason}")
