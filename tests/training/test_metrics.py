"""Loss and accuracy of training batches, added up on the device."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import DivergedError
from pipeline.training import metrics
from pipeline.training.metrics import TrainingMeans


def batch(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(size, 5, generator=generator), torch.randint(5, (size,), generator=generator)
    return F.cross_entropy(logits, labels), logits, labels


def test_a_window_gives_the_mean_over_images_not_over_batches() -> None:
    means, batches = TrainingMeans(), [batch(4, 0), batch(12, 1)]
    for loss, logits, labels in batches:
        means.add(loss, logits, labels, step=1)
    logits, labels = (torch.cat([b[i] for b in batches]) for i in (1, 2))
    assert means.read_window() == (
        pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6),
        float((logits.argmax(1) == labels).float().mean()),
    )


def test_reading_a_window_begins_a_new_one() -> None:
    means = TrainingMeans()
    means.add(*batch(8, 0), step=1)
    means.read_window()
    means.add(*batch(8, 1), step=2)
    assert means.read_window()[0] == pytest.approx(float(batch(8, 1)[0]))


def test_a_window_that_is_saved_and_loaded_reads_as_if_nothing_had_happened() -> None:
    whole, first, second = TrainingMeans(), TrainingMeans(), TrainingMeans()
    for means in (whole, first):
        means.add(*batch(8, 0), step=1)
    first.fold()
    second.load_state_dict(first.state_dict())
    for means in (whole, second):
        means.add(*batch(8, 1), step=2)
    assert second.read_window() == whole.read_window()


def test_a_window_that_holds_much_folds_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_HELD_VALUES", 50)
    means = TrainingMeans()
    for seed in range(5):
        means.add(*batch(8, seed), step=seed)
    assert means.window.num_images >= 16


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_step_and_a_remedy(value: float) -> None:
    means = TrainingMeans()
    for step in range(1, 6):
        loss, logits, labels = batch(8, step)
        means.add(torch.tensor(value) if step == 4 else loss, logits, labels, step=step)
    with pytest.raises(DivergedError, match=r"at step 4: .*learning rate is too high"):
        means.read_window()


def test_an_epoch_goes_on_over_windows_and_the_next_one_begins_anew() -> None:
    means, batches = TrainingMeans(), [batch(4, 0), batch(12, 1), batch(6, 2)]
    for number, (loss, logits, labels) in enumerate(batches[:2], start=1):
        means.add(loss, logits, labels, step=number)
        means.read_window()
    logits, labels = (torch.cat([b[i] for b in batches[:2]]) for i in (1, 2))
    expected = (
        pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6),
        float((logits.argmax(1) == labels).double().mean()),
    )
    assert means.read_epoch(num_images=16) == means.read_epoch(num_images=16) == expected
    assert means.read_epoch(num_images=17) is None
    means.begin_epoch()
    loss, logits, labels = batches[2]
    means.add(loss, logits, labels, step=3)
    assert means.read_epoch(num_images=6) == (
        pytest.approx(float(loss)),
        float((logits.argmax(1) == labels).double().mean()),
    )


def test_a_window_may_reach_over_the_end_of_an_epoch() -> None:
    means, batches = TrainingMeans(), [batch(4, 0), batch(12, 1)]
    for number, (loss, logits, labels) in enumerate(batches, start=1):
        means.begin_epoch()
        means.add(loss, logits, labels, step=number)
    loss, _ = means.read_window()
    logits, labels = (torch.cat([b[i] for b in batches]) for i in (1, 2))
    assert loss == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-6)
