"""The commands by name, and the application that has them. Only those that are asked for are loaded."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

import pipeline
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
