"""The command `run`: a job in this process, without the queue."""

from __future__ import annotations

import os
import sys

import typer

from pipeline.cli import own_code
from pipeline.cli.arguments import File, Overrides, message, queue_of
from pipeline.errors import PipelineError, UsageError
from pipeline.home.paths import RunPaths
from pipeline.jobfile import reading
from pipeline.wording import plural
from pipeline.worker.executors.local import child_environment

BEGUN = "PIPELINE_BEGUN"  # environment variable: the process that has begun anew, so that it does so once


def run(context: typer.Context, file: File, overrides: Overrides = None) -> None:
    """Train a job in the foreground, without the queue."""
    _begin_anew_in(child_environment())  # before anything is read: the file may be a pipe
    spec = reading.load(file, overrides or [], modules=own_code.modules_for(file, context.obj))
    if spec.search is not None:
        raise UsageError(f"{file}: is a sweep, of {plural(spec.search.num_trials, 'job')}; submit it")
    queue = queue_of(context)
    from pipeline.results.report import write
    from pipeline.training.attempt import train_in_foreground

    result, folder = train_in_foreground(queue.home, spec, echo=typer.echo)
    message(f"the run is in {folder}")
    try:
        message(f"its report is {write(context.obj, RunPaths(folder))}")
    except PipelineError as error:
        message(f"its report was not written: {error}")
    if result.outcome != "succeeded":
        raise typer.Exit(1)


def _begin_anew_in(environment: dict[str, str]) -> None:
    """Start the same command again, in the same process, where its environment is not this one.

    Libraries read it when the process starts: glibc its allocator's settings, OpenMP how long threads spin.
    """
    if os.environ.get(BEGUN) != str(os.getpid()) and environment != dict(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**environment, BEGUN: str(os.getpid())})
