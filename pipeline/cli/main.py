"""The command line: its commands by name, and what becomes of errors.

Exit codes: 0 done; 1 the job or the command failed; 2 bad usage or an invalid job file; `submit --wait` adds 3 failed,
4 cancelled, 5 timed out, 6 lost. Of the commands, only those that are asked for are loaded, and nothing that answers
at once imports torch: `benchmarks/commands.py` measures what that takes.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import pipeline
from pipeline.cli.arguments import message
from pipeline.errors import PipelineError, SpecError
from pipeline.home.paths import Home

COMMANDS: Mapping[str, str] = {
    "validate": "pipeline.cli.submission:validate",
    "submit": "pipeline.cli.submission:submit",
    "status": "pipeline.cli.overview:status",
    "show": "pipeline.cli.overview:show",
    "logs": "pipeline.cli.overview:logs",
    "cancel": "pipeline.cli.control:cancel",
    "retry": "pipeline.cli.control:retry",
    "schema": "pipeline.cli.submission:schema",
    "run": "pipeline.cli.foreground:train_in_foreground",
    "doctor": "pipeline.cli.doctor:doctor",
    "worker": "pipeline.cli.service:worker",
    "up": "pipeline.cli.service:up",
    "down": "pipeline.cli.service:down",
    "health": "pipeline.cli.service:health",
    "export": "pipeline.cli.results:export",
    "compare": "pipeline.cli.results:compare",
    "report": "pipeline.cli.results:report",
    "predict": "pipeline.cli.results:predict",
    "export-model": "pipeline.cli.results:export_model",
}
"""The function of each command, as `module:attribute`; its docstring and its arguments are the command's help."""

WITH_THE_WORKER = ("torch", "torchvision", "sklearn")  # left out of the image of TensorBoard and command line


def main() -> NoReturn:
    """The console script. Errors that the program raises on purpose become a message and an exit code."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file name need not be text
    try:
        make_app(sys.argv[1:])()
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


def make_app(words: Sequence[str] = ()) -> typer.Typer:
    """The application with the commands that are among the words of a command line; where none is, with all."""
    app = typer.Typer(
        name="pipeline",
        help="Train image classifiers from job files: submit, walk away, look at TensorBoard.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    for name in [name for name in COMMANDS if name in words] or COMMANDS:
        module, _, attribute = COMMANDS[name].partition(":")
        app.command(name)(getattr(importlib.import_module(module), attribute))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(pipeline.__version__)
        raise typer.Exit


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


if __name__ == "__main__":
    main()
