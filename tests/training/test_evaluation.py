"""An evaluation is the plain computation over all held-out images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.training.evaluation import Evaluator


def batch(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(size, 5, generator=generator), torch.randint(5, (size,), generator=generator)
    return F.cross_entropy(logits, labels), logits, labels


def test_an_evaluation_equals_the_plain_computation_over_all_images() -> None:
    evaluator, batches = Evaluator(5), [batch(7, 0), batch(20, 1)]
    for _, logits, labels in batches:
        evaluator.add(F.cross_entropy(logits, labels, reduction="none"), logits, labels)
    logits, labels = (torch.cat([b[i] for b in batches]) for i in (1, 2))
    result, predicted = evaluator.result(), logits.argmax(1)
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6)
    assert result.accuracy == int((predicted == labels).sum()) / 27
    for label in range(5):
        assert result.class_accuracy[label] == pytest.approx(
            float((predicted == label)[labels == label].double().mean())
        )
        assert result.confusion[label].sum() == (labels == label).sum()


def test_a_class_without_images_has_no_accuracy() -> None:
    evaluator = Evaluator(3)
    evaluator.add(torch.zeros(2), torch.eye(3)[:2], torch.tensor([0, 1]))
    assert evaluator.result().class_accuracy[:2] == [1, 1]
    assert math.isnan(evaluator.result().class_accuracy[2])


def test_an_evaluation_keeps_every_image_in_its_order() -> None:
    evaluator, batches = Evaluator(5), [batch(4, 0), batch(12, 1)]
    for _, logits, labels in batches:
        evaluator.add(F.cross_entropy(logits, labels, reduction="none"), logits, labels)
    features = torch.ones(3, 2)
    evaluation = evaluator.result(features)
    logits, labels = (torch.cat([b[i] for b in batches]) for i in (1, 2))
    assert torch.equal(evaluation.logits, logits)
    assert torch.equal(evaluation.labels, labels)
    assert evaluation.features is features
    assert evaluator.result().features is None
