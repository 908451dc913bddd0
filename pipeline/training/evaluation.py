"""An evaluation: one pass over the held-out set, and what it comes to."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pipeline.data.loader import Loader
from pipeline.stop import Stop
from pipeline.training.engine import Engine
from pipeline.training.features import LastFeatures
from pipeline.training.losses import Loss

TOP = 5  # the likeliest classes, among which the true one may be
FEW_CLASSES = 10  # of so many, half are among the five likeliest by chance alone


@dataclass(frozen=True)
class Evaluation:
    """loss: mean over the images. confusion: int64 (classes, classes) on the CPU, rows are the true labels.

    logits: float32 (N, classes), of all held-out images in their order; labels: int64 (N,); both on the device.
    predicted: int64 (N,) on the CPU, taken from the logits: probabilities that round to the same number have no order.
    confidence: float32 (N,) on the CPU, the probability of what was predicted.
    features: float32 (samples, values) on the CPU, what the last layer was given of the images that were asked for.
    top5_accuracy: the share whose true class is among the five likeliest; None of ten classes or fewer.
    """

    loss: float
    confusion: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    predicted: torch.Tensor
    confidence: torch.Tensor
    features: torch.Tensor | None = None
    top5_accuracy: float | None = None

    @property
    def accuracy(self) -> float:
        return int(self.confusion.diagonal().sum()) / int(self.confusion.sum())

    @property
    def class_accuracy(self) -> list[float]:
        """The share of each true class that was recognized; NaN for a class without images."""
        shares = self.confusion.diagonal().double() / self.confusion.sum(1)
        values: list[float] = shares.tolist()
        return values


@torch.no_grad()
def evaluate(
    engine: Engine, stop: Stop, *, loader: Loader | None = None, features_of: list[int] | None = None
) -> Evaluation:
    """Pass over held-out images once. Raises Interrupted where it is asked to stop.

    loader: of other images than those that every epoch is judged by.
    features_of: ascending indices of held-out images whose last features are kept.
    """
    engine.model.eval()
    engine.tune()
    all_logits, all_labels = [], []
    features = None if features_of is None else LastFeatures(engine.model, features_of, num_views=engine.num_views)
    forward = engine.forward
    if features is not None:  # by the network itself, as a compiled or captured one calls no hooks
        forward = functools.partial(engine.judged_by, engine.model)
    with features or contextlib.nullcontext():
        for images, labels in (loader or engine.held_out_loader).epoch(0):
            all_logits.append(forward(images))
            all_labels.append(labels)
            stop.check()
    kept = None if features is None else features.result(len(engine.dataset.held_out))
    return judge(torch.cat(all_logits), torch.cat(all_labels), loss=engine.test_loss, features=kept)


def judge(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    loss: Loss = F.cross_entropy,
    features: torch.Tensor | None = None,
) -> Evaluation:
    """Returns what all logits of a pass come to. This is where the device is waited for, and only here.

    logits: float32 (N, classes). labels: int64 (N,). features: may still be on their way to the CPU.
    """
    num_classes, num_images = logits.shape[1], len(labels)
    mean_loss, predicted = loss(logits, labels).double(), logits.argmax(1)
    cells = labels.new_zeros(num_classes**2)
    cells.scatter_add_(0, labels * num_classes + predicted, torch.ones_like(labels))  # bincount waits twice
    confidence = logits.softmax(1).amax(1)
    found = [_num_in_top(logits, labels).double()[None]] if num_classes > FEW_CLASSES else []
    read = torch.cat((mean_loss[None], cells.double(), predicted.double(), confidence.double(), *found))
    read = read.cpu()  # float64 counts exactly, up to 2**53 images
    sizes = [1, len(cells), num_images, num_images, len(found)]
    _, in_cells, in_predicted, in_confidence, in_top = torch.split(read, sizes)
    return Evaluation(
        float(read[0]),
        in_cells.long().view(num_classes, num_classes),
        logits,
        labels,
        in_predicted.long(),
        in_confidence.float(),
        features,
        float(in_top) / num_images if found else None,
    )


def _num_in_top(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Counts the images whose true class is among the five likeliest; equals are taken in order, as in `argmax`."""
    own = logits.gather(1, labels[:, None])
    is_before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & is_before)).sum(1)
    return (rank < TOP).sum()
