"""Precision-recall curves, against counting by hand and TensorBoard's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dashboards import Board as Served
from dashboards import serving
from numpy.typing import NDArray
from quick import wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from pipeline.board import curves, tags
from pipeline.board.writer import Board

Curve = NDArray[np.float64]


def predictions(num: int, num_classes: int, *, scale: float = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels that have something to do with one another; the larger the scale, the surer they are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (num,), generator=generator)
    logits = 2 * torch.randn(num, num_classes, generator=generator)
    logits[torch.arange(num), labels] += 2
    return scale * logits, labels


def read(folder: Path) -> dict[str, Curve]:
    """Of each tag, rows of 127: tp, fp, tn, fn, precision, recall, and in ours the thresholds."""
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    reader.Reload()
    return {tag: tensor_util.make_ndarray(reader.Tensors(tag)[0].tensor_proto) for tag in reader.Tags()["tensors"]}


def written(folder: Path, classes: list[str], logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Curve]:
    with Board(folder, first_step=0) as board:
        curves.add_pr_curves(board, classes, curves.count(logits, labels), step=1)
    return read(folder)


@pytest.mark.parametrize(("num", "scale"), [(200, 1), (1000, 1), (1000, 0.1), (1000, 3)])
def test_counts_are_those_of_a_plain_loop(num: int, scale: float) -> None:
    """Over probabilities in float64, which tell all images of these apart."""
    logits, labels = predictions(num, 3, scale=scale)
    counts, of_labels = curves.count(logits, labels), labels.tolist()
    for c in range(3):
        probabilities = logits.double().softmax(1)[:, c].tolist()
        own = sorted(p for p, label in zip(probabilities, of_labels, strict=True) if label == c)
        thresholds = [0.0, *(own[k * (len(own) - 1) // 125] for k in range(126))]
        assert counts.thresholds[c].tolist() == pytest.approx(thresholds, rel=1e-5)
        for k, threshold in enumerate(thresholds):
            taken = [label for p, label in zip(probabilities, of_labels, strict=True) if p >= threshold]
            assert counts.true_positives[c, k] == taken.count(c)
            assert counts.false_positives[c, k] == len(taken) - taken.count(c)


@pytest.mark.parametrize("num", [60, 300, 5000])
def test_the_points_of_a_sure_network_lie_evenly_along_the_recall(tmp_path: Path, num: int) -> None:
    """Most of its probabilities are 1 in float32, and none lies between two of TensorBoard's thresholds."""
    logits, labels = predictions(num, 3, scale=40)
    assert (logits.softmax(1).amax(1) == 1).double().mean() > 0.7
    for c, rows in enumerate(written(tmp_path, ["a", "b", "c"], logits, labels).values()):
        recall, num_images = rows[5], int((labels == c).sum())
        assert (recall[0], recall[-1]) == (1, pytest.approx(1 / num_images))
        steps = -np.diff(recall)
        assert steps.min() >= 0
        assert steps.max() <= 1 / 125 + 1 / num_images + 1e-6
        assert len(set(recall)) == min(126, num_images), "a class of few images has a point for each"


def test_log_odds_are_those_of_the_probabilities() -> None:
    logits, _ = predictions(200, 5)
    probabilities = logits.double().softmax(1)
    expected = probabilities.log() - (1 - probabilities).log()
    torch.testing.assert_close(curves.log_odds(logits).double(), expected, atol=1e-5, rtol=1e-5)


def test_log_odds_have_an_order_where_probabilities_round_to_one_and_to_zero() -> None:
    found = curves.log_odds(torch.tensor([[40.0, 0.0], [50.0, 0.0], [0.0, 0.0], [200.0, 0.0]]))
    assert found.tolist() == [[40, -40], [50, -50], [0, 0], [200, -200]]


def test_a_curve_lies_on_or_above_what_tensorboard_makes_of_true_labels_and_not_of_predictions(tmp_path: Path) -> None:
    """Tutorials hand `add_pr_curve` predictions where labels belong.

    A threshold of ours is a probability of the class's own: at its recall, no other one has more precision.
    """
    logits, labels = predictions(300, 3)
    probabilities = logits.softmax(1)
    ours = written(tmp_path / "ours", ["a", "b", "c"], logits, labels)
    with SummaryWriter(str(tmp_path / "theirs")) as writer:
        for c, name in enumerate("abc"):
            writer.add_pr_curve(f"pr_curves/{name}", labels == c, probabilities[:, c], 1)
            writer.add_pr_curve(f"tutorial/{name}", probabilities.argmax(1) == c, probabilities[:, c], 1)
    theirs = read(tmp_path / "theirs")
    for name in "abc":
        of_recall = dict(zip(ours[f"pr_curves/{name}"][5, 1:], ours[f"pr_curves/{name}"][4, 1:], strict=True))
        found = [(p, of_recall[r]) for p, r in theirs[f"pr_curves/{name}"][4:6].T[1:] if r]
        assert all(p <= best + 1e-6 for p, best in found)
        assert sum(best - p for p, best in found) / len(found) < 0.03
        np.testing.assert_allclose(ours[f"pr_curves/{name}"][:6, 0], theirs[f"pr_curves/{name}"][:, 0], atol=1e-6)
    first = [(ours[f"pr_curves/{name}"][:2, 0], theirs[f"tutorial/{name}"][:2, 0]) for name in "abc"]
    assert not all(np.allclose(*pair) for pair in first)


def test_our_tensorboard_tells_the_thresholds_and_those_of_other_curves_as_ever(tmp_path: Path) -> None:
    logits, labels = predictions(300, 3)
    rows = written(tmp_path / "ours", ["a", "b", "c"], logits, labels)[tags.pr_curve("b")]
    with SummaryWriter(str(tmp_path / "theirs")) as writer:
        writer.add_pr_curve(tags.pr_curve("b"), labels == 1, logits.softmax(1)[:, 1], 1)
    with serving(tmp_path) as board:
        wait_until(lambda: len(board.get("pr_curves/tags")) == 2, "both to be read")
        served = {run: of(board, run) for run in ("ours", "theirs")}
    np.testing.assert_allclose(served["ours"]["thresholds"], rows[6])
    np.testing.assert_allclose(served["ours"]["recall"], rows[5])
    assert len(set(np.diff(rows[6]).round(4))) > 10, "they are not evenly spaced"
    evenly = np.linspace(0, 1, curves.NUM_THRESHOLDS)
    np.testing.assert_allclose(served["theirs"]["thresholds"], evenly[: len(served["theirs"]["thresholds"])])


def of(board: Served, run: str) -> dict[str, list[float]]:
    (entry,) = board.get("pr_curves/pr_curves", run=run, tag=tags.pr_curve("b"))[run]
    found: dict[str, list[float]] = entry
    return found


def test_counting_in_pieces_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = predictions(500, 4)
    at_once = curves.count(logits, labels)
    monkeypatch.setattr(curves, "AT_ONCE", 4 * 33)
    in_pieces = curves.count(logits, labels)
    assert torch.equal(at_once.thresholds, in_pieces.thresholds)
    assert torch.equal(at_once.true_positives, in_pieces.true_positives)
    assert torch.equal(at_once.false_positives, in_pieces.false_positives)


def test_a_class_without_images_has_no_curve(tmp_path: Path) -> None:
    """Whether it is the last one or between two others."""
    logits, labels = predictions(50, 4)
    labels[(labels == 1) | (labels == 3)] = 0
    found = written(tmp_path, ["a", "b", "c", "d"], logits, labels)
    assert found.keys() == {tags.pr_curve("a"), tags.pr_curve("c")}
    assert found[tags.pr_curve("c")][0, 0] == (labels == 2).sum()


def test_a_single_class_is_always_right(tmp_path: Path) -> None:
    (curve,) = written(tmp_path, ["only"], torch.ones(5, 1), torch.zeros(5, dtype=torch.int64)).values()
    np.testing.assert_array_equal(curve[:6], np.repeat([[5.0], [0], [0], [0], [1], [1]], 127, axis=1))
    np.testing.assert_array_equal(curve[6], [0.0, *[1.0] * 126])


def test_images_of_the_same_logits_are_above_the_same_thresholds() -> None:
    counts = curves.count(torch.zeros(6, 2), torch.tensor([0, 0, 0, 0, 1, 1]))
    assert counts.thresholds.tolist() == [[0, *[0.5] * 126]] * 2
    assert counts.true_positives.tolist() == [[4] * 127, [2] * 127]
    assert counts.false_positives.tolist() == [[2] * 127, [4] * 127]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_no_numbers_are_counted_nonetheless(value: float) -> None:
    """Of a network that has broken down, the rest can still be seen."""
    logits, labels = predictions(20, 3)
    logits[::3, 1] = value
    counts = curves.count(logits, labels)
    assert (counts.true_positives[:, 0] + counts.false_positives[:, 0] == 20).all()
