"""One training step: from images and their labels to changed weights.

A step is one change of the weights, by the gradient of one batch or, with `train.accumulate`, of several. Nothing in it
waits for the device, but for fp16 with `train.fused: false`: whether gradients have overflowed is then read each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import nn

from pipeline.data.loader import Batch
from pipeline.training.engine import Engine
from pipeline.training.half_weights import HalfWeights
from pipeline.training.mixing import Mixer, mixed_loss
from pipeline.training.parameter_groups import LR_SCALE


class Step(Protocol):
    """What the loop needs of a step: `EagerStep`, or `CapturedStep` of `captured_step.py`."""

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
        self.norm_before_clipping: torch.Tensor | None = None  # of the latest step

    def __call__(self, batches: Iterable[Batch], *, num_batches: int, lr: float) -> int:
        engine, num_images = self.engine, 0
        engine.optimizer.zero_grad()  # here, so that an epoch ends with gradients to look at
        for number, (images, labels) in enumerate(batches):
            images, own = self.mixer.mix(images, epoch=engine.epoch, batch=engine.batch + number)
            loss, logits = self._add_gradient(images, labels, share=1 / num_batches, own=own)
            engine.means.add(loss, logits, labels, step=engine.step + 1)
            num_images += len(labels)
        self._change_weights(self.rates(lr))
        return num_images

    def compute(
        self,
        batches: Sequence[Batch],
        *,
        owns: Sequence[float | torch.Tensor],
        rates: Sequence[torch.Tensor],
        halves: HalfWeights | None,
    ) -> list[Batch]:
        """The same for a graph that is being recorded, without means: what changes with each step lies on the device.

        Returns loss and logits of each batch. owns: of each image in what it was mixed to, which is done already.
        halves: of the weights, where it is computed with them.
        """
        self.engine.optimizer.zero_grad()
        if halves is not None:
            halves.renew()
        outputs = [
            self._add_gradient(images, labels, share=1 / len(batches), own=own, halves=halves)
            for (images, labels), own in zip(batches, owns, strict=True)
        ]
        self._change_weights(rates)
        return outputs

    def rates(self, lr: float) -> list[float]:
        """Returns the learning rate of each group of parameters, as a float32, which is what it is on a GPU."""
        scaled = [lr * group.get(LR_SCALE, 1.0) for group in self.engine.optimizer.param_groups]
        return scaled if self.engine.setting.device.type == "cpu" else torch.tensor(scaled).tolist()

    def _add_gradient(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        share: float,
        own: float | torch.Tensor,
        halves: HalfWeights | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the batch's mean loss and its logits, both without a gradient.

        images: (N, C, H, W), normalized. labels: int64 (N,). share: of this batch in its step. own: of each image in
        what it was mixed to.
        """
        engine = self.engine
        engine.tune(len(labels))
        with engine.setting.autocast():
            logits = engine.logits(halves or engine.network, images)
            loss = mixed_loss(engine.loss, logits, labels, own)
        engine.scaler.scale(loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        if halves is not None:
            halves.add_gradients()
        return loss.detach(), logits.detach()

    def _change_weights(self, rates: Sequence[float | torch.Tensor]) -> None:
        optimizer, scaler, clip = self.engine.optimizer, self.engine.scaler, self.engine.spec.train.clip_grad_norm
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if clip is not None or scaler.is_enabled():
            scaler.unscale_(optimizer)  # so that what is left to look at are the gradients themselves
        if clip is not None:
            self.norm_before_clipping = nn.utils.clip_grad_norm_(self.engine.model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()

    def gradient_norm(self) -> float:
        if self.norm_before_clipping is not None:
            return float(self.norm_before_clipping)
        gradients = [parameter.grad for parameter in self.engine.model.parameters() if parameter.grad is not None]
        return float(nn.utils.get_total_norm(gradients))
