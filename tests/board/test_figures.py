"""Grids of images and figures, looked at pixel by pixel."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    train_engine,
)
from numpy.typing import NDArray
from PIL import Image
from quick import NOTHING_SHOWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.board import figures, images, tags
from pipeline.board.figures import Prediction
from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split

Pixels = NDArray[np.uint8]
HOSTILE = [
    "$x_1$ & $$",
    "a\nb",
    "<b>bold</b>",
    "🙂 smile",
    "x" * 300,
    "हिन्दी",
    "中文",
    "\udcff",
    "",
    "\\",
    "a\x00b",
    "%s {x}",
]


def read(folder: Path) -> dict[str, Pixels]:
    reader = EventAccumulator(str(folder), size_guidance={"images": 0})
    reader.Reload()
    return {tag: decoded(reader.Images(tag)[0].encoded_image_string) for tag in reader.Tags()["images"]}


def decoded(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def tile(grid: Pixels, number: int, *, side: int, factor: int = 1) -> Pixels:
    """Of a grid of eight columns, as small as it was before it was enlarged."""
    row, column = divmod(number, 8)
    size = side * factor + 2
    cell = grid[row * size + 1 : (row + 1) * size - 1, column * size + 1 : (column + 1) * size - 1]
    assert (cell == cell[::factor, ::factor].repeat(factor, 0).repeat(factor, 1)).all()
    return cell[::factor, ::factor]


@pytest.fixture(scope="module")
def shown(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Pixels]]:
    folder = tmp_path_factory.mktemp("run")
    data = {"augment": [{"name": "crop", "padding": 2}, {"name": "cutout", "size": 3}]}
    spec = make_spec(data=data, train={"epochs": 1, "precision": "fp32"}, log={**NOTHING_SHOWN, "images": True})
    engine = engine_of(spec, digits)
    batch, _ = next(engine.loader.epoch(0))
    torch.save(batch, folder / "batch.pt")
    train_engine(engine, folder)
    return folder, read(folder)


def test_the_first_batch_is_what_the_network_sees(shown: tuple[Path, dict[str, Pixels]], digits: Dataset) -> None:
    """Augmented, in the order of the loader, in grey levels again."""
    folder, images = shown
    batch = torch.load(folder / "batch.pt")
    assert len(batch) == 64
    for number, image in enumerate(batch):
        pixels = 255 * (image[0] * digits.std[0] + digits.mean[0])
        np.testing.assert_array_equal(
            tile(images[tags.FIRST_BATCH][..., 0], number, side=8, factor=8), pixels.round().numpy()
        )


def test_the_first_batch_is_not_the_untouched_images(shown: tuple[Path, dict[str, Pixels]], digits: Dataset) -> None:
    _, images = shown
    untouched = {image.tobytes() for image in digits.train.images.numpy()[..., 0]}
    seen = [tile(images[tags.FIRST_BATCH][..., 0], number, side=8, factor=8).tobytes() for number in range(64)]
    assert not untouched & set(seen)


def test_the_untouched_images_are_the_dataset_s_with_every_class(
    shown: tuple[Path, dict[str, Pixels]], digits: Dataset
) -> None:
    _, written = shown
    indices = images.spread(digits.train.labels, 64)
    assert sorted(set(digits.train.labels[indices].tolist())) == list(range(10))
    for number, index in enumerate(indices):
        expected = digits.train.images[index, ..., 0].numpy()
        np.testing.assert_array_equal(tile(written[tags.SAMPLES][..., 0], number, side=8, factor=8), expected)


def test_a_grid_keeps_colours_and_fills_up_with_white() -> None:
    colored = torch.randint(256, (11, 100, 100, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    grid = images.grid(colored, columns=8).permute(1, 2, 0).numpy()
    assert grid.shape == (204, 816, 3)
    for number in range(11):
        np.testing.assert_array_equal(tile(grid, number, side=100), colored[number].numpy())
    assert (grid[102:, 3 * 102 :] == 255).all()


def test_a_grid_of_large_images_is_of_bounded_size() -> None:
    assert images.grid(torch.zeros(64, 1024, 1024, 1, dtype=torch.uint8), columns=8).shape == (1, 8 * 226, 8 * 226)


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([10, 10, 10], 6, [2, 2, 2]),
        ([10, 10, 10], 8, [2, 2, 2]),
        ([100, 2, 2], 50, [46, 2, 2]),
        ([3, 0, 3], 100, [3, 0, 3]),
        ([1] * 100, 64, None),
        ([5], 3, [3]),
    ],
)
def test_images_are_spread_over_the_classes(sizes: list[int], count: int, expected: list[int] | None) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    chosen = images.spread(labels, count)
    assert len(chosen) == len(set(chosen)) <= count
    if expected is None:
        assert len(chosen) == count
    else:
        assert torch.bincount(labels[chosen], minlength=len(sizes)).tolist() == expected


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (96, 96, 3)])
def test_a_thumbnail_is_the_image(shape: tuple[int, int, int]) -> None:
    image = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.testing.assert_array_equal(decoded(base64.b64decode(images.thumbnail(image))), image.squeeze(2).numpy())


def test_a_thumbnail_has_at_most_96_pixels_a_side() -> None:
    assert decoded(base64.b64decode(images.thumbnail(torch.zeros(224, 224, 3, dtype=torch.uint8)))).shape == (96, 96, 3)


def is_green(title: Pixels) -> bool:
    """Or red; letters are soft at their edges, so few pixels have the colour itself."""
    red, green, _ = title.reshape(-1, 3).astype(int).sum(0)
    assert red != green
    return bool(green > red)


def pixels_of(drawn: figures.Drawn) -> Pixels:
    pixels = decoded(drawn.png)
    assert pixels.shape == (drawn.height, drawn.width, 3)
    return pixels


def cell(pixels: Pixels, number: int, columns: int) -> Pixels:
    row, column = divmod(number, columns)
    height, width = figures.CELL_HEIGHT, figures.CELL_WIDTH
    return pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]


def test_a_title_is_green_where_it_is_right_and_red_where_it_is_wrong_above_its_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 8, 8, 1), generator=generator, dtype=torch.uint8)
    predictions = [Prediction(p.numpy(), "cat", "cat" if i % 3 else "dog", 0.9) for i, p in enumerate(images)]
    pixels = pixels_of(figures.draw_predictions(predictions, 4))
    assert pixels.shape == (2 * figures.CELL_HEIGHT, 4 * figures.CELL_WIDTH, 3)
    for number, image in enumerate(images):
        found = cell(pixels, number, 4)
        assert is_green(found[:18]) == (number % 3 > 0)
        below = found[-8 - 96 : -8, 8:-8]  # twelve times as large
        np.testing.assert_array_equal(below[::12, ::12], image.expand(8, 8, 3).numpy())


def test_the_name_of_a_file_is_under_its_image() -> None:
    """Above it, all is as it is without a name."""
    image = np.zeros((8, 8, 1), np.uint8)
    names = ["test/cat/7.png", None, "test/cat/a long name whose end is read.png", "test/cat/\udcff.png"]
    pixels = pixels_of(figures.draw_predictions([Prediction(image, "a", "b", 0.5, name) for name in names], 2))
    plain = pixels_of(figures.draw_predictions([Prediction(image, "a", "b", 0.5)], 2))
    height = figures.CELL_HEIGHT + figures.FILE_HEIGHT
    assert pixels.shape[:2] == (2 * height, 2 * figures.CELL_WIDTH)
    for number, name in enumerate(names):
        row, column = divmod(number, 2)
        found = pixels[row * height : (row + 1) * height, column * figures.CELL_WIDTH :][:, : figures.CELL_WIDTH]
        np.testing.assert_array_equal(found[: figures.CELL_HEIGHT - 8], plain[: figures.CELL_HEIGHT - 8])
        assert (found[figures.CELL_HEIGHT - 8 :] < 255).any() == (name is not None)
        assert (found[figures.CELL_HEIGHT - 8 :, [0, -1]] == 255).all(), "it is no wider than its cell"


def test_figures_go_on_on_further_pages() -> None:
    predictions = [Prediction(np.zeros((4, 4, 3), np.uint8), "a", "b", 0.5)] * 205
    heights = {tag: figures.draw_predictions(page, 10).height for tag, page in figures.pages("f", predictions)}
    assert heights == {"f": 10 * figures.CELL_HEIGHT, "f_2": 10 * figures.CELL_HEIGHT, "f_3": figures.CELL_HEIGHT}


def test_every_class_is_among_the_predictions_however_many_there_are(digits: Dataset, tmp_path: Path) -> None:
    """Their images are black, so that those that are shown can be counted."""
    train, test = (Split(torch.zeros(num, 8, 8, 3, dtype=torch.uint8), torch.arange(num) % 120) for num in (240, 360))
    names = tuple(f"class {number}" for number in range(120))
    source = dataclasses.replace(digits, train=train, test=test, classes=names, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = make_spec({"name": "vgg", "widths": [4]}, train={"epochs": 1}, log={**NOTHING_SHOWN, "figures": True})
    train_engine(engine_of(spec, source), tmp_path)
    pages = read(tmp_path)
    assert {tags.PREDICTIONS, f"{tags.PREDICTIONS}_2", tags.CONFUSION, tags.MISTAKES} == pages.keys()
    black = [(pages[tag][..., 0] == 0).sum() // 96**2 for tag in (tags.PREDICTIONS, f"{tags.PREDICTIONS}_2")]
    assert black == [100, 20]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_any_class_name_can_be_drawn(name: str) -> None:
    """Without a warning, as all warnings are errors here."""
    image = np.zeros((8, 8, 1), np.uint8)
    figures.draw_predictions([Prediction(image, name, name, 0.5)], 10)
    figures.draw_confusion(np.ones((2, 2), np.int64), [name, "b"])


def test_a_confusion_matrix_is_shaded_by_the_share_of_a_row() -> None:
    """Rows are the true classes: of the first, all are taken for the second."""
    pixels = pixels_of(figures.draw_confusion(np.array([[0, 50], [1, 1]]), ["a", "b"]))
    height, width = pixels.shape[:2]
    margin = 140 / height  # as in the drawing
    left, top, across, down = margin * width, 0.02 * height, (0.98 - margin) * width, (0.98 - margin) * height

    def shade(row: int, column: int) -> int:
        """Beside the middle, where the number is."""
        return int(pixels[int(top + (row + 0.2) * down / 2), int(left + (column + 0.2) * across / 2)].sum())

    assert shade(0, 1) < shade(1, 0) == shade(1, 1) < shade(0, 0)


@pytest.mark.parametrize("num_classes", [1, 26, 1000])
def test_a_confusion_matrix_of_any_size_is_drawn(num_classes: int) -> None:
    names = [f"class {number}" for number in range(num_classes)]
    drawn = figures.draw_confusion(np.eye(num_classes, dtype=np.int64), names)
    assert max(drawn.height, drawn.width) < 1400
