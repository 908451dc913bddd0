"""Mixup and CutMix against their formulas, and what a job makes of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from in_process import digits, engine_of, make_spec, ordinary_kernels, take, weights  # noqa: F401 - two are fixtures

from pipeline.data.dataset import Dataset
from pipeline.training.mixing import Mixer, mixed_loss

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_mixup_is_the_weighted_mean_of_each_image_and_the_one_before_it() -> None:
    mixed, share = Mixer(mixup=0.4, cutmix=0, seed=0).mix(IMAGES, epoch=1, batch=2)
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * IMAGES + (1 - share) * IMAGES[[5, 0, 1, 2, 3, 4]])


def test_cutmix_pastes_one_box_and_its_share_is_what_is_left() -> None:
    for batch in range(50):
        mixed, share = Mixer(mixup=0, cutmix=1, seed=0).mix(IMAGES, epoch=0, batch=batch)
        own, other = mixed == IMAGES, mixed == IMAGES.roll(1, 0)
        assert bool((own | other).all())
        assert float(own.double().mean()) == pytest.approx(share)
        pasted = ~own[0, 0]
        rows, columns = pasted.any(1).nonzero(), pasted.any(0).nonzero()
        if len(rows):
            assert bool(pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()), "no box"


@pytest.mark.parametrize("alphas", [(0.3, 0.0), (0.0, 1.0), (0.3, 1.0)])
def test_what_is_drawn_is_a_function_of_seed_epoch_and_batch(alphas: tuple[float, float]) -> None:
    def drawn(seed: int, epoch: int, batch: int) -> float:
        return Mixer(*alphas, seed).mix(IMAGES, epoch=epoch, batch=batch)[1]

    assert drawn(0, 1, 2) == drawn(0, 1, 2)
    assert len({drawn(0, 1, 2), drawn(1, 1, 2), drawn(0, 2, 2), drawn(0, 1, 3), drawn(0, 12, 2)}) >= 4


def test_with_both_a_batch_gets_either() -> None:
    mixer = Mixer(mixup=1, cutmix=1, seed=0)
    cut = [bool((mixer.mix(IMAGES, epoch=0, batch=b)[0][0] == IMAGES[0]).any()) for b in range(200)]
    assert 70 < sum(cut) < 130


def test_the_loss_is_mixed_as_the_images_are() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    expected = 0.7 * F.cross_entropy(logits, labels) + 0.3 * F.cross_entropy(logits, labels[[5, 0, 1, 2, 3, 4]])
    torch.testing.assert_close(mixed_loss(F.cross_entropy, logits, labels, 0.7), expected)
    assert float(mixed_loss(F.cross_entropy, logits, labels, 1)) == float(F.cross_entropy(logits, labels))


def test_nothing_is_mixed_unless_it_is_asked_for() -> None:
    assert Mixer(mixup=0, cutmix=0, seed=0).mix(IMAGES, epoch=0, batch=0)[0] is IMAGES
    assert Mixer(mixup=1, cutmix=0, seed=0).mix(IMAGES[:1], epoch=0, batch=0)[1] == 1


@pytest.mark.parametrize("more", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0, "accumulate": 2}])
def test_a_job_learns_other_weights_with_it_and_the_same_ones_again(digits: Dataset, more: dict[str, float]) -> None:
    ends = []
    for train in ({}, more, more):
        engine = engine_of(make_spec(train={"precision": "fp32", "deterministic": True, **train}), digits)
        take(engine, 4)
        ends.append(weights(engine))
    assert all(torch.equal(ends[1][name], ends[2][name]) for name in ends[1])
    assert not all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
