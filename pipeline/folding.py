"""Text that is broken at words where a terminal ends. What no person looks at, a pipe or a file, is left alone."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

GAP = 2  # blanks between two columns
LEAST = 20  # columns that text is folded into, at least
WORD = re.compile(r"(?:[^\s`]|`[^`]*`|`)+(?: %(?=\W|$))?")  # a command in backticks is one, and so is `12.5 %`
GROUPS = re.compile(r"(?<=\S) {2,}(?=\S)")


def columns_of(stream: TextIO) -> int | None:
    """The columns of the terminal that a stream goes to; None where it goes to none."""
    try:
        if not stream.isatty():
            return None
        told = os.environ.get("COLUMNS", "")
        return (int(told) if told.isdecimal() else 0) or os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # it is closed
        return None


def width(text: str) -> int:
    """The columns that a text takes."""
    return len(text) if text.isascii() else sum(map(_width_of_one, text))


def _width_of_one(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # accents that combine, and joiners
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def fold(text: str, room: int, *, hang: int = 0) -> list[str]:
    """Lines of at most `room` columns, broken at blanks; at wide gaps first, as those between the figures of an epoch.

    A word that is longer than that is left whole, so that a path can be copied. hang: blanks before further lines,
    after those that the text begins with.
    """
    if width(text) <= room:
        return [text]
    indent = text[: len(text) - len(text.lstrip(" "))]
    further = indent + " " * hang
    lines, line, is_empty = [], indent, True
    for gap, piece in _pieces(text[len(indent) :], room - width(further)):
        if is_empty or width(line) + len(gap) + width(piece) <= room:
            line += piece if is_empty else gap + piece
        else:
            lines.append(line)
            line = further + piece
        is_empty = False
    return [*lines, line]


def _pieces(text: str, room: int) -> Iterator[tuple[str, str]]:
    """What is not broken, each with the blanks before it: groups where they fit, else words, else parts of commands."""
    gap = ""
    for group in GROUPS.split(text):
        for unit in [group] if width(group) <= room else WORD.findall(group):
            for word in [unit] if width(unit) <= room else unit.split():
                yield gap, word
                gap = " "
        gap = "  "


def folded(text: str, stream: TextIO) -> str:
    """A message as it goes to a stream: each of its lines broken at words where that is a terminal."""
    room = columns_of(stream)
    if room is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in fold(line, max(room, LEAST), hang=2))


def cut(text: str, room: int, *, mark: str = "…") -> str:
    """The text in so many columns: cut behind a word where it is too long, inside of one where that is long as well."""
    if width(text) <= room:
        return text
    text = text[: 2 * max(room, 0) + 100]  # more cannot be shown, but for accents, and each character is measured
    while text and width(text) + len(mark) > room:
        text = text[:-1]
    head, blank, _ = text.rpartition(" ")
    return f"{(head if blank and width(head) >= room // 2 else text).rstrip()}{mark}" if room > 0 else ""


def pad(text: str, to: int) -> str:
    return text + " " * (to - width(text))


def widths_of(rows: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(width, column)) for column in zip(*rows, strict=True)]


def side_by_side(cells: Sequence[str], widths: Sequence[int]) -> Iterator[list[str]]:
    """The lines of a row whose cells are folded into columns so wide; a cell a column in each of them."""
    parts = [fold(cell, room) for cell, room in zip(cells, widths, strict=True)]
    for number in range(max(map(len, parts))):
        yield [part[number] if number < len(part) else "" for part in parts]


def joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * GAP).join(pad(cell, to) for cell, to in zip(cells, widths, strict=True)).rstrip()


def fitted(rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths of columns that are in `room` together and cut no word: the last gives way first, then the widest.

    None where there are none.
    """
    widths = widths_of(rows)
    least = [
        max((width(word) for cell in column for word in cell.split()), default=0) for column in zip(*rows, strict=True)
    ]
    others = sorted(range(len(widths) - 1), key=lambda index: -widths[index])
    for index, floor in [(len(widths) - 1, LEAST), *((index, 0) for index in others)]:
        excess = sum(widths) + GAP * (len(widths) - 1) - room
        widths[index] -= max(0, min(excess, widths[index] - max(floor, least[index])))
    return widths if sum(widths) + GAP * (len(widths) - 1) <= room else None


def table_lines(rows: Sequence[Sequence[str]], room: int) -> list[str]:
    """A table in `room` columns: cells are folded; where that is not enough, the last columns stand below others."""
    if widths := fitted(rows, room):
        return [joined(cells, widths) for row in rows for cells in side_by_side(row, widths)]
    bands = list(_bands(rows, room))
    lines: list[str] = []
    for number in range(len(rows)):
        for band in bands:
            widths = fitted(band, room) or widths_of(band)
            lines += [joined(cells, widths) for cells in side_by_side(band[number], widths) if any(cells)]
    return lines


def _bands(rows: Sequence[Sequence[str]], room: int) -> Iterator[list[Sequence[str]]]:
    """The columns in groups that fit side by side, or are one; all but the first are indented."""
    begin, num_columns = 0, len(rows[0])
    while begin < num_columns:
        indent = [""] if begin else []
        end = begin + 1
        while end < num_columns and fitted([[*indent, *row[begin : end + 1]] for row in rows], room):
            end += 1
        yield [[*indent, *row[begin:end]] for row in rows]
        begin = end
