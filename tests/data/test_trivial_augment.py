"""Each of the fourteen operations does what torchvision does for it, at every strength, to one image.

Of what torchvision drops behind the point, one rounds here; and pixels are taken from multiples of 1/256 pixel: two
levels at most. What is looked up in tables is the same, but for the rounding of autocontrast.
"""

from __future__ import annotations

import math

import pytest
import torch
from drawn_images import FILL, difference, random_images, seeded, smooth_images
from torchvision.transforms import TrivialAugmentWide
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from pipeline.data.draws import Draws
from pipeline.data.trivial_augment import MOST_SHEAR, OPERATIONS, STRENGTHS, trivial_augment

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS = {
    "brightness": tv.adjust_brightness,
    "color": tv.adjust_saturation,
    "contrast": tv.adjust_contrast,
    "sharpness": tv.adjust_sharpness,
}


class Chosen(Draws):
    """Draws that are one operation, at every strength and with both signs."""

    def __init__(self, operation: str) -> None:
        self.chosen = [
            torch.full((2 * STRENGTHS, 1), OPERATIONS.index(operation)),
            torch.arange(STRENGTHS).repeat(2)[:, None],
            torch.arange(2).repeat_interleave(STRENGTHS)[:, None],
        ]

    def integers(self, high: int, *, columns: int = 1) -> torch.Tensor:
        drawn = self.chosen.pop(0)
        assert (columns, drawn.max() < high) == (1, True)
        return drawn


def strengths() -> list[tuple[int, int]]:
    """The strength and the sign of each image."""
    return [(strength, sign) for sign in (-1, 1) for strength in range(STRENGTHS)]


def moved(planes: torch.Tensor, name: str, strength: int, sign: int) -> torch.Tensor:
    """As torchvision's `_apply_op`, with its ranges."""
    share = sign * strength / 30
    angle, translate, shear = 0.0, [0, 0], [0.0, 0.0]
    if name == "rotate":
        return tv.rotate(planes, share * 135, InterpolationMode.BILINEAR, fill=[0])
    axis = "xy".index(name[-1])
    if name.startswith("translate"):
        translate[axis] = int(share * 32)
    else:
        shear[axis] = math.degrees(math.atan(share * MOST_SHEAR))
    center = [0.0, 0.0]
    return tv.affine(planes, angle, translate, 1.0, shear, InterpolationMode.BILINEAR, fill=[0], center=center)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", MOVES)
def test_what_moves_is_where_torchvision_moves_it(name: str, channels: int) -> None:
    images = random_images(2 * STRENGTHS, height=48, width=48, channels=channels)
    changed = trivial_augment(images, draws=Chosen(name), fill=FILL[:channels])
    for image, one, (strength, sign) in zip(images, changed, strengths(), strict=True):
        mask = torch.full((1, 48, 48), 255, dtype=torch.uint8)
        theirs = moved(torch.cat((image.permute(2, 0, 1), mask)), name, strength, sign)
        inside, outside = theirs[-1] == 255, theirs[-1] == 0
        assert inside.sum() > 500
        assert difference(one[inside], theirs[:-1].permute(1, 2, 0)[inside]) <= 2
        # Where torchvision has nothing, up to a sixteenth of a pixel may be of the image: it weights that part twice.
        assert difference(one[outside], FILL[:channels].expand_as(one[outside])) <= (0 if "translate" in name else 16)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", BLENDS)
def test_what_blends_is_blended_as_by_torchvision(name: str, channels: int) -> None:
    images = random_images(2 * STRENGTHS, height=32, width=32, channels=channels)
    changed = trivial_augment(images, draws=Chosen(name), fill=FILL[:channels])
    for image, one, (strength, sign) in zip(images, changed, strengths(), strict=True):
        theirs = BLENDS[name](image.permute(2, 0, 1), 1 + sign * strength / 30 * 0.99)
        assert difference(one, theirs.permute(1, 2, 0)) <= 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["identity", "posterize", "solarize", "autocontrast", "equalize"])
def test_what_is_looked_up_is_found_by_torchvision_too(name: str, channels: int) -> None:
    images = smooth_images(2 * STRENGTHS, channels=channels)
    changed = trivial_augment(images, draws=Chosen(name), fill=FILL[:channels])
    for image, one, (strength, _) in zip(images, changed, strengths(), strict=True):
        planes = image.permute(2, 0, 1)
        theirs = {
            "identity": lambda planes, _: planes,
            "posterize": lambda planes, strength: tv.posterize(planes, 8 - round(strength / 5)),
            "solarize": lambda planes, strength: tv.solarize(planes, 255 - 8.5 * strength),
            "autocontrast": lambda planes, _: tv.autocontrast(planes),
            "equalize": lambda planes, _: tv.equalize(planes),
        }[name](planes, strength)
        assert difference(one, theirs.permute(1, 2, 0)) <= (name == "autocontrast")


def test_names_ranges_and_signs_are_those_of_torchvision() -> None:
    space = TrivialAugmentWide()._augmentation_space(STRENGTHS)
    assert [name.lower() for name in space] == [
        *("identity", "shearx", "sheary", "translatex", "translatey", "rotate", "brightness", "color", "contrast"),
        *("sharpness", "posterize", "solarize", "autocontrast", "equalize"),
    ]
    assert [name.replace("_", "") for name in OPERATIONS] == [name.lower() for name in space]
    signed = [name.lower() for name, (_, is_signed) in space.items() if is_signed]
    assert signed == [name.replace("_", "") for name in (*MOVES, *BLENDS)]
    assert space["Posterize"][0].tolist() == [8 - round(strength / 5) for strength in range(STRENGTHS)]
    assert space["Solarize"][0].tolist() == pytest.approx([255 - 8.5 * strength for strength in range(STRENGTHS)])
    for name, most in (("ShearX", 0.99), ("TranslateY", 32), ("Rotate", 135), ("Contrast", 0.99)):
        assert space[name][0].tolist() == pytest.approx([most * strength / 30 for strength in range(STRENGTHS)])


def test_an_epoch_draws_every_operation_about_equally_often() -> None:
    counts = torch.bincount(seeded(14_000).integers(len(OPERATIONS)).flatten())
    assert (counts.min() > 850, counts.max() < 1150) == (True, True)
