"""The commands by name, and the application that has them. Only those that are asked for are loaded."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import pipeline
from pipeline.cli import help
from pipeline.errors import UsageError
from pipeline.home.paths import Home

COMMANDS: Mapping[str, str] = {
    "new": "pipeline.cli.new:new",
    "validate": "pipeline.cli.submission:validate",
    "submit": "pipeline.cli.submission:submit",
    "status": "pipeline.cli.overview:status",
    "show": "pipeline.cli.overview:show",
    "logs": "pipeline.cli.overview:logs",
    "cancel": "pipeline.cli.control:cancel",
    "best": "pipeline.cli.sweeps:best",
    "retry": "pipeline.cli.control:retry",
    "rm": "pipeline.cli.removal:rm",
    "prune": "pipeline.cli.removal:prune",
    "pause": "pipeline.cli.control:pause",
    "resume": "pipeline.cli.control:resume",
    "schema": "pipeline.cli.submission:schema",
    "run": "pipeline.cli.foreground:run",
    "preview": "pipeline.cli.preview:preview",
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


def to_path(text: str) -> Path:
    """Raises UsageError for empty text: so a variable comes that is not set, and it would be the current folder."""
    if not text:
        raise UsageError("a path is empty; for the current folder, write .")
    return Path(text)


CONVERSIONS: Mapping[Any, Callable[[Any], Any]] = {
    str: str,
    Path: to_path,
    list[str]: list,
    list[Path]: lambda paths: [to_path(path) for path in paths],
}


class QuickValue:
    """Makes paths and text of what was typed, and leaves all else to typer, which would load Pydantic for these too."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Converts as typer does: an option that was not given is None, or empty where it may be given again."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        convert = CONVERSIONS.get(param.type_descriptor.annotation)
        if convert is not None:
            return convert(value)
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def with_quick_values(parameters: list[Any]) -> list[Any]:
    """Where another version of typer does not look for this, its own conversion goes on as before."""
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", None) is None:
            parameter._runtime_param = QuickValue()
    return parameters


class QuickCommand(help.Command):
    def get_params(self, ctx: Any) -> list[Any]:
        return with_quick_values(super().get_params(ctx))


class QuickGroup(help.Group):
    def get_params(self, ctx: Any) -> list[Any]:
        return with_quick_values(super().get_params(ctx))


def make_app(words: Sequence[str] = ()) -> typer.Typer:
    """The application with the commands that are among the words of a command line; where none is, with all."""
    app = typer.Typer(
        name="pipeline",
        help="Train image classifiers from job files: submit, walk away, look at TensorBoard.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        cls=QuickGroup,
    )
    app.callback()(options)
    for name in [name for name in COMMANDS if name in words] or COMMANDS:
        module, _, attribute = COMMANDS[name].partition(":")
        app.command(name, cls=QuickCommand)(getattr(importlib.import_module(module), attribute))
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
            help="Folder of queue, runs and datasets; default: $PIPELINE_HOME, else ./var, or that of a folder above.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    context.obj = Home.find(home)
