"""Test-time augmentation: the mean over views of an image, and what is made of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    take,
)

from pipeline.data.dataset import Dataset
from pipeline.stop import Stop
from pipeline.training.evaluation import evaluate
from pipeline.training.view_average import NUM_VIEWS, mean_logits


def forward(images: torch.Tensor) -> torch.Tensor:
    """Some function that is not linear, and tells places apart."""
    places = torch.arange(images[0].numel(), dtype=images.dtype).sin().view(1, *images.shape[1:])
    return torch.stack([(images * places).sum((1, 2, 3)), (images * places.flip(2)).square().sum((1, 2, 3))], 1)


def test_mirror_is_the_mean_of_an_image_and_its_mirror_image() -> None:
    images = torch.randn(3, 2, 5, 6, dtype=torch.float64)
    mirrored = torch.stack([image[:, :, list(range(5, -1, -1))] for image in images])
    expected = (forward(images) + forward(mirrored)) / 2
    torch.testing.assert_close(mean_logits(forward, images, kind="mirror"), expected)


def test_mirror_shift_weighs_what_is_moved_as_much_as_what_is_not() -> None:
    """Pixel by pixel: moved by one up and left, and down and right; beyond the border the image is reflected."""
    images = torch.randn(2, 1, 4, 4, dtype=torch.float64)

    def moved(by: int) -> torch.Tensor:
        def at(place: int) -> int:
            place += by
            return -place if place < 0 else 6 - place if place > 3 else place

        rows = [[images[:, :, at(row), at(column)] for column in range(4)] for row in range(4)]
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    def with_mirror(views: torch.Tensor) -> torch.Tensor:
        return (forward(views) + forward(views.flip(3))) / 2

    expected = with_mirror(images) / 2 + (with_mirror(moved(-1)) + with_mirror(moved(1))) / 4
    torch.testing.assert_close(mean_logits(forward, images, kind="mirror_shift"), expected)


def test_weights_of_the_views_add_up_to_one() -> None:
    for kind, num in NUM_VIEWS.items():
        seen: list[torch.Tensor] = []

        def constant(images: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(images)
            return torch.ones(len(images), 1)

        images = torch.randn(2, 1, 4, 4)
        assert torch.equal(mean_logits(constant, images, kind=kind), torch.ones(2, 1))
        assert len(seen) == num
        assert torch.equal(seen[0], images)


@pytest.mark.parametrize("kind", ["mirror", "mirror_shift"])
def test_an_evaluation_is_of_all_views_and_the_features_are_of_the_image_itself(kind: str, digits: Dataset) -> None:
    engine = engine_of(make_spec(data={"test_augment": kind}, train={"precision": "fp32"}), digits)
    plain = engine_of(make_spec(train={"precision": "fp32"}), digits)
    for each in (engine, plain):
        take(each, 3)
    found, of_plain = (evaluate(each, Stop(), features_of=[1, 5, 300]) for each in (engine, plain))
    assert found.features is not None
    assert of_plain.features is not None
    assert torch.equal(found.features, of_plain.features)
    torch.testing.assert_close(evaluate(engine, Stop()).logits, found.logits)

    def logits_of(dataset: Dataset) -> torch.Tensor:
        judged = engine_of(make_spec(train={"precision": "fp32"}), dataset)
        judged.model.load_state_dict(plain.model.state_dict())
        return evaluate(judged, Stop()).logits

    assert digits.test is not None
    turned = dataclasses.replace(digits, test=dataclasses.replace(digits.test, images=digits.test.images.flip(2)))
    mirror = (of_plain.logits + logits_of(turned)) / 2
    if kind == "mirror":
        torch.testing.assert_close(found.logits, mirror, rtol=1e-4, atol=1e-4)
    else:
        assert (found.logits - mirror).abs().max() > 1e-3
