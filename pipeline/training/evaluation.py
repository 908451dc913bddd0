"""An evaluation: one pass over the held-out set, and what it comes to."""

from __future__ import annotations

import contextlib
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
    features: float32 (samples, values) on the CPU, what the last layer was given of the images that were asked for.
    top5_accuracy: the share whose true class is among the five likeliest; None of ten classes or fewer.
    """

    loss: float
    confusion: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
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
    with contextlib.ExitStack() as stack:
        features = None
        if features_of is not None:
            features = stack.enter_context(LastFeatures(engine.model, features_of))
        network = engine.network if features is None else engine.model
        for images, labels in (loader or engine.held_out_loader).epoch(0):
            with engine.setting.autocast():
                all_logits.append(engine.logits(network, images))
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

    logits: float32 (N, classes). labels: int64 (N,).
    """
    num_classes = logits.shape[1]
    mean_loss = loss(logits, labels).double()
    cells = labels.new_zeros(num_classes**2)
    cells.scatter_add_(0, labels * num_classes + logits.argmax(1), torch.ones_like(labels))  # bincount waits twice
    found = [_num_in_top(logits, labels).double()[None]] if num_classes > FEW_CLASSES else []
    read = torch.cat((mean_loss[None], cells.double(), *found)).cpu()  # float64 counts exactly, up to 2**53 images
    confusion = read[1 : len(cells) + 1].long().view(num_classes, num_classes)
    top5_accuracy = float(read[-1]) / len(labels) if found else None
    return Evaluation(float(read[0]), confusion, logits, labels, features, top5_accuracy)


def _num_in_top(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Counts the images whose true class is among the five likeliest; equals are taken in order, as in `argmax`."""
    own = logits.gather(1, labels[:, None])
    is_before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & is_before)).sum(1)
    return (rank < TOP).sum()
