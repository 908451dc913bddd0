"""The command `run`: a job in this process, without a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import own_code
from pipeline.cli.arguments import Overrides, make_home, message, queue_of
from pipeline.errors import PipelineError, QueueError, UsageError
from pipeline.home import durable
from pipeline.home.records import Result
from pipeline.jobfile import reading
from pipeline.stop import ASKED, Stop, listen
from pipeline.wording import plural
from pipeline.worker import notifications
from pipeline.worker.executors.local import child_environment

if TYPE_CHECKING:
    from pipeline.home.paths import Home
    from pipeline.home.records import End
    from pipeline.jobfile.spec import Spec
    from pipeline.queue.claims import Claim
    from pipeline.queue.job_queue import Queue

BEGUN = "PIPELINE_BEGUN"  # environment variable: the process that has begun anew, so that it does so once
LOOK_S = 1.0  # whether somebody has cancelled the job


def run(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A job file.", show_default=False)] = None,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Go on with a job that was stopped, failed or waits.", show_default=False),
    ] = None,
) -> None:
    """Train a job in the foreground, at once and without a worker. Ctrl-C saves it."""
    if (file is None) == (resume is None):
        raise UsageError("give a job file, or --resume and the id of a job")
    if resume is not None and overrides:
        raise UsageError("--set changes nothing in a job that goes on; give a job file for a new one")
    _begin_anew_in(child_environment())  # before anything is read: the file may be a pipe
    queue, addresses, stop = queue_of(context), notifications.take_addresses(), Stop()
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        signals.append(signal.SIGHUP)
    with listen(stop, *signals):
        claim = _claim(queue, file, overrides or [], resume)
        message(f"{claim.id}: begins in the foreground; Ctrl-C saves it")
        try:
            end = _train(queue, claim, stop, echo=_echo)
        finally:
            claim.lease.release()
    _tell(queue, end)
    if end.outcome != "cancelled":  # by whoever sits here
        notifications.tell(queue.home, end.id, end, message, addresses)
    if end.outcome != "succeeded":
        raise typer.Exit(1)


def _claim(queue: Queue, file: Path | None, overrides: list[str], resume: str | None) -> Claim:
    """The job, in the hands of this process. Raises PipelineError."""
    from pipeline.queue import foreground

    try:
        if resume is not None:
            return foreground.take_up(queue, queue.tickets.find(resume))
        assert file is not None
        spec = reading.load(file, overrides, modules=own_code.modules_for(file, queue.home))
        if spec.search is not None:
            raise UsageError(f"{file}: is a sweep, of {plural(spec.search.num_trials, 'job')}; submit it")
        make_home(queue)
        return foreground.begin(queue, spec)
    except OSError as error:
        if error.errno in durable.DISK_FULL:
            raise QueueError(f"{queue.home.root}: the disk is full, and nothing was begun") from None
        raise UsageError(f"{queue.home.root}: cannot be a home: {durable.in_words(error)}") from None


def _train(queue: Queue, claim: Claim, stop: Stop, *, echo: Callable[[str], None]) -> End:
    """Train it to its end, and record that. Raises QueueError where the disk does not let it."""
    from pipeline.training.attempt import train_in_foreground
    from pipeline.worker.running_job import prepare_run

    number = claim.attempts.number
    result = Result(number, "interrupted", "it could not be begun")
    try:
        queue.records.make_way_for_run(claim.id)
        prepare_run(queue.home.run(claim.id), claim)
        threading.Thread(target=_heed_cancel, args=(queue, claim.id, stop), daemon=True).start()
        result = train_in_foreground(queue.home, claim.id, number, stop, echo=echo)
        end = queue.settle(claim, result)
    except OSError as error:
        with contextlib.suppress(OSError):
            queue.settle(claim, result)
        why = f"{durable.in_words(error)}; `pipeline run --resume {claim.id}` goes on"
        raise QueueError(f"{claim.id}: cannot be run, or its end not be recorded, now: {why}") from None
    assert end is not None, "nobody else would take it up"
    return end


def train_here(home: Home, spec: Spec, *, echo: Callable[[str], None]) -> End:
    """Train a job in this process, as `run` does: for programs, as benchmarks. Raises PipelineError, and OSError."""
    from pipeline.queue import foreground
    from pipeline.queue.job_queue import Queue

    queue = Queue(home)
    claim = foreground.begin(queue, spec)
    try:
        return _train(queue, claim, Stop(), echo=echo)
    finally:
        claim.lease.release()


def _heed_cancel(queue: Queue, job_id: str, stop: Stop) -> None:
    while not stop.why:
        with contextlib.suppress(OSError):
            if queue.stop_request(job_id):
                stop.request(ASKED)
        time.sleep(LOOK_S)


def _echo(line: str) -> None:
    """The log has the line: where the terminal is gone, the training goes on, or is saved."""
    with contextlib.suppress(OSError):
        typer.echo(line)


def _tell(queue: Queue, end: End) -> None:
    from pipeline.results.report import write

    run = queue.home.run(end.id)
    message(f"the run is in {run.root}")
    try:
        message(f"its report is {write(queue.home, run)}")
    except PipelineError as error:
        message(f"its report was not written: {error}")
    if end.outcome != "succeeded":
        message(f"to go on: pipeline run --resume {end.id}, or in the queue, pipeline retry {end.id}")


def _begin_anew_in(environment: dict[str, str]) -> None:
    """Start the same command again, in the same process, where its environment is not this one.

    Libraries read it when the process starts: glibc its allocator's settings, OpenMP how long threads spin.
    """
    if os.environ.get(BEGUN) != str(os.getpid()) and environment != dict(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**environment, BEGUN: str(os.getpid())})
