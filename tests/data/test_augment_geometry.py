"""What moves pixels takes each of them from where the obvious code does, one image at a time.

Places are multiples of 1/256 pixel, so at most 1/512 off, across and down: between 0 and 255 one level, and rounding
makes it two at most.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn_images import FILL, difference, random_images, seeded
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from pipeline.data.augment_geometry import random_resized_crop, rotation
from pipeline.data.draws import generator_of
from pipeline.data.sampling import affine_places, sample

LEVELS = 2


def look(image: torch.Tensor, columns: np.ndarray, rows: np.ndarray, fill: torch.Tensor) -> torch.Tensor:
    """Each pixel from a place of an image (H, W, C), bilinearly, in float64; outside is the fill."""
    height, width, _ = image.shape
    around = np.empty((height + 4, width + 4, image.shape[2]))
    around[:] = fill.numpy()
    around[2:-2, 2:-2] = image.numpy()
    columns, rows = np.clip(columns, -2, width) + 2, np.clip(rows, -2, height) + 2
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    x, y = (columns - left)[..., None], (rows - top)[..., None]
    upper = (1 - x) * around[top, left] + x * around[top, left + 1]
    lower = (1 - x) * around[top + 1, left] + x * around[top + 1, left + 1]
    return torch.from_numpy(np.rint((1 - y) * upper + y * lower).astype(np.uint8))


def turned(image: torch.Tensor, angle: float) -> torch.Tensor:
    height, width, channels = image.shape
    rows, columns = np.mgrid[:height, :width].astype(float)
    x, y = columns - (width - 1) / 2, rows - (height - 1) / 2
    from_x, from_y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
    return look(image, from_x + (width - 1) / 2, from_y + (height - 1) / 2, FILL[:channels])


def angles(num: int, degrees: float) -> list[float]:
    """What an epoch draws."""
    return ((2 * seeded(num).uniform().squeeze(1).double() - 1) * degrees).tolist()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "degrees"), [(32, 32, 15.0), (28, 28, 180.0), (9, 14, 90.0)])
def test_a_rotation_turns_around_the_centre_by_what_was_drawn(
    height: int, width: int, degrees: float, channels: int
) -> None:
    images = random_images(40, height=height, width=width, channels=channels)
    rotated = rotation(images, draws=seeded(40), fill=FILL[:channels], degrees=degrees)
    for image, angle, one in zip(images, angles(40, degrees), rotated, strict=True):
        assert difference(one, turned(image, math.radians(angle))) <= LEVELS


def test_a_rotation_is_that_of_torchvision_inside_the_image() -> None:
    """At its edge torchvision takes the image's part twice into account."""
    images = random_images(40, height=32, width=32)
    rotated = rotation(images, draws=seeded(40), fill=FILL, degrees=180)
    for image, angle, one in zip(images, angles(40, 180), rotated, strict=True):
        planes = torch.cat((image.permute(2, 0, 1), torch.full((1, 32, 32), 255, dtype=torch.uint8)))
        theirs = tv.rotate(planes, angle, InterpolationMode.BILINEAR, fill=[0])
        inside = theirs[3] == 255
        assert inside.sum() > 500
        assert difference(one[inside], theirs[:3].permute(1, 2, 0)[inside]) <= LEVELS


def test_an_image_looked_at_where_it_is_stays_as_it_is() -> None:
    planes = random_images(3, height=13, width=7).permute(0, 3, 1, 2).float()
    identity = torch.eye(2, 3, dtype=torch.float64).expand(3, 2, 3)
    assert torch.equal(sample(planes, *affine_places(identity, 13, 7), FILL), planes)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (33, 20), (3, 100)])
def test_what_is_sampled_is_what_whole_numbers_give(height: int, width: int) -> None:
    """No bit of it depends on the order of additions, then: neither on a chunk nor on a device."""
    images = random_images(50, height=height, width=width)
    maps = torch.randn(50, 2, 3, generator=generator_of(4), dtype=torch.float64)
    columns, rows = affine_places(maps, height, width)
    planes = sample(images.permute(0, 3, 1, 2).float(), columns, rows, FILL)

    around = FILL.long().expand(50, height + 3, width + 3, 3).clone()
    around[:, 1:-2, 1:-2] = images.long()
    columns, rows = (columns + 256).clamp(0, 256 * (width + 1)), (rows + 256).clamp(0, 256 * (height + 1))
    image, left, top = torch.arange(50).view(-1, 1, 1), columns >> 8, rows >> 8
    x, y = (columns & 255)[..., None], (rows & 255)[..., None]
    upper = (256 - x) * around[image, top, left] + x * around[image, top, left + 1]
    lower = (256 - x) * around[image, top + 1, left] + x * around[image, top + 1, left + 1]
    exact = ((256 - y) * upper + y * lower).double() / 2**16
    assert torch.equal(planes.permute(0, 2, 3, 1).double(), exact.round())


def test_a_quarter_turn_moves_whole_pixels() -> None:
    planes = random_images(1, height=8, width=8).permute(0, 3, 1, 2).float()
    quarter = torch.tensor([[[0, -1, 0], [1, 0, 0]]], dtype=torch.float64)
    assert torch.equal(sample(planes, *affine_places(quarter, 8, 8), FILL), planes.rot90(dims=(2, 3)))


def test_places_of_large_images_are_off_by_a_64th_of_a_pixel_at_most() -> None:
    angle = 1.234567
    turn = torch.tensor([[[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]])
    columns, rows = affine_places(turn.double(), 1024, 1024)
    y, x = np.mgrid[:1024, :1024] - 511.5
    exact = turn[0, 0, 0].item() * x + turn[0, 0, 1].item() * y + 511.5
    assert np.abs(columns[0].numpy() / 256 - exact).max() <= 1 / 64
    exact = turn[0, 1, 0].item() * x + turn[0, 1, 1].item() * y + 511.5
    assert np.abs(rows[0].numpy() / 256 - exact).max() <= 1 / 64


def box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], drawn: list[list[float]]
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part, as torchvision's RandomResizedCrop finds it."""
    for share, at in zip(drawn[0], drawn[1], strict=True):
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + at * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(drawn[2][0] * (height - h + 1)), int(drawn[2][1] * (width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (0.75, 1.3333)),
        (28, 28, (0.3, 0.5), (0.1, 10.0)),  # many fit at a later try
        (8, 20, (0.9, 1.0), (0.5, 0.6)),  # none fits
        (20, 8, (0.9, 1.0), (2.0, 3.0)),
        (20, 8, (0.9, 1.0), (0.2, 0.3)),
    ],
)
def test_a_part_is_cut_out_and_enlarged_as_by_torchvision(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], channels: int
) -> None:
    images = random_images(100, height=height, width=width, channels=channels)
    fill, numbers = FILL[:channels], seeded(100)
    drawn = [numbers.uniform(columns=columns).tolist() for columns in (10, 10, 2)]
    cropped = random_resized_crop(images, draws=seeded(100), fill=fill, scale=scale, ratio=ratio)
    for number, (image, one) in enumerate(zip(images, cropped, strict=True)):
        part = box(height, width, scale, ratio, [kind[number] for kind in drawn])
        theirs = tv.resized_crop(image.permute(2, 0, 1), *part, [height, width], antialias=False)
        assert difference(one, theirs.permute(1, 2, 0)) <= LEVELS
        with_antialias = tv.resized_crop(image.permute(2, 0, 1), *part, [height, width], antialias=True)
        assert difference(theirs, with_antialias) <= 1  # a part is never made smaller


def test_the_whole_image_is_a_part_that_changes_nothing() -> None:
    images = random_images(20, height=13, width=13)
    cropped = random_resized_crop(images, draws=seeded(20), fill=FILL, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.equal(cropped, images)
