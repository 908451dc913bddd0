"""The record of a run's latest evaluation, runs/<id>/evaluation.json; the attempt writes it after each epoch.

The confusion matrix is stored as those of its cells that are not 0: whole, that of 2,400 classes takes 17 MB, which is
more than a reader of records takes. Files of before, which have the whole matrix, can be read too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from pipeline.home import durable
from pipeline.home.records import Record

MAX_CONFUSIONS = 100_000
"""Cells off the diagonal that are kept, the largest ones: 3 MB at most, so that a million images fit a record."""

Cell = tuple[int, int, int]
"""A cell of the confusion matrix: the number of a true class, that of a predicted class, how many images."""


@dataclass(frozen=True)
class Mistake:
    """A held-out image that was taken for something else."""

    index: int  # in the held-out set
    label: int  # the true class
    predicted: int
    probability: float  # of the predicted class
    png: str  # the image, at most 96 pixels a side: base64 of a PNG file
    file: str | None = None  # as its folder of images names it: `test/cat/7.png`


@dataclass(frozen=True)
class ClassScore:
    """How well a class is told from the others; a share of nothing is NaN."""

    name: str
    support: int  # held-out images of the class
    num_correct: int
    num_predicted: int  # held-out images that were taken for it

    @property
    def precision(self) -> float:
        """The share that is right of what was taken for the class."""
        return self.num_correct / self.num_predicted if self.num_predicted else math.nan

    @property
    def recall(self) -> float:
        """The share of the class that was recognized: its accuracy."""
        return self.num_correct / self.support if self.support else math.nan

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn)."""
        total = self.support + self.num_predicted
        return 2 * self.num_correct / total if total else math.nan


@dataclass(frozen=True)
class EvaluationRecord(Record):
    epoch: int  # finished epochs, at this evaluation
    step: int
    loss: float
    accuracy: float
    classes: list[str]
    supports: list[int]  # held-out images of each class
    num_predicted: list[int]  # held-out images that were taken for each class
    cells: list[Cell]  # of the confusion matrix, by true and then by predicted class; those of 0 are left out
    mistakes: list[Mistake]  # the most confident first, up to 20
    num_left_out: int = 0  # cells that are not 0 and left out all the same, as there are too many

    @classmethod
    def of(
        cls,
        cells: Iterable[Cell],
        *,
        epoch: int,
        step: int,
        loss: float,
        accuracy: float,
        classes: list[str],
        mistakes: list[Mistake],
    ) -> Self:
        """Builds a record from the whole confusion matrix. The figures of each class count what is left out, too."""
        supports, num_predicted = [0] * len(classes), [0] * len(classes)
        found = [cell for cell in cells if cell[2]]
        for label, predicted, count in found:
            supports[label] += count
            num_predicted[predicted] += count
        kept = _largest(found)
        num_left_out = len(found) - len(kept)
        return cls(
            epoch, step, loss, accuracy, classes, supports, num_predicted, kept, mistakes, num_left_out=num_left_out
        )

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Self | None:
        """Returns None where fields are missing or of the wrong kind; unknown fields are left out."""
        if value is not None and "confusion" in value:
            value = _without_zeros(value)
        return super().from_json(value)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "mistakes": [vars(mistake) for mistake in self.mistakes]}  # `asdict` copies each number

    def write(self, path: Path) -> None:
        """Replaces the record. Raises ValueError where the names of the classes are more than can be read back."""
        durable.replace_json(path, self.to_json())

    def class_scores(self) -> list[ClassScore]:
        """Returns the score of each class, in order."""
        num_correct = [0] * len(self.classes)
        for label, predicted, count in self.cells:
            if label == predicted:
                num_correct[label] += count
        columns = zip(self.classes, self.supports, num_correct, self.num_predicted, strict=True)
        return [ClassScore(*column) for column in columns]


def _largest(cells: list[Cell]) -> list[Cell]:
    """Returns all cells of the diagonal and the largest of the others, in order."""
    confusions = [cell for cell in cells if cell[0] != cell[1]]
    if len(confusions) > MAX_CONFUSIONS:
        confusions = sorted(confusions, key=lambda cell: -cell[2])[:MAX_CONFUSIONS]
    return sorted([*confusions, *(cell for cell in cells if cell[0] == cell[1])])


_WHOLE_MATRIX = TypeAdapter(list[list[int]])


def _without_zeros(value: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a file of before, which has `confusion`, a row a true class, as one of today; None where that is none."""
    try:
        rows = _WHOLE_MATRIX.validate_python(value["confusion"])
        num_predicted = [sum(column) for column in zip(*rows, strict=True)]
    except ValueError:
        return None
    cells = [(label, predicted, n) for label, row in enumerate(rows) for predicted, n in enumerate(row) if n]
    return {**value, "supports": [sum(row) for row in rows], "num_predicted": num_predicted, "cells": cells}
