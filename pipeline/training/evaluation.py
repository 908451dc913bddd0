"""An evaluation: one pass over the held-out set, and what it comes to."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from pipeline.stop import Stop
from pipeline.training.engine import Engine
from pipeline.training.features import LastFeatures


@dataclass(frozen=True)
class Evaluation:
    """loss: mean over the images. confusion: int64 (classes, classes) on the CPU, rows are the true labels.

    logits: float32 (N, classes), of all held-out images in their order; labels: int64 (N,); both on the device.
    features: float32 (samples, values) on the CPU, what the last layer was given of the images that were asked for.
    """

    loss: float
    confusion: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    features: torch.Tensor | None = None

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
def evaluate(engine: Engine, stop: Stop, *, features_of: list[int] | None = None) -> Evaluation:
    """Pass over the held-out set once. Raises Interrupted where it is asked to stop.

    features_of: ascending indices of held-out images whose last features are kept.
    """
    engine.model.eval()
    evaluator = Evaluator(len(engine.dataset.classes))
    with contextlib.ExitStack() as stack:
        features = None
        if features_of is not None:
            features = stack.enter_context(LastFeatures(engine.model, features_of))
        network = engine.network if features is None else engine.model
        for images, labels in engine.test_loader.epoch(0):
            with engine.setting.autocast():
                logits = engine.logits(network, images)
            evaluator.add(F.cross_entropy(logits, labels, reduction="none"), logits, labels)
            stop.check()
        return evaluator.result(None if features is None else features.result(len(engine.dataset.test)))


@dataclass
class Evaluator:
    """Adds up an evaluation batch by batch, on the device of what it is given."""

    num_classes: int
    _loss_sum: torch.Tensor | None = None
    _confusion: torch.Tensor | None = None
    _logits: list[torch.Tensor] = field(default_factory=list)
    _labels: list[torch.Tensor] = field(default_factory=list)

    def add(self, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch. losses: (N,), an image each. logits: (N, classes). labels: int64 (N,)."""
        cells = torch.bincount(labels * self.num_classes + logits.argmax(1), minlength=self.num_classes**2)
        loss_sum = losses.double().sum()
        self._confusion = cells if self._confusion is None else self._confusion + cells
        self._loss_sum = loss_sum if self._loss_sum is None else self._loss_sum + loss_sum
        self._logits.append(logits)
        self._labels.append(labels)

    def result(self, features: torch.Tensor | None = None) -> Evaluation:
        if self._confusion is None or self._loss_sum is None:
            raise ValueError("nothing was evaluated")
        confusion = self._confusion.cpu().view(self.num_classes, self.num_classes)
        loss = float(self._loss_sum) / int(confusion.sum())
        return Evaluation(loss, confusion, torch.cat(self._logits), torch.cat(self._labels), features)
