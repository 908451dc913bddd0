"""The training loop: the Loop says when to log, evaluate and save; the Trainer takes the steps.

A step is one change of the weights. Nothing in a step waits for the device; what is logged is read every `log.every`
steps. The order of images and their augmentation are functions of seed, epoch and batch (`data/loader.py`), so that a
checkpoint taken after any step is enough to go on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.board import tags
from pipeline.errors import DivergedError, Interrupted
from pipeline.stop import Stop
from pipeline.training.engine import Engine
from pipeline.training.features import LastFeatures
from pipeline.training.logbook import Logbook
from pipeline.training.metrics import DIVERGED_HINT, Evaluation, Evaluator


@dataclass
class Loop:
    """One attempt's way through the epochs that are left."""

    trainer: Trainer
    logbook: Logbook
    report: Report
    save: Callable[[dict[str, Any], bool], None]  # a checkpoint's state, and whether it is the best so far
    stop: Stop
    metrics: dict[str, float] = field(default_factory=dict)  # the latest value of each scalar

    def run(self) -> None:
        """Train to the end. Raises Interrupted, with a checkpoint written, where it is asked to stop."""
        self.logbook.begin()
        self.repeat_last_point()
        try:
            self.logbook.after(self.trainer.step)
            while self.trainer.epoch < self.trainer.spec.train.epochs:
                self.train_epoch()
                self.end_epoch()
        except Interrupted:
            with contextlib.suppress(OSError):  # a full disk: the job goes on from the checkpoint before
                self.checkpoint(is_best=False)
            raise
        finally:
            self.logbook.close()

    def repeat_last_point(self) -> None:
        """Where an attempt was stopped before its evaluation, this one speaks from that step on, the point included."""
        if self.trainer.is_epoch_trained and self.is_point(self.trainer.step):
            self.log({tag: value for tag, value in self.metrics.items() if tag in tags.TRAINING})

    def is_point(self, step: int) -> bool:
        """Whether the training curves have a point at this step: one an epoch at least."""
        every = min(self.trainer.spec.log.every, self.trainer.steps_per_epoch)
        return step % every == 0 or step == self.trainer.num_steps

    def train_epoch(self) -> None:
        trainer, spec = self.trainer, self.trainer.spec
        stopwatch = Stopwatch(trainer.num_images)
        saved_at = time.perf_counter()
        for step in trainer.train_epoch():
            self.logbook.after(step)
            if self.is_point(step):
                self.log_training(stopwatch)
            self.report.step(trainer, self.metrics)
            is_due = time.perf_counter() - saved_at > spec.train.checkpoint_every
            if is_due and not trainer.is_epoch_trained:  # then the epoch's own comes at once
                self.checkpoint(is_best=False)
                saved_at = time.perf_counter()
            self.stop.check()

    def log_training(self, stopwatch: Stopwatch) -> None:
        trainer = self.trainer
        loss, accuracy = trainer.window.read()  # waits for the device, so the time below is that of finished work
        self.log(
            {
                tags.TRAIN_LOSS: loss,
                tags.TRAIN_ACCURACY: accuracy,
                tags.LEARNING_RATE: trainer.schedule(trainer.step - 1),
                tags.IMAGES_PER_SECOND: stopwatch.rate(trainer.num_images),
                **self.logbook.measure(),
            }
        )

    def end_epoch(self) -> None:
        """Evaluate, write what an epoch leaves, save."""
        trainer = self.trainer
        evaluation = trainer.evaluate(self.stop, features_of=self.logbook.wanted_features)
        if not math.isfinite(evaluation.loss):
            raise DivergedError(f"the test loss is {evaluation.loss} after step {trainer.step}: {DIVERGED_HINT}")
        is_best = evaluation.accuracy > trainer.best_accuracy
        if is_best:
            trainer.best_accuracy, trainer.best_epoch = evaluation.accuracy, trainer.epoch + 1
        self.log(
            {
                tags.TEST_LOSS: evaluation.loss,
                tags.TEST_ACCURACY: evaluation.accuracy,
                tags.BEST_ACCURACY: trainer.best_accuracy,
            }
        )
        per_class = zip(trainer.source.classes, evaluation.class_accuracy, strict=True)
        self.logbook.scalars({tags.class_accuracy(name): value for name, value in per_class})
        self.logbook.end_epoch(evaluation)
        trainer.epoch, trainer.batch = trainer.epoch + 1, 0
        self.checkpoint(is_best=is_best)
        self.report.epoch(trainer, self.metrics, evaluation)

    def log(self, values: dict[str, float]) -> None:
        self.metrics.update(values)
        self.logbook.scalars(values)

    def checkpoint(self, *, is_best: bool) -> None:
        state = self.trainer.state_dict()
        self.logbook.flush()  # first, so that what a checkpoint follows is never lost
        self.save({**state, "metrics": self.metrics}, is_best)


class Trainer(Engine):
    """The steps."""

    def train_epoch(self) -> Iterator[int]:
        """Train from where it stands to the end of the epoch; gives the number of steps taken so far after each."""
        self.model.train()
        accumulate, num_batches = self.spec.train.accumulate, self.loader.num_batches
        for images, labels in self.loader.epoch(self.epoch, first=self.batch):
            group = self.batch // accumulate * accumulate
            if self.batch == group:
                self.optimizer.zero_grad()  # here, so that an epoch ends with gradients to look at
            self.accumulate_gradient(images, labels, share=1 / min(accumulate, num_batches - group))
            self.batch += 1
            if self.batch % accumulate == 0 or self.batch == num_batches:
                self.update_weights()
                yield self.step

    def accumulate_gradient(self, images: torch.Tensor, labels: torch.Tensor, *, share: float) -> None:
        """images: (N, C, H, W), normalized. labels: int64 (N,). share: of this batch in its step."""
        with self.autocast():
            logits = self.forward(images, self.network)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.spec.train.label_smoothing)
        self.scaler.scale(loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        self.window.add(loss, logits, labels, step=self.step + 1)
        self.num_images += len(labels)

    def forward(self, images: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """images: (N, C, H, W), normalized. Gives float32 logits (N, classes)."""
        return network(images.contiguous(memory_format=self.setting.memory_format)).float()

    def update_weights(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.step)
        clip = self.spec.train.clip_grad_norm
        if clip is not None or self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)  # so that what is left to look at are the gradients themselves
        if clip is not None:
            self.norm_before_clipping = nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1

    @torch.no_grad()
    def evaluate(self, stop: Stop, *, features_of: list[int] | None = None) -> Evaluation:
        """One pass over the held-out set. Raises Interrupted where it is asked to stop.

        features_of: ascending indices of held-out images whose last features are kept.
        """
        self.model.eval()
        evaluator = Evaluator(len(self.source.classes))
        with contextlib.ExitStack() as stack:
            features = None
            if features_of is not None:
                features = stack.enter_context(LastFeatures(self.model, features_of))
            for images, labels in self.test_loader.epoch(0):
                with self.autocast():
                    logits = self.forward(images, self.network if features is None else self.model)
                evaluator.add(F.cross_entropy(logits, labels, reduction="none"), logits, labels)
                stop.check()
            return evaluator.result(None if features is None else features.result(len(self.source.test)))

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision. A weight is used once a step, so a cache of cast weights would only cost."""
        return torch.autocast(
            self.setting.device.type,
            dtype=self.setting.dtype,
            enabled=self.setting.dtype is not torch.float32,
            cache_enabled=False,
        )


class Report(Protocol):
    """Told of the training as it goes on; whoever is told writes logs and progress."""

    def step(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """A step was taken; `metrics` are the latest value of each scalar. Called often."""

    def epoch(self, trainer: Trainer, metrics: dict[str, float], evaluation: Evaluation) -> None:
        """An epoch has ended and was evaluated."""


class Stopwatch:
    """Images a second between two looks."""

    def __init__(self, num_images: int) -> None:
        self.num_images, self.at = num_images, time.perf_counter()

    def rate(self, num_images: int) -> float:
        now = time.perf_counter()
        rate = (num_images - self.num_images) / max(1e-9, now - self.at)
        self.num_images, self.at = num_images, now
        return rate
