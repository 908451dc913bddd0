"""The commands for what runs left: export, compare, report, predict, export-model.

Each is parsing and printing only, and loads what it needs when it is called.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.arguments import Id, Ids, Json, message, print_json, print_lines
from pipeline.errors import DataError
from pipeline.home.paths import Home
from pipeline.results import runs

Out = Annotated[Path | None, typer.Option(metavar="FILE", help="File to write.", show_default=False)]
Checkpoint = Annotated[
    Literal["best", "last", "previous"],
    typer.Option(help="The weights with the highest test accuracy, the latest ones, or those saved before them."),
]


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
    from pipeline.results import export as exports

    home: Home = context.obj
    kind = exports.choose_format(format_, out)
    exports.export(runs.find_all(home, ids), kind, out, say=message)


def compare(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Ids, or names of jobs: of a name its latest run, or all where it stands alone.",
            show_default=False,
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="The latest N runs: of these names, or of all.", show_default=False),
    ] = None,
    metric: Annotated[str, typer.Option(metavar="TAG", help="What to rank by.")] = "test/accuracy",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves: a .png or .svg file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what differs between runs, in job files, environments and results, best first."""
    from pipeline.results import choice, output_file
    from pipeline.results import compare as comparing
    from pipeline.results import plot as plotting

    home: Home = context.obj
    if plot:
        plotting.check_suffix(plot)
        output_file.check(plot)
    found = choice.choose(home, words or [], last, say=message)
    comparison = comparing.compare(home, found, metric, say=message)
    labels = runs.short_ids(home, [run.id for run in comparison.runs])
    if as_json:
        typer.echo(json.dumps(comparing.to_json(comparison), indent=2, default=str))  # a date in a file that was edited
    else:
        width = shutil.get_terminal_size(fallback=(100, 24)).columns
        print_lines(comparing.lines(comparison, labels, width=width))
    if plot:
        output_file.write(plot, lambda file: plotting.draw(comparison, labels, plot, file))
        message(f"{plot}: {comparison.metric} over the {plotting.axis_of(comparison.runs)}s")


def report(context: typer.Context, job_id: Id, out: Out = None) -> None:
    """Write a page about a run or a sweep: one HTML file that needs no network."""
    from pipeline.results.report import write

    home: Home = context.obj
    typer.echo(write(home, runs.find(home, job_id), out))


def predict(
    context: typer.Context,
    job_id: Id,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.", show_default=False)
    ],
    checkpoint: Checkpoint = "best",
    top: Annotated[int, typer.Option(min=1, help="Classes to print for each image.")] = 3,
    as_json: Json = False,
) -> None:
    """Classify images with a trained model."""
    from pipeline.results import classifier

    model = classifier.load(runs.find_trained(context.obj, job_id), checkpoint)
    files, notes, problems = classifier.find_images(images)
    for note in (*model.notes, *notes, *problems):
        message(note)
    found = []
    width = max((len(_in_a_line(file)) for file in files), default=0)
    for file, guesses in model.classify(files, top=top):
        if isinstance(guesses, DataError):
            problems.append(str(guesses))
            message(str(guesses))
        elif as_json:
            classes = [{"name": name, "probability": probability} for name, probability in guesses]
            found.append({"file": str(file), "classes": classes})
        else:
            longest = max(map(len, model.input.classes))
            cells = [f"{name:{longest}} {100 * probability:6.2f} %" for name, probability in guesses]
            typer.echo("   ".join([_in_a_line(file).ljust(width), *cells]))
    if as_json:
        print_json(found)
    if problems:
        raise typer.Exit(1)


def _in_a_line(file: Path) -> str:
    """A name may have line ends in it, or what is no text."""
    return str(file) if str(file).isprintable() else ascii(str(file))


def export_model(
    context: typer.Context,
    job_id: Id,
    format_: Annotated[
        Literal["safetensors", "onnx", "torch-export"],
        typer.Option(
            "--format", help="The weights alone, or all from pixels to logits; those of few bits as whole numbers."
        ),
    ],
    out: Out = None,
    checkpoint: Checkpoint = "best",
) -> None:
    """Write a trained model for other programs, and check it against the checkpoint."""
    from pipeline.results import classifier, integers
    from pipeline.results import export_model as exporter

    run = runs.find_trained(context.obj, job_id)
    path = exporter.destination(run, format_, out)
    model = classifier.load(run, checkpoint)
    for note in model.notes:
        message(note)
    checked = exporter.export(model, format_, path)
    typer.echo(path)
    message(f"written: {path.stat().st_size:,} bytes{integers.summary(model)}")
    message(f"checked: {checked}")
