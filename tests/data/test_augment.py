"""Batched augmentations do to each image what the obvious code does, with random numbers of its own."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from drawn_images import FILL, random_images, seeded
from torchvision.transforms import RandomCrop

from pipeline.data.augment import crop, cutout, flip
from pipeline.data.draws import EpochDraws, generator_of
from pipeline.errors import DataError
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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "padding"), [(5, 7, 1), (5, 7, 4), (10, 10, 9), (2, 2, 1)])
def test_a_crop_of_a_reflected_image_is_cut_where_the_same_numbers_cut_a_black_one(
    height: int, width: int, padding: int, channels: int
) -> None:
    """As `torchvision.transforms.RandomCrop` pads, too: by `F.pad`."""
    images = random_images(60, height, width, channels)
    made = crop(images, draws=seeded(60), fill=FILL, padding=padding, padding_mode="reflect")
    places = seeded(60).integers(2 * padding + 1, columns=2).tolist()
    for image, one, (top, left) in zip(images, made, places, strict=True):
        padded = F.pad(image.permute(2, 0, 1).float(), (padding,) * 4, mode="reflect").permute(1, 2, 0).byte()
        assert torch.equal(one, padded[top : top + height, left : left + width])
    in_black = crop(images, draws=seeded(60), fill=FILL, padding=padding)
    assert torch.equal(made[in_black > 0], in_black[in_black > 0])


@pytest.mark.parametrize("padding", [1, 3, 6])
def test_reflected_crops_are_those_of_torchvision(padding: int) -> None:
    image = random_images(1, height=8, width=8)
    made = crop(image.repeat(2000, 1, 1, 1), draws=seeded(2000), fill=FILL, padding=padding, padding_mode="reflect")
    torch.manual_seed(0)
    theirs = RandomCrop(8, padding=padding, padding_mode="reflect")
    expected = [theirs(image[0].permute(2, 0, 1)).permute(1, 2, 0).contiguous() for _ in range(2000)]
    ours = {one.numpy().tobytes() for one in made}
    assert len(ours) == (2 * padding + 1) ** 2
    assert ours == {one.numpy().tobytes() for one in expected}


@pytest.mark.parametrize("padding", [5, 6])
def test_a_crop_of_images_too_small_to_be_reflected_says_so(padding: int) -> None:
    with pytest.raises(DataError, match=rf"larger than padding: {padding}, and they are 9 x 5 pixels; set a smaller"):
        crop(random_images(2, 5, 9), draws=seeded(2), fill=FILL, padding=padding, padding_mode="reflect")


def test_a_flip_mirrors_columns_and_leaves_rows_and_colours() -> None:
    images = random_images(200, height=3, width=5)
    flipped = flip(images, draws=seeded(200), fill=FILL)
    mirrored = [which(one, [image, image.flip(1)]) for image, one in zip(images, flipped, strict=True)]
    assert 70 < sum(mirrored) < 130


def test_an_alternating_flip_mirrors_an_image_in_every_second_epoch() -> None:
    images = random_images(200)
    orders = [torch.randperm(200, generator=generator_of(epoch)) for epoch in range(4)]
    mirrored = torch.zeros(4, 200, dtype=torch.bool)
    for epoch, order in enumerate(orders):
        draws = EpochDraws((7, epoch, 1), 200, torch.device("cpu"), order).of(0, 200)
        for index, one in zip(order, flip(images[order], draws=draws, fill=FILL, alternate=True), strict=True):
            mirrored[epoch, index] = which(one, [images[index], images[index].flip(1)])
    assert 70 < mirrored[0].sum() < 130
    assert all(torch.equal(mirrored[epoch], mirrored[epoch - 1].logical_not()) for epoch in (1, 2, 3))


def test_an_images_own_numbers_are_others_for_every_seed_augmentation_and_call() -> None:
    def drawn(*key: int) -> list[torch.Tensor]:
        draws = EpochDraws((key[0], key[1], key[2]), 300, torch.device("cpu")).of(0, 300)
        return [draws.of_image(2**40), draws.of_image(2**40), draws.integers(2**40)]

    assert all(torch.equal(*pair) for pair in zip(drawn(0, 0, 0)[:2], drawn(0, 5, 0)[:2], strict=True))
    seen = [*drawn(0, 0, 0), *drawn(1, 0, 0), *drawn(0, 0, 1)]
    assert len({tuple(one.flatten().tolist()) for one in seen}) == 9


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


OTHERWISE = {"crop": {"padding_mode": "reflect"}, "flip": {"alternate": True}}
"""What an augmentation does in quite another way by an option."""
CATALOG = pytest.mark.parametrize("name", [*catalog.AUGMENTATIONS, *(f"{name} otherwise" for name in OTHERWISE)])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def of_catalog(name: str) -> Callable[..., torch.Tensor]:
    """An augmentation with the options that it has by default, or otherwise."""
    name, *otherwise = name.split()
    entry = catalog.AUGMENTATIONS[name]
    options = {option: field.default for option, (_, field) in entry.options.items()}
    return functools.partial(entry.load(), **options | (OTHERWISE[name] if otherwise else {}))


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
@pytest.mark.parametrize("name", [*catalog.AUGMENTATIONS, "flip otherwise"])  # to be reflected, some are too small
def test_every_augmentation_takes_images_of_any_size(name: str, height: int, width: int) -> None:
    images = random_images(40, height=height, width=width)
    assert of_catalog(name)(images, draws=seeded(40), fill=FILL).shape == images.shape
