"""Datasets of the user's own: whatever their items are, they come out as uint8 images, or it is said why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import dataset as datasets
from pipeline.data import own_dataset
from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.errors import DataError

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
COLOURED = np.stack([GREY, GREY + 64, GREY + 128], axis=2)


class Items:
    """As torchvision's datasets: of one image, again and again."""

    def __init__(self, image: Any, num: int = 4, label: Any = None) -> None:
        self.image, self.num, self.label = image, num, label

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Any:
        return self.image, index % 2 if self.label is None else self.label


def load(code: Callable[..., Any], tmp_path: Path, *, image_size: int | None = None, **options: Any) -> Dataset:
    def read(folder: Path, **arguments: Any) -> datasets.Found:
        return own_dataset.read(lambda **given: given, code, folder, **arguments)

    return datasets.load("mine:Items", read, options, image_size=image_size, datasets=tmp_path, log=print)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), GREY[..., None]),
        (Image.fromarray(COLOURED), COLOURED),
        (Image.fromarray(COLOURED).convert("RGBA"), COLOURED),
        (Image.fromarray(GREY > 30), (GREY > 30)[..., None] * np.uint8(255)),
        (GREY, GREY[..., None]),
        (COLOURED, COLOURED),
        (torch.from_numpy(GREY), GREY[..., None]),
        (torch.from_numpy(COLOURED).permute(2, 0, 1), COLOURED),
        (torch.from_numpy(COLOURED), COLOURED),
        (torch.from_numpy(COLOURED).permute(2, 0, 1) / 255, COLOURED),
        (COLOURED.astype(np.float32) / 255, COLOURED),
    ],
    ids=[f"kind {number}" for number in range(11)],
)
def test_images_of_every_kind(image: Any, expected: Any, tmp_path: Path) -> None:
    dataset = load(lambda root, train: Items(image), tmp_path)  # noqa: ARG005
    assert isinstance(dataset.train, Split)
    assert torch.equal(dataset.train.images[3], torch.from_numpy(np.ascontiguousarray(expected)))
    assert dataset.train.labels.tolist() == [0, 1, 0, 1]
    assert dataset.classes == ("0", "1")


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (Items(GREY, num=0), "a split has no images"),
        (Items(GREY[0]), r"image 0 has the shape \(8,\); it must be"),
        (Items(np.zeros((8, 8, 4), np.uint8)), r"image 0 has the shape \(8, 8, 4\)"),
        (Items(GREY.astype(np.float32)), "image 0 has values from 0 to 63; floats must be from 0 to 1"),
        (Items(GREY.astype(np.int64)), "image 0 is of int64; it must be of uint8"),
        (Items(np.full((8, 8), np.nan)), "image 0 has values from nan to nan"),
        ([GREY, GREY], r"item 0 is a ndarray; it must be \(image, label\)"),
        (
            [(GREY, 0), (GREY[:4, :4], 0)],
            r"image 1 is \(4, 4, 1\), and those before it are \(8, 8, 1\); set data.image",
        ),
        (Items(GREY[:4]), "are not square; set data.image_size"),
        (Items(GREY, label=-1), "the label of item 0 is -1; it must be a whole number from 0 to 65535"),
        (Items(GREY, label=10**9), "the label of item 0 is 1000000000"),
        (Items(GREY, label=1.7), r"the label of item 0 is 1\.7"),
        (Items(GREY, label="cat"), "the label of item 0 is 'cat'"),
    ],
)
def test_what_is_no_image_with_its_label_is_told(items: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        load(lambda root, train: items, tmp_path)  # noqa: ARG005


def test_labels_may_be_of_any_kind_of_whole_number(tmp_path: Path) -> None:
    for label in (1, 1.0, True, np.int64(1), torch.tensor(1)):
        items = [(GREY, label), (GREY, 0)]
        assert load(lambda root, train, items=items: items, tmp_path).train.labels.tolist() == [1, 0]  # noqa: ARG005


def test_both_splits_must_be_alike(tmp_path: Path) -> None:
    small = np.zeros((9, 9), np.uint8)
    with pytest.raises(DataError, match=r"its images to train on are \(8, 8, 1\), and the others \(9, 9, 1\)"):
        load(lambda root, train: Items(GREY if train else small), tmp_path)  # noqa: ARG005


def test_images_of_several_sizes_are_resized(tmp_path: Path) -> None:
    items = [(GREY, 0), (np.full((4, 6), 9, np.uint8), 1)]
    dataset = load(lambda root, train: items, tmp_path, image_size=16)  # noqa: ARG005
    assert isinstance(dataset.train, Split)
    assert tuple(dataset.train.images.shape) == (2, 16, 16, 1)
    assert bool((dataset.train.images[1] == 9).all())


def test_it_is_called_with_folder_split_and_options_and_kept_nowhere(tmp_path: Path) -> None:
    calls: list[tuple[Path, bool, int]] = []

    def code(root: Path, train: bool, num: int) -> Items:
        calls.append((root, train, num))
        items = Items(GREY, num=num if train else 2)
        items.classes = ("a", "b", "c")  # type: ignore[attr-defined]
        return items

    first, second = (load(code, tmp_path, num=6) for _ in range(2))
    assert calls == [(tmp_path, True, 6), (tmp_path, False, 6)] * 2
    assert (len(first.train), len(first.test), first.classes) == (6, 2, ("a", "b", "c"))
    assert first.fingerprint == second.fingerprint
    assert list(tmp_path.iterdir()) == []
