"""The figures of an epoch: which images they show, and where they are drawn meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.board import figures, tags
from pipeline.board.artist import Artist
from pipeline.board.images import spread
from pipeline.board.writer import Board
from pipeline.training.predictions import Predictions

MAX_VERDICTS = 20  # images in the figure of predictions, unless there are more classes
COLUMNS = 4  # TensorBoard shows an image 350 pixels wide; of more columns the texts could not be read
MANY = 40  # images, from which a figure of four columns would be too high

Drawing = tuple[str, Callable[[], figures.Drawn]]  # a figure by its tag, to be waited for


class Drawings:
    """Figures that were begun and are not written yet."""

    def __init__(self, board: Board, classes: Sequence[str], artist: Artist | None) -> None:
        """artist: draws them in a process of its own; without one they are drawn and written at once."""
        self.board, self.classes, self.artist = board, classes, artist
        self._begun: list[tuple[int, list[Drawing]]] = []  # and at which step

    def begin(self, predictions: Predictions, *, step: int) -> None:
        """Begin to draw predictions, mistakes and the confusion matrix of an epoch; `write` puts them into the file."""
        chosen = spread(predictions.labels, max(MAX_VERDICTS, len(self.classes)))
        columns = COLUMNS if len(chosen) <= MANY else 10
        shown = [(*page, columns) for page in figures.pages(tags.PREDICTIONS, predictions.of_images(chosen))]
        if predictions.mistakes:
            mistakes = predictions.of_images(predictions.mistakes, with_files=True)
            shown += [(*page, COLUMNS) for page in figures.pages(tags.MISTAKES, mistakes)]
        drawings = [(tag, self._drawn(figures.draw_predictions, *given)) for tag, *given in shown]
        confusion = predictions.evaluation.confusion.numpy()
        drawings.append((tags.CONFUSION, self._drawn(figures.draw_confusion, confusion, self.classes)))
        self._begun.append((step, drawings))
        if self.artist is None:
            self.write()

    def _drawn(self, draw: Callable[..., figures.Drawn], *given: Any) -> Callable[[], figures.Drawn]:
        return functools.partial(draw, *given) if self.artist is None else self.artist.draw(draw, *given)

    def __bool__(self) -> bool:
        """Whether there are figures that are not written yet."""
        return bool(self._begun)

    def write(self) -> None:
        """Wait for the figures that were begun first, and write them. Where one fails, the rest of them is given up."""
        step, drawings = self._begun.pop(0)
        for tag, result in drawings:
            drawn = result()
            self.board.image(tag, drawn.png, height=drawn.height, width=drawn.width, step=step)
