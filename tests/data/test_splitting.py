"""Images that are held out by what is in them: the same ones always, whatever else lies there."""

from __future__ import annotations

import pytest
import torch

from pipeline.data import splitting
from pipeline.data.splitting import TEST, TRAIN, VAL
from pipeline.errors import DataError


def some_places(count: int, seed: int = 0) -> torch.Tensor:
    return splitting.places((f"image {number}".encode() for number in range(count)), seed=seed)


def test_places_are_uniform_and_another_seed_gives_others() -> None:
    places = some_places(20_000)
    assert places.min() >= 0
    assert places.max() < 1
    counts = torch.histc(places, bins=10, min=0, max=1)
    assert counts.min() > 1_850
    assert counts.max() < 2_150
    assert abs(float(torch.corrcoef(torch.stack((places, some_places(20_000, seed=1))))[0, 1])) < 0.03


def test_a_place_is_known() -> None:
    """Pinned: another one would hold out other images of every data set of every user."""
    assert splitting.places([b"image"], seed=0).tolist() == pytest.approx([0.19198927298201707], abs=1e-15)


def test_each_class_has_about_its_share_on_each_side() -> None:
    labels = torch.arange(30_000) % 3
    sides = splitting.sides(some_places(30_000), labels, "abc", val=0.1, test=0.2)
    for label in range(3):
        counts = torch.bincount(sides[labels == label], minlength=3)
        assert abs(int(counts[VAL]) - 1_000) < 100
        assert abs(int(counts[TEST]) - 2_000) < 130


def test_a_new_image_moves_no_other() -> None:
    labels = torch.arange(1_000) % 10
    before = splitting.sides(some_places(1_000), labels, "abcdefghij", val=0.1, test=0.1)
    after = splitting.sides(some_places(1_050), torch.arange(1_050) % 10, "abcdefghij", val=0.1, test=0.1)
    assert torch.equal(before, after[:1_000])


def test_the_order_of_images_does_not_matter_and_equal_ones_are_on_one_side() -> None:
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    places, labels = some_places(500), torch.arange(500) % 5
    sides = splitting.sides(places, labels, "abcde", val=0.2, test=0.2)
    assert torch.equal(splitting.sides(places[order], labels[order], "abcde", val=0.2, test=0.2), sides[order])
    twice = splitting.places([b"same", b"same"], seed=3)
    assert twice[0] == twice[1]


@pytest.mark.parametrize("count", range(3, 12))
@pytest.mark.parametrize(("val", "test"), [(0.01, 0.01), (0.9, 0.05), (0.05, 0.9), (0.4, 0.5)])
def test_a_small_class_has_an_image_on_each_side(count: int, val: float, test: float) -> None:
    for seed in range(20):
        sides = splitting.sides(
            some_places(count, seed), torch.zeros(count, dtype=torch.int64), "a", val=val, test=test
        )
        assert set(sides.tolist()) == {TRAIN, VAL, TEST}


def test_a_class_that_is_too_small_is_named() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2)
    with pytest.raises(DataError, match="the class 'rare' has 2 images, too few to hold some of them out"):
        splitting.sides(some_places(12), labels, ["usual", "rare"], val=0.1, test=0.1)
    assert set(splitting.sides(some_places(12), labels, ["usual", "rare"], val=0.1, test=0).tolist()) == {TRAIN, VAL}
