"""Words and tables for people: durations, values on one line, the nearest right name, columns."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline import folding


def in_words(seconds: float) -> str:
    """`42 s`, `3 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def in_bits(count: float) -> str:
    """`152 bits`, `8.19 kbit`, `1.09 Mbit`: of a kilobit 1000."""
    for factor, unit in ((1e9, "Gbit"), (1e6, "Mbit"), (1e3, "kbit")):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count:.0f} bits"


def in_bytes(count: int) -> str:
    """`0 B`, `8.2 kB`, `1.3 GB`: of a kilobyte 1000."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def against_fp32(bits: float, bits_in_fp32: float) -> str:
    """`of 6.54 Mbit in fp32, 6.0 times smaller`."""
    times = f", {bits_in_fp32 / bits:.1f} times smaller" if bits > 0 else ""
    return f"of {in_bits(bits_in_fp32)} in fp32{times}"


def plural(count: float, noun: str) -> str:
    """`1 trial`, `2,000 trials`, `3 classes`, `9.9 epochs`."""
    ending = "es" if noun.endswith(("s", "x", "tch")) else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"


def short(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    return cut(repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def plain(value: Any) -> str:
    """A value as it would be written in a job file, cut where it is long."""
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def cut(text: str, length: int = 60) -> str:
    """Returns the text on one line, and no longer than that."""
    text = text.replace("\n", "\\n").replace("\r", "\\r")
    return text if len(text) <= length else f"{text[: length - 3]}..."


SLIP, CLOSE = 0.8, 0.66  # one slip in five letters, in three; unrelated words of one kind come to 0.6


def near(wrong: str, names: Iterable[str]) -> str | None:
    """The right name that was probably meant; None where none is near, or several are alike.

    A number means the nearest one, up to a quarter away; a word one that differs by a slip or two, or that it is a part
    of, as `opt` of `optimizer` and `val_split` of `val`.
    """
    import difflib  # here, for what is right needs no remedy

    known = sorted({name for name in names if name != wrong})
    if re.fullmatch("[0-9]{1,300}", wrong) and known and all(name.isdigit() for name in known):
        nearest_one = min(known, key=lambda name: abs(int(name) - int(wrong)))
        return nearest_one if abs(int(nearest_one) - int(wrong)) * 4 <= int(wrong) else None
    folded = {_folded(name): name for name in reversed(known)}
    typed = _folded(wrong)
    close = difflib.get_close_matches(typed, folded, n=1, cutoff=CLOSE)
    if close and difflib.SequenceMatcher(None, close[0], typed).ratio() >= SLIP:
        return folded[close[0]]
    parts = [name for fold, name in folded.items() if _is_part(typed, fold) or _is_part(fold, typed, whole=True)]
    return parts[0] if len(parts) == 1 else folded[close[0]] if close else None


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _is_part(part: str, name: str, *, whole: bool = False) -> bool:
    """Whether a word of three letters or more begins a name, or is a whole word of it."""
    return len(part) >= 3 and (part in name.split("_") or (not whole and name.startswith(part)))


def nearest(wrong: str, names: Iterable[str], hint: str | None = None, *, among: Iterable[str] | None = None) -> str:
    """`; did you mean 'a'? (known: a, b)`; without the question where nothing is near, or with a hint in its place.

    among: those of the names that would help; all, if not given.
    """
    known = sorted(set(names), key=lambda name: (int(name) if name.isdigit() else 0, name))
    meant = None if hint else near(wrong, known if among is None else among)
    if meant is not None:
        hint = f"did you mean {meant if meant.isdigit() else repr(meant)}?"
    return (f"; {hint}" if hint else "") + f" (known: {', '.join(known)})"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need; on a terminal that is narrower, cells are broken at words."""
    widths = folding.widths_of(rows)
    columns = folding.columns_of(sys.stdout)
    if columns is None or sum(widths) + folding.GAP * (len(widths) - 1) <= columns:
        return [folding.joined(row, widths) for row in rows]
    return folding.table_lines(rows, columns)
