"""Loss and accuracy of the training batches, read from the device only when somebody wants to know.

`.item()` at every step makes the processor wait for the accelerator; here a step costs an append to a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.errors import DivergedError

MAX_HELD_VALUES = 2_000_000  # logits that are held before they are folded into sums

DIVERGED_HINT = (
    "the training diverged. Likely the learning rate is too high: try a tenth of it, train.clip_grad_norm: 1.0, "
    "a schedule with warm-up, or train.precision: fp32"
)


@dataclass
class Sums:
    """Loss and correct answers, added up over images."""

    loss_sum: float = 0.0
    num_correct: int = 0
    num_images: int = 0

    def add(self, loss_sum: float, num_correct: int, num_images: int) -> None:
        self.loss_sum += loss_sum
        self.num_correct += num_correct
        self.num_images += num_images

    def means(self) -> tuple[float, float]:
        """Returns the mean loss and the accuracy; there must have been an image."""
        return self.loss_sum / self.num_images, self.num_correct / self.num_images


@dataclass
class TrainingMeans:
    """Mean loss and accuracy of the training batches, since the curve's last point and since the epoch began."""

    _losses: list[torch.Tensor] = field(default_factory=list)
    _logits: list[torch.Tensor] = field(default_factory=list)
    _labels: list[torch.Tensor] = field(default_factory=list)
    _steps: list[int] = field(default_factory=list)
    _held: int = 0
    window: Sums = field(default_factory=Sums)  # since the last point, of what was folded
    epoch: Sums = field(default_factory=Sums)  # since the epoch began, likewise

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, *, step: int) -> None:
        """Hold what a batch came to; nothing is copied.

        loss: the batch's mean, a scalar. logits: (N, classes). labels: int64 (N,). step: that the batch belongs to.
        """
        self._losses.append(loss.detach())
        self._logits.append(logits.detach())
        self._labels.append(labels)
        self._steps.append(step)
        self._held += logits.numel()
        if self._held > MAX_HELD_VALUES:
            self.fold()

    def fold(self) -> None:
        """Read what is held into the sums, which waits for the device. Raises DivergedError at a loss not finite."""
        if not self._losses:
            return
        is_right = torch.cat(self._logits).argmax(1) == torch.cat(self._labels)
        *losses, num_correct = torch.stack((*self._losses, is_right.sum().double())).tolist()
        self._check(losses)
        sizes = [len(labels) for labels in self._labels]
        loss_sum = math.fsum(loss * size for loss, size in zip(losses, sizes, strict=True))
        for sums in (self.window, self.epoch):
            sums.add(loss_sum, int(num_correct), sum(sizes))
        self._losses, self._logits, self._labels, self._steps, self._held = [], [], [], [], 0

    def _check(self, losses: list[float]) -> None:
        for step, loss in zip(self._steps, losses, strict=True):
            if not math.isfinite(loss):
                raise DivergedError(f"the loss is {loss} at step {step}: {DIVERGED_HINT}")

    def read_window(self) -> tuple[float, float]:
        """Return mean loss and accuracy since the last reading, and begin a new window. Raises DivergedError."""
        self.fold()
        means, self.window = self.window.means(), Sums()
        return means

    def read_epoch(self, *, num_images: int) -> tuple[float, float] | None:
        """Return mean loss and accuracy of the epoch so far. Raises DivergedError.

        num_images: that the epoch must have had; None is returned where a part of them was not counted, as the
        attempt went on from a checkpoint that an older version has written inside the epoch.
        """
        self.fold()
        return self.epoch.means() if self.epoch.num_images == num_images else None

    def begin_epoch(self) -> None:
        """Forget the epoch that has ended; the window goes on."""
        self.fold()
        self.epoch = Sums()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the sums for a checkpoint; fold first."""
        return {"window": dict(vars(self.window)), "epoch_sums": dict(vars(self.epoch))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the sums out of a checkpoint; one of an older version has none of the epoch."""
        self.window, self.epoch = Sums(**state["window"]), Sums(**state.get("epoch_sums", {}))
