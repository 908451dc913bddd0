"""A preview shows the images that training would give to the network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_images import smooth_images
from in_process import digits, make_spec  # noqa: F401 - digits is a fixture
from PIL import Image

from pipeline.data.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.results import preview
from pipeline.results.preview import NUM_AUGMENTED, NUM_IMAGES, Preview


def made(folder: Path, *augment: Any) -> Preview:
    return preview.make(make_spec(data={"augment": list(augment)}), folder, log=print)


def drawn(shown: Preview) -> Image.Image:
    file = io.BytesIO()
    preview.draw(shown, file)
    return Image.open(file).convert("RGB")


def test_each_row_is_a_training_image_of_its_class_and_then_what_augmentation_makes_of_it(
    tmp_path: Path,
    digits: Dataset,
) -> None:
    shown = made(tmp_path, "flip")
    assert shown.images.shape == (NUM_IMAGES, 1 + NUM_AUGMENTED, 8, 8, 3)
    assert len(set(shown.classes)) == NUM_IMAGES, "digits has more classes than there are rows"
    flipped = 0
    for (original, *others), name in zip(shown.images, shown.classes, strict=True):
        of_class = digits.train.read((digits.train.labels == digits.classes.index(name)).nonzero().flatten().tolist())
        assert (original[..., :1] == of_class).flatten(1).all(1).any()
        for image in others:
            is_flipped = torch.equal(image, original.flip(1))
            assert is_flipped or torch.equal(image, original)
            flipped += is_flipped
    assert 10 < flipped < NUM_IMAGES * NUM_AUGMENTED - 10


def test_without_augmentation_every_epoch_has_the_image_as_it_is(tmp_path: Path) -> None:
    """To the bit: it was normalized and is denormalized."""
    shown = made(tmp_path)
    assert (shown.images == shown.images[:, :1]).all()
    assert "no augmentation" in shown.augmentation


def test_it_says_which_augmentation_with_which_options(tmp_path: Path) -> None:
    shown = made(tmp_path, {"name": "crop", "padding": 2}, "flip", "random_resized_crop", {"name": "rotation"})
    assert shown.augmentation == (
        "crop (padding 2), then flip, then random_resized_crop (scale 0.08 to 1, ratio 0.75 to 1.3333), "
        "then rotation (degrees 15)"
    )
    shown = made(tmp_path, {"name": "crop", "padding_mode": "reflect"}, {"name": "flip", "alternate": True})
    assert shown.augmentation == "crop (padding 4, padding_mode reflect), then flip (alternate yes)"


@pytest.mark.parametrize(("size", "side"), [(8, 96), (32, 96), (64, 128), (100, 100), (300, 224)])
def test_an_image_is_drawn_pixel_by_pixel_at_96_pixels_or_more(size: int, side: int) -> None:
    images = smooth_images(4, size, size).view(2, 2, size, size, 3)
    image = drawn(Preview("job", "flip", images, ("a", "b")))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    expected = preview._in_a_grid(images)[0]
    height, width = expected.shape[:2]
    assert (height, width) == (2 * side + preview.GAP, 2 * side + 3 * preview.GAP)
    bottom, right = image.height - preview.EDGE, image.width - preview.EDGE
    assert torch.equal(pixels[bottom - height : bottom, right - width : right], expected)


def test_names_that_are_long_or_strange_are_drawn() -> None:
    images = smooth_images(4, 16, 16).view(2, 2, 16, 16, 3)
    drawn(Preview("$x^", "crop $_ " * 300, images, ("日本 " * 30, "$\\frac{")))


def test_rows_are_filled_up_where_there_are_few_classes() -> None:
    labels = torch.arange(100) % 5
    chosen = preview.choose(labels, 8)
    assert len(set(chosen)) == 8
    assert set(labels[chosen].tolist()) == set(range(5))
    assert labels[chosen].tolist() == sorted(labels[chosen].tolist())
    assert sorted(preview.choose(torch.tensor([0, 1, 1]), 8)) == [0, 1, 2]


def test_a_preview_is_a_png() -> None:
    with pytest.raises(UsageError, match=r"should end in \.png"):
        preview.check_suffix(Path("preview.jpg"))
