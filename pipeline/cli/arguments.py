"""What commands share: their arguments, the queue that they act on, and how they print.

Data goes to stdout, messages to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.errors import UsageError
from pipeline.folding import folded
from pipeline.home import durable

if TYPE_CHECKING:
    from pipeline.home.paths import Home
    from pipeline.queue.job_queue import Queue

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files.", show_default=False)]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A job file.", show_default=False)]
Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Ids, or the beginnings of ids, or latest.", show_default=False)
]
Id = Annotated[str, typer.Argument(metavar="ID", help="An id, or the beginning of one, or latest.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as train.epochs=2; may be given again."),
]
On = Annotated[
    Literal["slurm", "ray"] | None,
    typer.Option(help="A cluster that jobs are handed to, see docs/clusters.md.", show_default="this machine"),
]
Address = Annotated[
    str,
    typer.Option(help="Of Ray, as http://head:8265; auto: RAY_API_SERVER_ADDRESS, else this machine."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def message(text: str) -> None:
    """Tells people something; nothing fails because nobody reads it any more, or the disk is full."""
    with contextlib.suppress(OSError):
        typer.echo(folded(text, sys.stderr), err=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_lines(values: Iterable[Any]) -> None:
    """Prints a list, an object a line: with an indent it takes ten times as long."""
    lines = ",\n".join(map(durable.to_line, values))
    typer.echo(f"[\n{lines}\n]" if lines else "[]")


def print_lines(lines: Sequence[str]) -> None:
    """Prints them at once: each call of echo is one of the system. A terminal gets them broken at words."""
    if lines:
        typer.echo(folded("\n".join(lines), sys.stdout))


def queue_of(context: typer.Context) -> Queue:
    """The queue of the home. Raises UsageError where no home can be."""
    from pipeline.queue.job_queue import Queue  # what checks job files alone does without

    home: Home = context.obj
    nearest = next(path for path in (home.root, *home.root.parents) if os.access(path, os.F_OK))
    if not nearest.is_dir():
        raise UsageError(f"{home.root}: cannot be a home: {nearest} is not a folder")
    if not os.access(nearest, os.R_OK | os.X_OK):
        raise UsageError(f"{home.root}: cannot be a home: {nearest} cannot be read")
    return Queue(home)


def make_home(queue: Queue, *, quiet: bool = False) -> None:
    """Makes the home where it is not there yet, and says so: a folder too high or too low, it would be the wrong one.

    Raises QueueError.
    """
    is_new = not durable.is_there(queue.paths.root)
    queue.create()
    if is_new and not quiet:
        message(f"makes a new home: {queue.home.root}")


def hint_at_worker(queue: Queue) -> None:
    """Says why jobs that wait may not be started soon."""
    if queue.is_paused():
        from pipeline.queue.pausing import PAUSED

        message(PAUSED)
    if not queue.live_workers():
        message("no worker is running: start one with `make up` or `make worker`")
