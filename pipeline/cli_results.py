"""The commands for runs that there are: export, compare, report, predict, export-model.

`cli.py` adds them to its own. Each is parsing and printing only, and loads what it needs when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline import runs
from pipeline.paths import Home

Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Ids, or the beginnings of ids, or latest.", show_default=False)
]
Id = Annotated[str, typer.Argument(metavar="ID", help="An id, or the beginning of one, or latest.", show_default=False)]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="File to write.", show_default=False)]
Checkpoint = Annotated[
    Literal["best", "last"], typer.Option(help="The weights with the highest test accuracy, or the latest ones.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def export(
    context: typer.Context,
    ids: Ids,
    format_: Annotated[
        Literal["csv", "json", "parquet"] | None,
        typer.Option("--format", help="Default: by the name of --out, else csv.", show_default=False),
    ] = None,
    out: Out = None,
) -> None:
    """Print every scalar of runs at full resolution, as one table."""


def compare(
    context: typer.Context,
    ids: Ids,
    metric: Annotated[str, typer.Option(metavar="TAG", help="What to rank by.")] = "test/accuracy",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves: a .png or .svg file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what differs between runs, in their job files and in their results, best first."""


def report(context: typer.Context, job_id: Id, out: Out = None) -> None:
    """Write a page about a run: one HTML file that needs no network."""


def predict(
    context: typer.Context,
    job_id: Id,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files.", show_default=False)],
    checkpoint: Checkpoint = "best",
    top: Annotated[int, typer.Option(min=1, help="Classes to print for each picture.")] = 3,
    as_json: Json = False,
) -> None:
    """Classify pictures with a trained model."""


def export_model(
    context: typer.Context,
    job_id: Id,
    format_: Annotated[Literal["safetensors", "onnx", "torch-export"], typer.Option("--format")],
    out: Out = None,
    checkpoint: Checkpoint = "best",
) -> None:
    """Write a trained model for other programs, and check it against the checkpoint."""


COMMANDS = (export, compare, report, predict, export_model)
