"""Texts in Markdown: code, tables, how well each class was told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pipeline.home.evaluation_record import ClassScore


def code(text: str, language: str = "") -> str:
    """Returns a block of code that shows a text as it is."""
    fence = "~~~~"
    while fence in text:
        fence += "~"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; what is in a cell stands on one line."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def class_report(scores: Sequence[ClassScore]) -> str:
    """Returns a table of precision, recall and F1 of each class."""
    rows = [(s.name, f"{s.support:,}", _percent(s.precision), _percent(s.recall), _percent(s.f1)) for s in scores]
    return table(("class", "held-out images", "precision", "recall", "F1"), rows)


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.2f} %"
