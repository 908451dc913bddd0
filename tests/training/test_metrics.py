"""Loss and accuracy, added up on the device."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import DivergedError
from pipeline.training import metrics
from pipeline.training.metrics import Evaluator, Window


def batch(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(size, 5, generator=generator), torch.randint(5, (size,), generator=generator)
    return F.cross_entropy(logits, labels), logits, labels


def test_a_window_gives_the_mean_over_images_not_over_batches() -> None:
    window, batches = Window(), [batch(4, 0), batch(12, 1)]
    for loss, logits, labels in batches:
        window.add(loss, logits, labels, step=1)
    logits, labels = (torch.cat([b[i] for b in batches]) for i in (1, 2))
    assert window.read() == (
        pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6),
        float((logits.argmax(1) == labels).float().mean()),
    )


def test_reading_a_window_begins_a_new_one() -> None:
    window = Window()
    window.add(*batch(8, 0), step=1)
    window.read()
    window.add(*batch(8, 1), step=2)
    assert window.read()[0] == pytest.approx(float(batch(8, 1)[0]))


def test_a_window_that_is_saved_and_loaded_reads_as_if_nothing_had_happened() -> None:
    whole, first, second = Window(), Window(), Window()
    for window in (whole, first):
        window.add(*batch(8, 0), step=1)
    first.fold()
    second.load_state_dict(first.state_dict())
    for window in (whole, second):
        window.add(*batch(8, 1), step=2)
    assert second.read() == whole.read()


def test_a_window_that_holds_much_folds_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_HELD_VALUES", 50)
    window = Window()
    for seed in range(5):
        window.add(*batch(8, seed), step=seed)
    assert window.num_images >= 16


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_step_and_a_remedy(value: float) -> None:
    window = Window()
    for step in range(1, 6):
        loss, logits, labels = batch(8, step)
        window.add(torch.tensor(value) if step == 4 else loss, logits, labels, step=step)
    with pytest.raises(DivergedError, match=r"at step 4: .*learning rate is too high"):
        window.read()


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
