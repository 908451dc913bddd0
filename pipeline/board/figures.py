"""Figures by matplotlib: held-out images with what they were taken for, and the confusion matrix.

All images of a figure are one image with texts over it: three times as fast as an axes an image. What is drawn comes as
arrays, so that the process of `artist.py`, which imports no torch, can draw it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

RIGHT, WRONG = "#1a7f37", "#c62828"
PAGE = 100  # images that a figure holds
MAX_NUMBERED = 25  # classes, up to which the confusion matrix has its numbers written in
CELL_WIDTH, CELL_HEIGHT = 112, 140  # pixels; the upper part is for two lines of text
FILE_HEIGHT = 12  # pixels below an image for the name of its file, where there are any
IMAGE = 96  # pixels a side at most
DPI = 100
LONGEST = 12  # characters of a name
LONGEST_FILE = 18  # characters of a file's name


@dataclass(frozen=True)
class Prediction:
    """A held-out image and what it was taken for. image: uint8 (H, W, 1 or 3), of at most 96 pixels a side."""

    image: Pixels
    label: str
    predicted: str
    probability: float  # of what it was taken for
    file: str | None = None


@dataclass(frozen=True)
class Drawn:
    """A figure as a PNG file, and its size in pixels."""

    png: bytes
    height: int
    width: int


def pages(tag: str, predictions: Sequence[Prediction]) -> Iterator[tuple[str, Sequence[Prediction]]]:
    """Gives 100 images a page; the first has the tag, the others a number behind it."""
    for page, start in enumerate(range(0, len(predictions), PAGE), start=1):
        yield tag if page == 1 else f"{tag}_{page}", predictions[start : start + PAGE]


def draw_predictions(predictions: Sequence[Prediction], columns: int) -> Drawn:
    """Draws each image below its predicted class and probability, green or red, and its true label.

    The name of its file, where it has one, is under it.
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(predictions))
    cell_height = CELL_HEIGHT + (FILE_HEIGHT if any(prediction.file for prediction in predictions) else 0)
    mosaic = _mosaic([prediction.image for prediction in predictions], columns, cell_height)
    height, width = mosaic.shape[:2]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.figimage(mosaic)  # pixel by pixel
    for number, prediction in enumerate(predictions):
        row, column = divmod(number, columns)
        middle, top = (column + 0.5) * CELL_WIDTH, height - row * cell_height
        for below, text, color, size in _lines(prediction):
            style: dict[str, Any] = {"color": color, "fontsize": size, "ha": "center", "va": "top"}
            figure.text(middle, top - below, text, transform=None, parse_math=False, **style)
    return _drawn(figure)


def _lines(prediction: Prediction) -> Iterator[tuple[int, str, str, int]]:
    """Gives the lines of text of an image: how far below the top of its cell, what, in which colour and size."""
    color = RIGHT if prediction.predicted == prediction.label else WRONG
    yield 5, f"{_short(prediction.predicted)} {100 * prediction.probability:.0f} %", color, 8
    yield 20, f"label: {_short(prediction.label)}", "black", 8
    if prediction.file:
        yield CELL_HEIGHT - 4, _end(prediction.file), "dimgrey", 7


def _short(name: str) -> str:
    name = _printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 5]}…{name[-4:]}"


def _end(file: str) -> str:
    """Returns the end of a path, which says most."""
    file = _printable(file)
    return file if len(file) <= LONGEST_FILE else f"…{file[1 - LONGEST_FILE :]}"


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _mosaic(images: Sequence[Pixels], columns: int, cell_height: int) -> Pixels:
    """Returns the images, enlarged by a whole number, each in the middle of a white cell's part below the texts."""
    factor = max(1, IMAGE // images[0].shape[0])
    shown = np.stack(images).repeat(factor, 1).repeat(factor, 2)
    rows = -(-len(shown) // columns)
    canvas = np.full((rows * cell_height, columns * CELL_WIDTH, 3), 255, np.uint8)
    side = shown.shape[1]
    space = (CELL_WIDTH - side) // 2
    for number, image in enumerate(shown):
        row, column = divmod(number, columns)
        top, left = row * cell_height + CELL_HEIGHT - space - side, column * CELL_WIDTH + space
        canvas[top : top + side, left : left + side] = image
    return canvas


def draw_confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Drawn:
    """Draws a confusion matrix, each cell shaded by its share of the row.

    counts: (classes, classes), rows are the true classes.
    """
    from matplotlib.figure import Figure

    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(12.0, 1.6 + 0.4 * max(6, len(classes)))
    figure = Figure(figsize=(side + 0.4, side), dpi=DPI)
    margin = 1.4 / side  # for names and what the axes are
    axes = figure.add_axes((margin, margin, 0.98 - margin, 0.98 - margin))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= MAX_NUMBERED:
        names = [_short(name) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for (row, column), number in np.ndenumerate(counts):
            if number:
                ink = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", fontsize=9, color=ink)
    return _drawn(figure)


def _drawn(figure: Figure) -> Drawn:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, file = FigureCanvasAgg(figure), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a class named in a script that it lacks
        canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    Image.fromarray(pixels).save(file, "PNG")
    return Drawn(file.getvalue(), *pixels.shape[:2])
