"""An evaluation is the plain computation over all held-out images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.training.evaluation import judge


def outputs(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 5, generator=generator), torch.randint(5, (size,), generator=generator)


def test_an_evaluation_equals_the_plain_computation_over_all_images() -> None:
    logits, labels = outputs(27)
    result, predicted = judge(logits, labels), logits.argmax(1)
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6)
    assert result.accuracy == int((predicted == labels).sum()) / 27
    for label in range(5):
        assert result.class_accuracy[label] == pytest.approx(
            float((predicted == label)[labels == label].double().mean())
        )
        assert result.confusion[label].sum() == (labels == label).sum()


def test_a_class_without_images_has_no_accuracy() -> None:
    accuracy = judge(torch.eye(3)[:2], torch.tensor([0, 1])).class_accuracy
    assert accuracy[:2] == [1, 1]
    assert math.isnan(accuracy[2])


def test_an_evaluation_keeps_every_image_in_its_order() -> None:
    logits, labels = outputs(16)
    features = torch.ones(3, 2)
    evaluation = judge(logits, labels, features=features)
    assert torch.equal(evaluation.logits, logits)
    assert torch.equal(evaluation.labels, labels)
    assert evaluation.features is features
    assert judge(logits, labels).features is None
