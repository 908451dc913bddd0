"""The command `run`: a job in this process, without the queue."""

from __future__ import annotations

import os

import typer

from pipeline.cli.arguments import File, Overrides, message, queue_of
from pipeline.errors import PipelineError
from pipeline.home.paths import RunPaths
from pipeline.jobfile import reading
from pipeline.worker.executors.local import child_environment


def run(context: typer.Context, file: File, overrides: Overrides = None) -> None:
    """Train a job in the foreground, without the queue."""
    spec = reading.load(file, overrides or [])
    os.environ.update(child_environment(slots=1))  # before torch is loaded
    from pipeline.results.report import write
    from pipeline.training.attempt import train_in_foreground

    result, folder = train_in_foreground(queue_of(context).home, spec, echo=typer.echo)
    message(f"the run is in {folder}")
    try:
        message(f"its report is {write(context.obj, RunPaths(folder))}")
    except PipelineError as error:
        message(f"its report was not written: {error}")
    if result.outcome != "succeeded":
        raise typer.Exit(1)
