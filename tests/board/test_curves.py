"""Precision-recall curves, against counting by hand and TensorBoard's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from pipeline.board import curves
from pipeline.board.writer import Board


def predictions(num: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax probabilities and labels that have something to do with one another."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (num,), generator=generator)
    logits = 2 * torch.randn(num, num_classes, generator=generator)
    logits[torch.arange(num), labels] += 2
    return logits.softmax(1), labels


def read(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Of each tag, six rows of 127: tp, fp, tn, fn, precision, recall."""
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    reader.Reload()
    return {tag: tensor_util.make_ndarray(reader.Tensors(tag)[0].tensor_proto) for tag in reader.Tags()["tensors"]}


def written(folder: Path, classes: list[str], probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, object]:
    with Board(folder, first_step=0) as board:
        curves.add_pr_curves(board, classes, probabilities, labels, step=1)
    return read(folder)


def test_counts_are_those_of_a_plain_loop() -> None:
    probabilities, labels = predictions(200, 3)
    true_positives, false_positives = curves.count(probabilities, labels)
    for c in range(3):
        for k in range(curves.NUM_THRESHOLDS):
            taken = [p >= k / 126 for p in probabilities[:, c].tolist()]
            right = [label == c for label in labels.tolist()]
            assert true_positives[c, k] == sum(t and r for t, r in zip(taken, right, strict=True))
            assert false_positives[c, k] == sum(t and not r for t, r in zip(taken, right, strict=True))


def test_a_probability_of_one_is_above_every_threshold_and_of_zero_above_the_first_alone() -> None:
    true_positives, false_positives = curves.count(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert true_positives.tolist() == [[1] * 127, [0] * 127]
    assert false_positives.tolist() == [[0] * 127, [1] + [0] * 126]


def test_precision_and_recall_are_those_of_counting_image_by_image(tmp_path: Path) -> None:
    probabilities, labels = predictions(300, 3)
    found = written(tmp_path, ["a", "b", "c"], probabilities, labels)
    for c, name in enumerate("abc"):
        *_, precision, recall = found[f"pr_curves/{name}"]
        of_class = labels == c
        for k in range(0, 127, 9):
            taken = probabilities[:, c].double() >= k / 126
            right = int((of_class & taken).sum())
            assert precision[k] == pytest.approx(right / max(1, int(taken.sum())), abs=1e-6)
            assert recall[k] == pytest.approx(right / int(of_class.sum()), abs=1e-6)


def test_a_curve_is_what_tensorboard_makes_of_true_labels_and_not_of_predictions(tmp_path: Path) -> None:
    """Tutorials hand `add_pr_curve` predictions where labels belong."""
    probabilities, labels = predictions(300, 3)
    ours = written(tmp_path / "ours", ["a", "b", "c"], probabilities, labels)
    with SummaryWriter(str(tmp_path / "theirs")) as writer:
        for c, name in enumerate("abc"):
            writer.add_pr_curve(f"pr_curves/{name}", labels == c, probabilities[:, c], 1)
            writer.add_pr_curve(f"tutorial/{name}", probabilities.argmax(1) == c, probabilities[:, c], 1)
    theirs = read(tmp_path / "theirs")
    for name in "abc":
        np.testing.assert_allclose(ours[f"pr_curves/{name}"], theirs[f"pr_curves/{name}"], atol=1e-6)
        assert not np.allclose(ours[f"pr_curves/{name}"], theirs[f"tutorial/{name}"])


def test_counting_in_pieces_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, labels = predictions(500, 4)
    at_once = curves.count(probabilities, labels)
    monkeypatch.setattr(curves, "AT_ONCE", 4 * 33)
    in_pieces = curves.count(probabilities, labels)
    assert all(torch.equal(*pair) for pair in zip(at_once, in_pieces, strict=True))


def test_a_class_without_images_has_no_curve(tmp_path: Path) -> None:
    probabilities, labels = predictions(50, 3)
    assert written(tmp_path, ["a", "b", "c"], probabilities, labels.clamp(max=1)).keys() == {
        "pr_curves/a",
        "pr_curves/b",
    }


def test_a_single_class_is_always_right(tmp_path: Path) -> None:
    (curve,) = written(tmp_path, ["only"], torch.ones(5, 1), torch.zeros(5, dtype=torch.int64)).values()
    np.testing.assert_array_equal(curve, np.repeat([[5.0], [0], [0], [0], [1], [1]], 127, axis=1))
