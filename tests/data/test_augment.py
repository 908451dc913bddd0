"""Batched augmentations do to each image what the obvious code does, with random numbers of its own."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from drawn_images import FILL, random_images, seeded

from pipeline.data.augment import crop, cutout, flip
from pipeline.data.draws import EpochDraws
from pipeline.jobfile import catalog


def crops(image: torch.Tensor, padding: int) -> list[torch.Tensor]:
    """Every crop that there is, cut out one by one."""
    height, width, channels = image.shape
    padded = torch.zeros(height + 2 * padding, width + 2 * padding, channels, dtype=torch.uint8)
    padded[padding : padding + height, padding : padding + width] = image
    places = range(2 * padding + 1)
    return [padded[top : top + height, left : left + width] for top in places for left in places]


def which(image: torch.Tensor, candidates: list[torch.Tensor]) -> int:
    [found] = [number for number, candidate in enumerate(candidates) if torch.equal(image, candidate)]
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [1, 2, 9])
def test_a_crop_is_one_of_the_padded_images_crops(padding: int, channels: int) -> None:
    images = random_images(30, height=5, width=7, channels=channels)
    for image, cropped in zip(images, crop(images, draws=seeded(30), fill=FILL, padding=padding), strict=True):
        assert any(torch.equal(cropped, candidate) for candidate in crops(image, padding))


def test_crops_fall_on_every_place_equally_often() -> None:
    padding, num = 2, 5000
    image = random_images(1)
    cropped = crop(image.repeat(num, 1, 1, 1), draws=seeded(num), fill=FILL, padding=padding)
    counts = Counter(one.numpy().tobytes() for one in cropped)
    assert set(counts) == {candidate.numpy().tobytes() for candidate in crops(image[0], padding)}
    # 24 degrees of freedom: 51.2 is passed once in a thousand seeds
    assert sum((count - num / 25) ** 2 / (num / 25) for count in counts.values()) < 51.2


def test_a_flip_mirrors_columns_and_leaves_rows_and_colours() -> None:
    images = random_images(200, height=3, width=5)
    flipped = flip(images, draws=seeded(200), fill=FILL)
    mirrored = [which(one, [image, image.flip(1)]) for image, one in zip(images, flipped, strict=True)]
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("size", [1, 2, 3, 8, 40])
def test_cutout_sets_a_square_around_any_pixel_to_the_fill(size: int) -> None:
    images = random_images(1, height=7, width=5).repeat(800, 1, 1, 1)
    possible = []
    for top in range(-(size // 2), 7 - size // 2):
        for left in range(-(size // 2), 5 - size // 2):
            image = images[0].clone()
            image[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = FILL
            possible.append(image)
    seen = [image.numpy().tobytes() for image in cutout(images, draws=seeded(800), fill=FILL, size=size)]
    assert set(seen) == {image.numpy().tobytes() for image in possible}


CATALOG = pytest.mark.parametrize("name", catalog.AUGMENTATIONS)
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def of_catalog(name: str) -> Callable[..., torch.Tensor]:
    """An augmentation with the options that it has by default."""
    entry = catalog.AUGMENTATIONS[name]
    return functools.partial(entry.load(), **{option: field.default for option, (_, field) in entry.options.items()})


@CHANNELS
@CATALOG
def test_every_augmentation_changes_an_image_as_it_does_among_others(name: str, channels: int) -> None:
    """In any chunk of an epoch, then, and whether the epoch is begun at its first image or at a later one."""
    augment, fill = of_catalog(name), FILL[:channels]
    images = random_images(300, height=32, width=32, channels=channels)
    whole = augment(images, draws=seeded(300), fill=fill)
    epoch = EpochDraws((0, 0, 0), 300, torch.device("cpu"))
    for start, stop in ((40, 300), (7, 8), (0, 40)):
        part = augment(images[start:stop], draws=epoch.of(start, stop), fill=fill)
        assert torch.equal(part, whole[start:stop])


@CHANNELS
@CATALOG
def test_every_augmentation_keeps_its_contract(name: str, channels: int) -> None:
    augment, fill = of_catalog(name), FILL[:channels]
    images = random_images(64, height=32, width=32, channels=channels)
    before, random_before = images.clone(), torch.get_rng_state()

    first, again, other = (augment(images, draws=seeded(64, seed), fill=fill) for seed in (0, 0, 1))

    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert first.is_contiguous()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), random_before)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (28, 28), (5, 33)])
@CATALOG
def test_every_augmentation_takes_images_of_any_size(name: str, height: int, width: int) -> None:
    images = random_images(40, height=height, width=width)
    assert of_catalog(name)(images, draws=seeded(40), fill=FILL).shape == images.shape
