"""Precision-recall curves, one a class against all others, from true labels and softmax probabilities.

`SummaryWriter.add_pr_curve` takes the labels of one class as 0 and 1; tutorials hand it predictions in their place, and
their curves mean nothing. Here all classes are counted at once on the device: one pass, whatever the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.tensorboard.summary import pr_curve_raw

from pipeline.board import tags
from pipeline.board.writer import Board

NUM_THRESHOLDS = 127  # TensorBoard's most
AT_ONCE = 4_000_000  # probabilities that are counted together; each takes 40 bytes meanwhile


def add_pr_curves(
    board: Board, classes: Sequence[str], probabilities: torch.Tensor, labels: torch.Tensor, *, step: int
) -> None:
    """Writes a curve for each class that has images. probabilities: (N, classes). labels: int64 (N,)."""
    true_positives, false_positives = count(probabilities, labels)
    summaries = []
    for name, tp, fp in zip(classes, true_positives, false_positives, strict=True):
        num_positives, num_negatives = tp[0], fp[0]
        if num_positives == 0:
            continue
        precision, recall = tp / (tp + fp).clamp(min=1), tp / num_positives
        tn, fn = num_negatives - fp, num_positives - tp
        summaries.append(
            pr_curve_raw(tags.pr_curve(name), tp, fp, tn, fn, precision, recall, num_thresholds=NUM_THRESHOLDS)
        )
    board.add(step, *summaries)


def count(probabilities: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts true and false positives at each threshold, from 0 to 1: two float64 (classes, 127) on the CPU.

    An image counts as positive at threshold k / 126 where its probability is at least that, as in TensorBoard.
    """
    num_classes, rows = probabilities.shape[1], max(1, AT_ONCE // probabilities.shape[1])
    pieces = zip(torch.split(probabilities, rows), torch.split(labels, rows), strict=True)
    parts = [_count(*piece) for piece in pieces]
    counts = torch.stack(parts).sum(0).view(num_classes, 2, NUM_THRESHOLDS).cpu().double()
    at_least = counts.flip(2).cumsum(2).flip(2)
    return at_least[:, 1], at_least[:, 0]


def _count(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Counts images by class, whether they are of it, and the highest threshold that they reach: int64, flat."""
    num_classes = probabilities.shape[1]
    thresholds = (probabilities.double() * (NUM_THRESHOLDS - 1)).long().clamp_(0, NUM_THRESHOLDS - 1)
    is_positive = torch.nn.functional.one_hot(labels, num_classes)
    bins = (torch.arange(num_classes, device=labels.device) * 2 + is_positive) * NUM_THRESHOLDS + thresholds
    return torch.bincount(bins.flatten(), minlength=num_classes * 2 * NUM_THRESHOLDS)
