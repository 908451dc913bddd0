"""Losses against their formulas, and what a job gets of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from in_process import make_spec

from pipeline.jobfile import reading
from pipeline.training.losses import cross_entropy, focal
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
    assert float(focal(logits, labels, gamma=gamma)) == pytest.approx(total / 64, rel=1e-5)


def test_focal_loss_without_gamma_is_cross_entropy_to_the_gradient() -> None:
    logits, labels = batch()
    one, other = (logits.clone().requires_grad_() for _ in range(2))
    focal(one, labels, gamma=0).backward()
    F.cross_entropy(other, labels).backward()
    assert one.grad is not None
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 2.0])
def test_focal_loss_of_what_is_certain_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = focal(logits, torch.tensor([0, 0]), gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_job_has_cross_entropy_with_its_label_smoothing_unless_it_says_otherwise() -> None:
    logits, labels = batch()
    smooth = build_loss(make_spec(train={"label_smoothing": 0.1}), num_classes=5, label_smoothing=0.1)
    assert float(smooth(logits, labels)) == float(F.cross_entropy(logits, labels, label_smoothing=0.1))
    assert float(cross_entropy(logits, labels, label_smoothing=0)) == float(F.cross_entropy(logits, labels))
    other = build_loss(make_spec(train={"loss": {"name": "focal", "gamma": 1}}), num_classes=5, label_smoothing=0)
    assert float(other(logits, labels)) == float(focal(logits, labels, gamma=1))


def test_a_loss_that_smooths_no_labels_is_not_asked_to() -> None:
    text = b"name: a\nmodel: {name: net}\ndata: {name: mnist}\ntrain: {loss: {name: focal}, label_smoothing: 0.1}\n"
    with pytest.raises(
        Exception, match=r"train\.label_smoothing: the loss 'focal' does not smooth labels; leave it out"
    ):
        reading.parse(text, "job.yaml")
