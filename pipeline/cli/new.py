"""The command `new`: a model of one's own to begin with, and a job file that trains it."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.arguments import message, print_lines
from pipeline.errors import UsageError
from pipeline.home.paths import Home
from pipeline.home.whereabouts import default_root

TEMPLATES = Path(__file__).parent
JOBS = "jobs"


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the module, as wide_net.", show_default=False)],
) -> None:
    """Write a model of your own, to change, and a job file that trains it at once on the digits."""
    from pipeline.jobfile.own_files import NOT_TO_BE_HIDDEN

    home: Home = context.obj
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", name) or keyword.iskeyword(name):
        raise UsageError(f"{name!r} cannot be a module's name; write it as {_like(name)}")
    if name in NOT_TO_BE_HIDDEN:
        raise UsageError(f"{name} is a module that others import; call yours something else")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    job = _jobs(home) / f"{name}.yaml"
    files = {home.modules / f"{name}.py": "new_model.template", job: "new_job.template"}
    for path in files:
        if path.exists():
            raise UsageError(f"{_shown(path)}: there is such a file already; give another name, or remove it")
    for path, template in files.items():
        text = (TEMPLATES / template).read_text().replace("MODULE", name).replace("CLASS", class_name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    print_lines([str(_shown(path)) for path in files])
    message(f"train it with `make submit JOB={name}`, or pipeline submit {_shown(job)}")


def _jobs(home: Home) -> Path:
    """The folder of job files: beside the home of a checkout, from wherever in it this is typed, else here."""
    return home.root.parent / JOBS if home.root == default_root() else Path.cwd() / JOBS


def _like(name: str) -> str:
    """The nearest name that a module can have."""
    like = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()[:50]
    if not like:
        return "wide_net"
    return like if like[0].isalpha() and not keyword.iskeyword(like) else f"my_{like}"


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
