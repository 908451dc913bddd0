"""The command preview: the images of a job file as its network would see them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import own_code
from pipeline.cli.arguments import File, Overrides, message, queue_of
from pipeline.jobfile import reading


def preview(
    context: typer.Context,
    file: File,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The image to write, a .png file.")] = Path("preview.png"),
) -> None:
    """Draw what the network will see: some training images, as they are and augmented. Nothing is trained."""
    spec = reading.load(file, overrides or [], modules=own_code.modules_for(file, context.obj))
    home = queue_of(context).home
    from pipeline.results import output_file
    from pipeline.results import preview as previewing

    previewing.check_suffix(out)
    output_file.check(out)
    made = previewing.make(spec, home.datasets, log=message)
    output_file.write(out, lambda file: previewing.draw(made, file))
    typer.echo(out)
