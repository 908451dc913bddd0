"""Precision-recall curves, one a class against all others, from true labels and logits.

`SummaryWriter.add_pr_curve` takes the labels of one class as 0 and 1; tutorials hand it predictions in their place, and
their curves mean nothing. It also spaces its thresholds evenly between probability 0 and 1, where a network that is
sure has no images: its curve is a bare vertical line. Here the thresholds of a class are probabilities that its own
images got, at even ranks, so that the points lie evenly along the recall. All classes are counted at once on the
device, in one pass, whatever the number of classes, and nothing is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.pr_curve import metadata

from pipeline.board import tags
from pipeline.board.writer import Board

NUM_THRESHOLDS = 127  # TensorBoard's most
AT_ONCE = 4_000_000  # logits that are counted together; each takes 40 bytes meanwhile


@dataclass(frozen=True)
class Counts:
    """Images of each class and threshold, on the CPU, or still on their way there.

    thresholds: float64 (classes, 127), ascending probabilities. An image counts as positive where its probability is at
    least that. reached: int64 (classes, 2, 127): of how many images of other classes, and of this one, it is the
    highest threshold that they reach.
    """

    thresholds: torch.Tensor
    reached: torch.Tensor

    @property
    def true_positives(self) -> torch.Tensor:
        """float64 (classes, 127)."""
        return self._at_least[:, 1]

    @property
    def false_positives(self) -> torch.Tensor:
        """float64 (classes, 127)."""
        return self._at_least[:, 0]

    @property
    def _at_least(self) -> torch.Tensor:
        return self.reached.double().flip(2).cumsum(2).flip(2)  # float64 counts exactly


def add_pr_curves(board: Board, classes: Sequence[str], counts: Counts, *, step: int) -> None:
    """Writes a curve for each class that has images. The device must have been waited for."""
    rows = zip(classes, counts.thresholds, counts.true_positives, counts.false_positives, strict=True)
    board.add(step, *(_summary(tags.pr_curve(name), *row) for name, *row in rows if row[1][0] > 0))


def _summary(tag: str, thresholds: torch.Tensor, tp: torch.Tensor, fp: torch.Tensor) -> Summary:
    """Returns a curve as TensorBoard keeps it, with the thresholds in a row behind its own six.

    TensorBoard does not look for them: it takes them for 0, 1/126, 2/126, ... `tensorboard_main.py` tells it better.
    """
    num_positives, num_negatives = tp[0], fp[0]
    precision, recall = tp / (tp + fp).clamp(min=1), tp / num_positives
    rows = torch.stack((tp, fp, num_negatives - fp, num_positives - tp, precision, recall, thresholds))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in rows.shape])
    tensor = TensorProto(dtype=DT_FLOAT, float_val=rows.flatten().tolist(), tensor_shape=shape)
    about = metadata.create_summary_metadata("", "", NUM_THRESHOLDS)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])


def count(logits: torch.Tensor, labels: torch.Tensor) -> Counts:
    """Counts images by class and threshold, on their device, and waits for nothing.

    logits: float32 (N, classes). labels: int64 (N,).
    The first threshold is 0, which all images reach; the second is the lowest probability that an image of the class
    got, the last the highest, and those between are at even ranks. A class of up to 126 images has each of theirs.
    """
    num_classes, rows = logits.shape[1], max(1, AT_ONCE // logits.shape[1])
    scores = torch.cat([log_odds(piece) for piece in torch.split(logits, rows)])
    thresholds = _thresholds(scores, labels)
    bins = torch.zeros(num_classes * 2 * NUM_THRESHOLDS, dtype=torch.int64, device=labels.device)
    for piece in zip(torch.split(scores, rows), torch.split(labels, rows), strict=True):
        _count(bins, thresholds, *piece)
    reached = bins.view(num_classes, 2, NUM_THRESHOLDS)
    return Counts(*(each.to("cpu", non_blocking=True) for each in (thresholds.double().sigmoid(), reached)))


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Returns log(p / (1 - p)) of the softmax probabilities p: float32 (N, classes).

    A p above 0.99999997 is 1 in float32, and so are half the images of a good network; this tells them apart.
    """
    is_top = torch.arange(logits.shape[1], device=logits.device) == logits.argmax(1, keepdim=True)
    log_p = logits.log_softmax(1)
    others = logits.masked_fill(is_top, -torch.inf).logsumexp(1, keepdim=True)
    return torch.where(is_top, logits - others, log_p - log_p.expm1().neg().log())


def _thresholds(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns what scores images are compared with, ascending: float32 (classes, 127); of no use without images."""
    num_classes = scores.shape[1]
    own, order = scores.gather(1, labels[:, None]).flatten().sort(stable=True)
    own = own[labels[order].argsort(stable=True)]  # class by class, and ascending in each
    sizes = labels.new_zeros(num_classes).scatter_add_(0, labels, torch.ones_like(labels))  # bincount waits twice
    ranks = torch.arange(NUM_THRESHOLDS - 1, device=labels.device) * (sizes[:, None] - 1) // (NUM_THRESHOLDS - 2)
    places = (sizes.cumsum(0) - sizes)[:, None] + ranks
    return torch.nn.functional.pad(own[places.clamp(0, len(own) - 1)], (1, 0), value=-torch.inf)


def _count(bins: torch.Tensor, thresholds: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> None:
    """Counts images by class, whether they are of it, and the highest threshold that they reach. bins: int64, flat."""
    reached = torch.searchsorted(thresholds, scores.t().contiguous(), right=True).sub_(1).clamp_(min=0)
    classes = torch.arange(len(thresholds), device=labels.device)[:, None]
    places = (reached + (classes * 2 + (classes == labels)) * NUM_THRESHOLDS).flatten()
    bins.scatter_add_(0, places, bins.new_ones(1).expand(len(places)))
