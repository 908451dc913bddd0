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


@pytest.mark.parametrize("num_classes", [11, 100])
def test_top5_accuracy_is_that_of_sorting_the_classes_of_each_image(num_classes: int) -> None:
    """Whole numbers, so that many are equal: of those, the first class comes first, as in the accuracy."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-6, 6, (200, num_classes), generator=generator).float()
    labels = torch.randint(num_classes, (200,), generator=generator)
    found = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        found += label in sorted(range(num_classes), key=lambda c: (-row[c], c))[:5]
    evaluation = judge(logits, labels)
    assert evaluation.top5_accuracy == found / 200
    assert evaluation.top5_accuracy > evaluation.accuracy
    assert evaluation.accuracy == int((logits.argmax(1) == labels).sum()) / 200
    assert evaluation.confusion.sum() == 200


def test_a_network_that_says_the_same_of_all_classes_is_not_in_the_top5_by_that() -> None:
    assert judge(torch.zeros(20, 20), torch.arange(20)).top5_accuracy == 5 / 20


def test_ten_classes_have_no_top5_accuracy() -> None:
    assert judge(torch.zeros(20, 10), torch.arange(20) % 10).top5_accuracy is None
    assert judge(torch.zeros(20, 11), torch.arange(20) % 10).top5_accuracy is not None


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
