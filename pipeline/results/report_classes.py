"""What an evaluation says of each class: precision and recall, what is taken for what, the worst mistakes."""

from __future__ import annotations

import base64
import binascii
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.home.records import ClassScore, Evaluated, Mistake
from pipeline.results.report_charts import percent

MATRIX_CLASSES = 25  # more do not fit a screen, and become a list
FREQUENT = 20
PLAIN_ROWS = 50  # classes that are shown at once; the others unfold
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Mean:
    """Over the classes that have images, each counting the same; a share of nothing counts as 0."""

    support: int  # of all classes together
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Cell:
    count: int
    shade: int  # 0 to 9, by its share of the row
    is_right: bool


@dataclass(frozen=True)
class Confused:
    label: str
    predicted: str
    count: int
    share: float  # of the true class


@dataclass(frozen=True)
class ShownMistake:
    """A mistake; `png` is empty where its image is none."""

    png: str
    width: int
    height: int
    text: str
    label: str
    predicted: str
    probability: str
    index: str


def problem(found: Evaluated) -> str:
    """Why an evaluation cannot be shown; nothing where it can."""
    num_classes = len(found.classes)
    if len(found.confusion) != num_classes or any(len(row) != num_classes for row in found.confusion):
        return f"its confusion matrix does not fit its {num_classes:,} classes"
    if any(min(row) < 0 for row in found.confusion):
        return "its confusion matrix has a negative count"
    return ""


def mean(scores: list[ClassScore]) -> Mean | None:
    with_images = [score for score in scores if score.support]
    if not with_images:
        return None

    def of(shares: Iterable[float]) -> float:
        return sum(share for share in shares if not math.isnan(share)) / len(with_images)

    return Mean(
        sum(score.support for score in with_images),
        of(score.precision for score in with_images),
        of(score.recall for score in with_images),
        of(score.f1 for score in with_images),
    )


def hardest_first(scores: list[ClassScore]) -> list[ClassScore]:
    return sorted(scores, key=lambda score: score.f1 if score.support else math.inf)


def matrix(found: Evaluated) -> list[tuple[str, list[Cell]]]:
    """A row a true class: its name, and a cell a predicted class."""
    lines = []
    for index, (name, row) in enumerate(zip(found.classes, found.confusion, strict=True)):
        total = sum(row) or 1
        cells = [Cell(n, -(-9 * n // total), column == index) for column, n in enumerate(row)]
        lines.append((name, cells))
    return lines


def most_confused(found: Evaluated) -> list[Confused]:
    """What is taken for what most often."""

    def pairs() -> Iterator[tuple[int, int, int]]:
        for label, row in enumerate(found.confusion):
            yield from ((n, -label, -predicted) for predicted, n in enumerate(row) if n and predicted != label)

    return [
        Confused(found.classes[-label], found.classes[-predicted], n, n / sum(found.confusion[-label]))
        for n, label, predicted in heapq.nlargest(FREQUENT, pairs())
    ]


def shown_mistakes(found: Evaluated, *, max_chars: int) -> list[ShownMistake]:
    """The worst ones, as many as together take so much room."""
    chosen, used = [], 0
    for mistake in found.mistakes:
        used += len(mistake.png)
        if used > max_chars:
            break
        chosen.append(_shown(mistake, found.classes))
    return chosen


def _shown(mistake: Mistake, classes: list[str]) -> ShownMistake:
    label, predicted = (
        classes[number] if 0 <= number < len(classes) else f"class {number}"
        for number in (mistake.label, mistake.predicted)
    )
    probability = "not known" if math.isnan(mistake.probability) else percent(mistake.probability)
    text = f"held-out image {mistake.index}: {label}, taken for {predicted} with probability {probability}"
    width, height = _size(mistake.png)
    png = mistake.png if width and height else ""
    return ShownMistake(png, width, height, text, label, predicted, probability, str(mistake.index))


def _size(png: str) -> tuple[int, int]:
    """Width and height in pixels, from a PNG file's header; zeros where it is none."""
    try:
        data = base64.b64decode(png, validate=True)
    except (binascii.Error, ValueError):
        return 0, 0
    if data[:8] != PNG or data[12:16] != b"IHDR":
        return 0, 0
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
