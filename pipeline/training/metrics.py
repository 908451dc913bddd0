"""Loss and accuracy, added up on the device and read only when somebody wants to know.

`.item()` at every step makes the processor wait for the accelerator; here a step costs an append to a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.errors import DivergedError

MAX_HELD_VALUES = 2_000_000  # logits that a window holds before it folds them into sums

DIVERGED_HINT = (
    "the training diverged. Likely the learning rate is too high: try a tenth of it, train.clip_grad_norm: 1.0, "
    "a schedule with warm-up, or train.precision: fp32"
)


@dataclass
class Window:
    """Mean loss and accuracy of the training batches since it was last read."""

    _losses: list[torch.Tensor] = field(default_factory=list)
    _logits: list[torch.Tensor] = field(default_factory=list)
    _labels: list[torch.Tensor] = field(default_factory=list)
    _steps: list[int] = field(default_factory=list)
    _held: int = 0
    loss_sum: float = 0.0  # over images, of what was folded
    num_correct: int = 0
    num_images: int = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, *, step: int) -> None:
        """loss: the batch's mean, a scalar. logits: (N, classes). labels: int64 (N,). step: that the batch belongs to.

        Nothing is copied.
        """
        self._losses.append(loss.detach())
        self._logits.append(logits.detach())
        self._labels.append(labels)
        self._steps.append(step)
        self._held += logits.numel()
        if self._held > MAX_HELD_VALUES:
            self.fold()

    def fold(self) -> None:
        """Read what is held into the sums. Raises DivergedError where a loss is not finite."""
        if not self._losses:
            return
        losses = torch.stack(self._losses).double().tolist()
        self._check(losses)
        sizes = [len(labels) for labels in self._labels]
        predicted = torch.cat(self._logits).argmax(1)
        self.loss_sum += math.fsum(loss * size for loss, size in zip(losses, sizes, strict=True))
        self.num_correct += int((predicted == torch.cat(self._labels)).sum())
        self.num_images += sum(sizes)
        self._losses, self._logits, self._labels, self._steps, self._held = [], [], [], [], 0

    def _check(self, losses: list[float]) -> None:
        for step, loss in zip(self._steps, losses, strict=True):
            if not math.isfinite(loss):
                raise DivergedError(f"the loss is {loss} at step {step}: {DIVERGED_HINT}")

    def read(self) -> tuple[float, float]:
        """Mean loss and accuracy since the last read, which begins anew. Raises DivergedError."""
        self.fold()
        loss, accuracy = self.loss_sum / self.num_images, self.num_correct / self.num_images
        self.loss_sum, self.num_correct, self.num_images = 0.0, 0, 0
        return loss, accuracy

    def state_dict(self) -> dict[str, Any]:
        """Of what was folded; fold first."""
        return {"loss_sum": self.loss_sum, "num_correct": self.num_correct, "num_images": self.num_images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss_sum, self.num_correct, self.num_images = state["loss_sum"], state["num_correct"], state["num_images"]


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
        """Share of each true class that was recognized; NaN for a class without images."""
        shares = self.confusion.diagonal().double() / self.confusion.sum(1)
        values: list[float] = shares.tolist()
        return values


@dataclass
class Evaluator:
    """Adds up an evaluation batch by batch, on the device of what it is given."""

    num_classes: int
    _loss_sum: torch.Tensor | None = None
    _confusion: torch.Tensor | None = None
    _logits: list[torch.Tensor] = field(default_factory=list)
    _labels: list[torch.Tensor] = field(default_factory=list)

    def add(self, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """losses: (N,), an image each. logits: (N, classes). labels: int64 (N,)."""
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
