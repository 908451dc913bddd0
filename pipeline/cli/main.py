"""The command line: parsing and printing only. Data goes to stdout, messages to stderr.

Exit codes: 0 done; 1 the job or the command failed; 2 bad usage or an invalid job file; `submit --wait` adds 3 failed,
4 cancelled, 5 timed out, 6 lost. Nothing that answers at once imports torch.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

import pipeline
from pipeline.cli import doctor as checks
from pipeline.cli import runs, workers
from pipeline.cli.arguments import File, Files, Id, Ids, Json, Overrides, message, print_json, print_lines, queue_of
from pipeline.cli.terminal import command_to_look, job_table, status_table
from pipeline.errors import PipelineError, QueueError, SpecError
from pipeline.home.paths import Home, RunPaths, find_data
from pipeline.jobfile import reading
from pipeline.jobfile.spec import Spec, json_schema
from pipeline.queue import repair
from pipeline.queue import views as jobs
from pipeline.queue.job_queue import Queue
from pipeline.wording import table
from pipeline.worker.executors.local import child_environment

app = typer.Typer(
    name="pipeline",
    help="Train image classifiers from job files: submit, walk away, look at TensorBoard.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
WITH_THE_WORKER = ("torch", "torchvision", "sklearn")  # left out of the image of TensorBoard and command line
State = Literal["pending", "running", "done", "failed", "cancelled"]


def main() -> NoReturn:
    """The console script. Errors that the program raises on purpose become a message and an exit code."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file name need not be text
    try:
        app()
    except PipelineError as error:
        message(f"error: {error}" if not isinstance(error, SpecError) else str(error))
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in WITH_THE_WORKER:
            raise
        words = shlex.join(sys.argv[1:])
        message(
            f"error: this needs {error.name}, which this image does without: docker compose run --rm worker {words}"
        )
        sys.exit(1)
    except OSError as error:  # what the system refuses where no command has a better message: a full disk, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains of what is left to print
        if not isinstance(error, BrokenPipeError):  # `pipeline status | head`
            message(f"error: {error}")
        sys.exit(1)
    sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(pipeline.__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(
            help="Folder of queue, runs and datasets; default: $PIPELINE_HOME, else ./var.", show_default=False
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    context.obj = Home.find(home)


def load_all(files: Sequence[Path], overrides: Sequence[str]) -> list[Spec]:
    """All specs. Raises SpecError with the problems of all files."""
    specs, problems = [], []
    for path in files:
        try:
            specs.append(reading.load(path, overrides))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))  # an override may be wrong in each file
    return specs


@app.command()
def validate(files: Files, overrides: Overrides = None) -> None:
    """Check job files and print every problem, by line."""
    load_all(files, overrides or [])
    for path in files:
        typer.echo(f"{path}: ok")


@app.command()
def submit(
    context: typer.Context,
    files: Files,
    overrides: Overrides = None,
    priority: Annotated[int | None, typer.Option(help="Higher runs first; overrides resources.priority.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code tells it.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the ids and nothing else.")] = False,
) -> None:
    """Put jobs into the queue and print their ids. Nothing is submitted if one of the files is wrong."""
    changes = list(overrides or []) + ([] if priority is None else [f"resources.priority={priority}"])
    queue = queue_of(context)
    specs = load_all(files, changes)
    warn_of_missing_folders(specs, queue.home)
    ids = queue.submit_all(specs)
    if as_json and not wait:
        print_json([jobs.find(queue, job_id).to_json() for job_id in ids])
    elif not as_json:
        print_lines(ids)
    if not quiet:
        hint_at_worker(queue)
    if wait:
        ends = wait_for(queue, ids)
        if as_json:
            print_json([end.to_json() for end in ends])
        raise typer.Exit(max(jobs.EXIT_CODES[str(end.outcome)] for end in ends))


def wait_for(queue: Queue, ids: Sequence[str]) -> list[jobs.JobView]:
    ends = []
    for job_id in ids:
        for view in jobs.changes(queue, job_id):
            last = view
        message(f"{job_id}: {last.outcome}: {last.why}")
        ends.append(last)
    return ends


def warn_of_missing_folders(specs: Sequence[Spec], home: Home) -> None:
    for spec in specs:
        path = spec.data.options().get("path")
        if path is not None and not (folder := find_data(home.datasets, Path(path).expanduser())).is_dir():
            message(f"warning: {spec.name}: there is no folder {folder} (yet)")


@app.command()
def status(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all ended jobs, not only the latest.")] = False,
    as_json: Json = False,
) -> None:
    """List the jobs."""
    queue = queue_of(context)
    views = jobs.jobs(queue, state)
    if as_json:
        print_json([view.to_json() for view in views])
        return
    if not views:
        message(
            f"no jobs{f' are {state}' if state else ''} in {queue.home.root}; submit one with `make submit JOB=digits`"
        )
    else:
        print_lines(status_table(views, all_ended=everything))
    for file in queue.foreign():
        message(f"not a ticket, the next worker puts it into quarantine: {file}")
    for line in queue.tickets.quarantined():
        message(f"in quarantine: {line}")
    if any(view.state == "pending" for view in views):
        hint_at_worker(queue)


def hint_at_worker(queue: Queue) -> None:
    if not queue.live_workers():
        message("no worker is running: start one with `make up` or `make worker`")


@app.command()
def show(context: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """Show one job: its end, its figures, where its run lies and how to look at it."""
    queue = queue_of(context)
    view = jobs.find(queue, job_id)
    if as_json:
        print_json(view.to_json())
        return
    print_lines(job_table(view, tensorboard=command_to_look(queue.home)))


@app.command()
def logs(
    context: typer.Context,
    job_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print a job's log, all attempts of it."""
    queue = queue_of(context)
    view = jobs.find(queue, job_id)
    if follow and view.state == "pending":
        hint_at_worker(queue)
    log = jobs.Log(queue.home.run(view.id))
    for latest in jobs.changes(queue, view.id):
        typer.echo(log.read_more(), nl=False)
        view = latest
        if not follow:
            break
    typer.echo(log.read_more(), nl=False)  # what was written before its end was
    if not log.positions:
        reason = "its run folder was removed" if view.outcome else f"it is {view.state}"
        message(f"{view.id}: there is no log: {reason}")


@app.command()
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


@app.command()
def retry(context: typer.Context, ids: Ids) -> None:
    """Queue failed or cancelled jobs again; each goes on from its last checkpoint, in the same run."""
    queue = queue_of(context)
    for job_id in [queue.tickets.find(prefix) for prefix in ids]:
        repair.retry(queue, job_id)
        typer.echo(f"{job_id}: queued again")


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page instead, for people.")] = False,
) -> None:
    """Print the JSON Schema of job files, for editors."""
    if markdown:
        from pipeline.jobfile import reference

        typer.echo(reference.markdown(), nl=False)
    else:
        print_json(json_schema())


@app.command()
def run(context: typer.Context, file: File, overrides: Overrides = None) -> None:
    """Train a job in the foreground, without the queue."""
    from pipeline.results.report import write
    from pipeline.training.attempt import train_in_foreground

    spec = reading.load(file, overrides or [])
    os.environ.update(child_environment(slots=1))  # before torch is loaded
    result, folder = train_in_foreground(queue_of(context).home, spec, echo=typer.echo)
    message(f"the run is in {folder}")
    try:
        message(f"its report is {write(context.obj, RunPaths(folder))}")
    except PipelineError as error:
        message(f"its report was not written: {error}")
    if result.outcome != "succeeded":
        raise typer.Exit(1)


@app.command()
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check the home, the machine and the installation."""
    found = checks.check_all(context.obj)
    if as_json:
        print_json([check.__dict__ for check in found])
    else:
        print_lines(table([(check.verdict, check.name, check.text) for check in found]))
    if any(check.verdict == "error" for check in found):
        raise typer.Exit(1)


for command in (*workers.COMMANDS, *runs.COMMANDS):
    app.command(command.__name__.replace("_", "-"))(command)


if __name__ == "__main__":
    main()
