"""What changes colours does to each image what torchvision does to one.

torchvision drops what is behind the point after each of the four changes, where one rounds here, and weights red, green
and blue with other digits: one level each, which a later factor of up to 1.4 enlarges.
"""

from __future__ import annotations

import pytest
import torch
from drawn_images import FILL, difference, random_images, seeded, smooth_images
from torchvision.transforms.v2 import functional as tv

from pipeline.data.augment_colour import color_jitter, smoothed, turn_hue
from pipeline.data.planes import blend, to_grey, to_images, to_planes

NONE = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
ADJUST = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
}


def drawn(num: int, options: dict[str, float]) -> list[list[float]]:
    """Three factors and a turn for each image."""
    numbers = seeded(num)
    rows = []
    for name, strength in options.items():
        uniform = numbers.uniform().squeeze(1).double()
        low, high = (-strength, strength) if name == "hue" else (max(0.0, 1 - strength), 1 + strength)
        rows.append((low + uniform * (high - low)).tolist())
    return [list(one) for one in zip(*rows, strict=True)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ADJUST)
def test_each_change_alone_is_that_of_torchvision(name: str, channels: int) -> None:
    images = torch.cat((random_images(30, 32, 32, channels), smooth_images(30, channels=channels)))
    options = {**NONE, name: 0.5 if name == "hue" else 1.5}
    changed = color_jitter(images, draws=seeded(60), fill=FILL[:channels], **options)
    for image, one, row in zip(images, changed, drawn(60, options), strict=True):
        value = row[list(ADJUST).index(name)]
        theirs = ADJUST[name](image.permute(2, 0, 1), value).permute(1, 2, 0)
        assert difference(one, theirs) <= 2


def test_all_changes_come_in_one_order() -> None:
    images = smooth_images(50)
    options = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    changed = color_jitter(images, draws=seeded(50), fill=FILL, **options)
    for image, one, row in zip(images, changed, drawn(50, options), strict=True):
        theirs = image.permute(2, 0, 1)
        for adjust, value in zip(ADJUST.values(), row, strict=True):
            theirs = adjust(theirs, value)
        assert difference(one, theirs.permute(1, 2, 0)) <= 7  # ((1 * 1.4 + 1.5) * 1.4 + 1) * 1.4, rounded up


@pytest.mark.parametrize("channels", [1, 3])
def test_changes_of_nothing_change_nothing(channels: int) -> None:
    images = random_images(100, height=32, width=32, channels=channels)
    assert torch.equal(color_jitter(images, draws=seeded(100), fill=FILL[:channels], **NONE), images)


def test_grey_images_have_no_saturation_and_no_hue() -> None:
    grey = random_images(20, height=9, width=9, channels=1)
    options = {**NONE, "saturation": 1.0, "hue": 0.5}
    assert torch.equal(color_jitter(grey, draws=seeded(20), fill=FILL[:1], **options), grey)
    in_three = grey.expand(-1, -1, -1, 3).contiguous()
    assert torch.equal(color_jitter(in_three, draws=seeded(20), fill=FILL, **options), in_three)


def test_a_third_of_the_circle_of_hues_moves_the_channels_on() -> None:
    planes = to_planes(random_images(50))
    third = torch.full((50,), 1 / 3, dtype=torch.float64)
    assert torch.equal(turn_hue(planes, third), planes.roll(1, dims=1))
    assert torch.equal(turn_hue(planes, -third), planes.roll(-1, dims=1))


def test_a_blend_is_exact_for_every_pixel_and_factor() -> None:
    """So it is the same in any order of multiplications and sums, and on every device."""
    pixels = torch.arange(256.0).view(1, 1, 16, 16).repeat(200, 1, 1, 1)
    factors = torch.linspace(0, 11, 200, dtype=torch.float64)
    exact = (factors * 4096).round().view(-1, 1, 1, 1) / 4096
    for other in (0.0, 117.0, 255.0):
        expected = (other + exact * (pixels.double() - other)).round().clamp(0, 255)
        assert torch.equal(blend(pixels, other, factors).double(), expected)


def test_smoothing_is_that_of_torchvisions_sharpness_and_leaves_the_border() -> None:
    images = random_images(20, height=9, width=12)
    ours = to_images(smoothed(to_planes(images)))
    theirs = torch.stack([tv.adjust_sharpness(image.permute(2, 0, 1), 0.0) for image in images]).permute(0, 2, 3, 1)
    assert difference(ours, theirs) <= 1
    assert torch.equal(ours[:, 0], images[:, 0])


def test_grey_is_that_of_torchvision() -> None:
    images = random_images(20)
    theirs = tv.rgb_to_grayscale(images.permute(0, 3, 1, 2))
    assert difference(to_grey(to_planes(images)).to(torch.uint8), theirs) <= 1
