"""One training step: from images and their labels to changed weights.

A step is one change of the weights, by the gradient of one batch or, with `train.accumulate`, of several. Nothing in it
waits for the device, but for fp16 with `train.fused: false`: whether gradients have overflowed is then read each step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn

from pipeline.data.loader import Batch
from pipeline.training import backbone
from pipeline.training.engine import Engine
from pipeline.training.mixing import Mixer, mixed_loss


class Step(Protocol):
    """What the loop needs of a step; one that was captured as a CUDA graph can stand in the place of `EagerStep`."""

    def __call__(self, batches: Iterable[Batch], *, num_batches: int, lr: float) -> int:
        """Change the weights by the mean gradient of these batches, and return the number of their images.

        What the batches come to is added to the engine's `means`. lr: the learning rate of this step, above 0.
        """

    def gradient_norm(self) -> float:
        """Returns the Euclidean norm of the latest step's gradients before clipping. Waits for the device."""


class EagerStep:
    """Computes one operation after the other, as PyTorch does by default."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        train = engine.spec.train
        self.mixer = Mixer(mixup=train.mixup, cutmix=train.cutmix, seed=train.seed)
        self._norm_before_clipping: torch.Tensor | None = None  # of the latest step

    def __call__(self, batches: Iterable[Batch], *, num_batches: int, lr: float) -> int:
        self.engine.optimizer.zero_grad()  # here, so that an epoch ends with gradients to look at
        num_images = 0
        for number, (images, labels) in enumerate(batches):
            self._add_gradient(images, labels, share=1 / num_batches, batch=self.engine.batch + number)
            num_images += len(labels)
        self._change_weights(lr)
        return num_images

    def _add_gradient(self, images: torch.Tensor, labels: torch.Tensor, *, share: float, batch: int) -> None:
        """images: (N, C, H, W), normalized. labels: int64 (N,). share: of this batch in its step. batch: its number."""
        engine = self.engine
        images, own = self.mixer.mix(images, epoch=engine.epoch, batch=batch)
        engine.tune(len(labels))
        with engine.setting.autocast():
            logits = engine.logits(engine.network, images)
            loss = mixed_loss(engine.loss, logits, labels, own)
        engine.scaler.scale(loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        engine.means.add(loss, logits, labels, step=engine.step + 1)

    def _change_weights(self, lr: float) -> None:
        optimizer, scaler, clip = self.engine.optimizer, self.engine.scaler, self.engine.spec.train.clip_grad_norm
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get(backbone.LR_SCALE, 1.0)
        if clip is not None or scaler.is_enabled():
            scaler.unscale_(optimizer)  # so that what is left to look at are the gradients themselves
        if clip is not None:
            self._norm_before_clipping = nn.utils.clip_grad_norm_(self.engine.model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()

    def gradient_norm(self) -> float:
        if self._norm_before_clipping is not None:
            return float(self._norm_before_clipping)
        gradients = [parameter.grad for parameter in self.engine.model.parameters() if parameter.grad is not None]
        return float(nn.utils.get_total_norm(gradients))
