"""What an evaluation says of each class: precision and recall, what is taken for what, the worst mistakes."""

from __future__ import annotations

import base64
import heapq
import io
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.home.evaluation_record import ClassScore, EvaluationRecord, Mistake
from pipeline.results.report_page import percent
from pipeline.wording import plural

MATRIX_CLASSES = 25  # more do not fit a screen, and become a list
FREQUENT = 20
PLAIN_ROWS = 50  # classes that are shown at once; the others unfold


@dataclass(frozen=True)
class Mean:
    """The means over the classes that have images, each counting the same; a share of nothing counts as 0."""

    support: int  # of all classes together
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix, as a page shows it."""

    count: int
    shade: int  # 0 to 9, by its share of the row
    is_right: bool


@dataclass(frozen=True)
class Confused:
    """A class that was taken for another."""

    label: str
    predicted: str
    count: int
    share: float  # of the true class


@dataclass(frozen=True)
class ShownMistake:
    """A mistake, as a page shows it; `png` is empty where its image is none."""

    png: str
    width: int
    height: int
    text: str
    label: str
    predicted: str
    probability: str
    where: str  # the image's number and, where it is known, its file


def problem(found: EvaluationRecord) -> str:
    """Says why an evaluation cannot be shown; nothing where it can."""
    num_classes = len(found.classes)
    misfit = f"its confusion matrix does not fit its {plural(num_classes, 'class')}"
    if not len(found.supports) == len(found.num_predicted) == num_classes:
        return misfit
    of_label, of_predicted = [0] * num_classes, [0] * num_classes
    for label, predicted, count in found.cells:
        if count < 0:
            return "its confusion matrix has a negative count"
        if not (0 <= label < num_classes and 0 <= predicted < num_classes):
            return misfit
        of_label[label] += count
        of_predicted[predicted] += count
    sums = (*zip(of_label, found.supports, strict=True), *zip(of_predicted, found.num_predicted, strict=True))
    return misfit if any(cells > total for cells, total in sums) else ""


def mean(scores: list[ClassScore]) -> Mean | None:
    """Returns the mean of the classes; None where none has images."""
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
    """Sorts classes by their F1, those without images last."""
    return sorted(scores, key=lambda score: score.f1 if score.support else math.inf)


def matrix(found: EvaluationRecord) -> list[tuple[str, list[Cell]]]:
    """Returns a row for each true class: its name, and a cell for each predicted class."""
    counts: dict[tuple[int, int], int] = {(label, predicted): count for label, predicted, count in found.cells}
    numbers = range(len(found.classes))
    rows = []
    for label, name in enumerate(found.classes):
        total = found.supports[label] or 1
        of_label = [counts.get((label, predicted), 0) for predicted in numbers]
        rows.append((name, [Cell(n, -(-9 * n // total), predicted == label) for predicted, n in enumerate(of_label)]))
    return rows


def most_confused(found: EvaluationRecord) -> list[Confused]:
    """Returns what is taken for what most often."""
    pairs = ((count, -label, -predicted) for label, predicted, count in found.cells if count and predicted != label)
    return [
        Confused(found.classes[-label], found.classes[-predicted], count, count / found.supports[-label])
        for count, label, predicted in heapq.nlargest(FREQUENT, pairs)
    ]


def shown_mistakes(found: EvaluationRecord, *, max_chars: int) -> list[ShownMistake]:
    """Returns the worst ones, as many as together take so much room."""
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
    where = f"image {mistake.index}" + (f", {mistake.file}" if mistake.file else "")
    text = f"held-out {where}: {label}, taken for {predicted} with probability {probability}"
    width, height = _size(mistake.png)
    png = mistake.png if width and height else ""
    return ShownMistake(png, width, height, text, label, predicted, probability, where)


def _size(png: str) -> tuple[int, int]:
    """Returns an image's width and height in pixels; zeros where it is no PNG file that a page should show."""
    from PIL import Image  # matplotlib, which draws the charts, has loaded it already

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)  # of so many pixels that a browser suffers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of oddities in a file that is read nonetheless
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(base64.b64decode(png, validate=True)), formats=["PNG"]) as image:
                return image.size
        except (OSError, SyntaxError, ValueError, *bombs):  # what is no base64, and Pillow's of damaged files
            return 0, 0
