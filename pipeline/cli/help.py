"""The help of commands: as wide as the terminal up to 100 columns, broken at words, nothing of it cut."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from pipeline.folding import fold, folded, pad, width

MOST_COLUMNS = 100
MOST_LABEL = 30  # columns of the longest label that text stands beside; what is longer has a line of its own
INDENT = 2
KINDS = {"path": "PATH", "int": "N", "int range": "N", "float": "X", "float range": "X", "str": "TEXT"}
"""How the kinds of values are written that typer tells by their types."""


def page(command: Any, context: Any) -> str:
    """The whole help of a command, or of the application where it has commands."""
    room = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    lines = usage(command, context, room)
    for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
        lines += ["", *fold("  " + " ".join(paragraph.split()), room)] if paragraph else []
    for title, rows in _sections(command, context):
        lines += ["", f"{title}:", *_definitions(rows, room)] if rows else []
    return "\n".join(lines)


def usage(command: Any, context: Any, room: int) -> list[str]:
    """`{FILE...}...`, as typer writes it, is `FILE...`."""
    pieces = [
        re.sub(r"\{(.+?)(?:\.\.\.)?\}(\.\.\.)?", r"\1\2", piece) for piece in command.collect_usage_pieces(context)
    ]
    return fold(" ".join(["Usage:", context.command_path, *pieces]), room, hang=7)


def _sections(command: Any, context: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    records = [(param.param_type_name, param.get_help_record(context)) for param in command.get_params(context)]
    for title in ("argument", "option"):
        yield f"{title.title()}s", [_plain(*record) for kind, record in records if record and kind == title]
    if isinstance(command, TyperGroup):
        commands = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
        yield "Commands", [(name, found.get_short_help_str(10_000)) for name, found in commands if found is not None]


def _plain(label: str, text: str) -> tuple[str, str]:
    """The two columns of an option or argument, in the words of people: `--slots N`, `[default: 1; 1 to 1000]`."""
    label = re.sub(r" <([\w ]+)>$", lambda kind: f" {KINDS.get(kind[1], kind[1].upper())}", label)
    label = re.sub(r"^([A-Z.]+) .+$", r"\1", label)  # an argument, whose kind its name tells
    text = text.removesuffix("  [required]")
    text = re.sub(r"(-?[\d.]+)<=x<=(-?[\d.]+)", r"\1 to \2", text)
    text = re.sub(r"x>=(-?[\d.]+)", r"\1 or more", text).replace("[default: (this machine)]", "[default: this machine]")
    return label, text


def _definitions(rows: Sequence[tuple[str, str]], room: int) -> Iterator[str]:
    most = min(MOST_LABEL, room // 2)
    column = INDENT + max((width(label) for label, _ in rows if width(label) <= most), default=0) + 2
    for label, text in rows:
        told = fold(text, room - column)
        first = " " * INDENT + label
        if width(first) + 2 > column:
            yield from fold(first, room, hang=2)
        else:
            yield (pad(first, column) + told.pop(0)).rstrip()
        yield from (" " * column + line for line in told if line)


@contextlib.contextmanager
def errors_folded() -> Iterator[None]:
    """What typer says of wrong usage is broken at words, as all messages are."""
    try:
        yield
    except Exception as error:
        if (message := getattr(error, "format_message", None)) is not None:
            text = folded(f"Error: {message()}", sys.stderr).removeprefix("Error: ")
            error.format_message = lambda: text  # type: ignore[attr-defined]
        raise


class _Folded:
    """What commands and their group have in common: help, usage and errors that end where the terminal does."""

    def get_help(self, ctx: Any) -> str:
        return page(self, ctx)

    def get_usage(self, ctx: Any) -> str:
        return "\n".join(usage(self, ctx, shutil.get_terminal_size().columns))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with errors_folded():
            return super().parse_args(ctx, args)  # type: ignore[misc,no-any-return]


class Command(_Folded, TyperCommand):
    """A command whose help fits the terminal."""

    def invoke(self, ctx: Any) -> Any:
        with errors_folded():
            return super().invoke(ctx)


class Group(_Folded, TyperGroup):
    """The commands together, likewise."""
