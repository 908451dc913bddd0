"""Losses against their formulas, and what a job gets of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from in_process import make_spec

from pipeline.errors import DataError
from pipeline.jobfile import reading
from pipeline.training.losses import balanced_weights, cross_entropy, focal
from pipeline.training.parts import build_loss


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(64, 5, generator=generator), torch.randint(5, (64,), generator=generator)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_is_the_formula_of_the_paper(gamma: float) -> None:
    logits, labels = batch()
    total = 0.0
    for row, label in zip(logits.double().softmax(1).tolist(), labels.tolist(), strict=True):
        total -= (1 - row[label]) ** gamma * torch.tensor(row[label], dtype=torch.float64).log().item()
    assert float(focal(logits, labels, gamma=gamma, class_weights=None)) == pytest.approx(total / 64, rel=1e-5)


def test_focal_loss_without_gamma_is_cross_entropy_to_the_gradient() -> None:
    logits, labels = batch()
    one, other = (logits.clone().requires_grad_() for _ in range(2))
    focal(one, labels, gamma=0, class_weights=None).backward()
    F.cross_entropy(other, labels).backward()
    assert one.grad is not None
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 2.0])
def test_focal_loss_of_what_is_certain_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = focal(logits, torch.tensor([0, 0]), gamma=gamma, class_weights=None)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_job_has_cross_entropy_with_its_label_smoothing_unless_it_says_otherwise() -> None:
    logits, labels = batch()
    counts = torch.bincount(labels, minlength=5)
    smooth = make_spec(train={"label_smoothing": 0.1})
    training, judging = (build_loss(smooth, counts, training=training) for training in (True, False))
    assert float(training(logits, labels)) == float(F.cross_entropy(logits, labels, label_smoothing=0.1))
    assert float(judging(logits, labels)) == float(F.cross_entropy(logits, labels))
    other = build_loss(make_spec(train={"loss": {"name": "focal", "gamma": 1}}), counts, training=True)
    assert float(other(logits, labels)) == float(focal(logits, labels, gamma=1, class_weights=None))


def test_a_loss_that_smooths_no_labels_is_not_asked_to() -> None:
    text = b"name: a\nmodel: {name: net}\ndata: {name: mnist}\ntrain: {loss: {name: focal}, label_smoothing: 0.1}\n"
    with pytest.raises(
        Exception, match=r"train\.label_smoothing: the loss 'focal' does not smooth labels; leave it out"
    ):
        reading.parse(text, "job.yaml")


def test_weighted_losses_are_weighted_means() -> None:
    logits, labels = batch()
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0, 4.0])
    each = F.cross_entropy(logits, labels, reduction="none")
    expected = float((weights[labels] * each).sum() / weights[labels].sum())
    assert float(cross_entropy(logits, labels, label_smoothing=0, class_weights=weights)) == pytest.approx(expected)
    assert float(focal(logits, labels, gamma=0, class_weights=weights)) == pytest.approx(expected)


def test_balanced_weights_make_every_class_count_alike() -> None:
    counts = torch.tensor([10, 40, 0, 50])
    weights = balanced_weights(counts)
    torch.testing.assert_close(weights * counts, torch.tensor([25.0, 25.0, 0.0, 25.0]))
    assert float((balanced_weights(torch.tensor([7, 7, 7])) - 1).abs().max()) == 0


def test_held_out_images_are_judged_without_class_weights() -> None:
    logits, labels = batch()
    counts = torch.tensor([10, 20, 30, 40, 50])
    spec = make_spec(train={"loss": {"name": "cross_entropy", "class_weights": "balanced"}})
    training, judging = (build_loss(spec, counts, training=training) for training in (True, False))
    weights = balanced_weights(counts)
    assert float(training(logits, labels)) == pytest.approx(float(F.cross_entropy(logits, labels, weight=weights)))
    assert float(judging(logits, labels)) == float(F.cross_entropy(logits, labels))
    given = make_spec(train={"loss": {"name": "focal", "class_weights": [1, 2]}})
    with pytest.raises(DataError, match="class_weights has 2 numbers for 5 classes"):
        build_loss(given, counts, training=True)
