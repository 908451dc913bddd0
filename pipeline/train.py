"""The training loop: the Loop says when to log, evaluate and save; the Trainer holds the state and takes the steps.

A step is one change of the weights. Nothing in a step waits for the device; what is logged is read every `log.every`
steps. The order of pictures and their augmentation are functions of seed, epoch and batch (`data/loader.py`), so that a
checkpoint taken after any step is enough to go on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from pipeline import catalog
from pipeline.board import histograms, tags
from pipeline.board.writer import Board
from pipeline.data.loader import Loader
from pipeline.data.source import FileSplit, Source, Split
from pipeline.device import Setting
from pipeline.errors import CheckpointError, DataError, DivergedError, Interrupted
from pipeline.metrics import DIVERGED_HINT, Evaluation, Evaluator, Window
from pipeline.spec import Spec
from pipeline.stop import Stop

EVALUATION_VALUES = 500 * 32**2  # pixels of a batch; larger ones fall out of a CPU's cache, or do not fit a GPU


@dataclass
class Loop:
    """One attempt's way through the epochs that are left."""

    trainer: Trainer
    board: Board
    report: Report
    save: Callable[[dict[str, Any], bool], None]  # a checkpoint's state, and whether it is the best so far
    stop: Stop
    metrics: dict[str, float] = field(default_factory=dict)  # the latest value of each scalar

    def run(self) -> None:
        """Train to the end. Raises Interrupted, with a checkpoint written, where it is asked to stop."""
        self.repeat_last_point()
        try:
            while self.trainer.epoch < self.trainer.spec.train.epochs:
                self.train_epoch()
                self.end_epoch()
        except Interrupted:
            with contextlib.suppress(OSError):  # a full disk: the job goes on from the checkpoint before
                self.checkpoint(is_best=False)
            raise

    def repeat_last_point(self) -> None:
        """Where an attempt was stopped before its evaluation, this one speaks from that step on, the point included."""
        if self.trainer.is_epoch_trained and self.is_point(self.trainer.step):
            tags_of_point = (tags.TRAIN_LOSS, tags.TRAIN_ACCURACY, tags.LEARNING_RATE, tags.IMAGES_PER_SECOND)
            self.log({tag: self.metrics[tag] for tag in tags_of_point})

    def is_point(self, step: int) -> bool:
        """Whether the training curves have a point at this step."""
        return step % self.trainer.spec.log.every == 0 or step == self.trainer.num_steps

    def train_epoch(self) -> None:
        trainer, spec = self.trainer, self.trainer.spec
        stopwatch = Stopwatch(trainer.num_images)
        saved_at = time.perf_counter()
        for step in trainer.train_epoch():
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
            }
        )

    def end_epoch(self) -> None:
        """Evaluate, write what an epoch leaves, save."""
        trainer = self.trainer
        evaluation = trainer.evaluate(self.stop)
        if not math.isfinite(evaluation.loss):
            raise DivergedError(f"the test loss is {evaluation.loss} after step {trainer.step}: {DIVERGED_HINT}")
        trainer.epoch, trainer.batch = trainer.epoch + 1, 0
        is_best = evaluation.accuracy > trainer.best_accuracy
        if is_best:
            trainer.best_accuracy, trainer.best_epoch = evaluation.accuracy, trainer.epoch
        self.log({tags.TEST_LOSS: evaluation.loss, tags.TEST_ACCURACY: evaluation.accuracy})
        per_class = zip(trainer.source.classes, evaluation.class_accuracy, strict=True)
        self.board.scalars(trainer.step, {tags.class_accuracy(name): value for name, value in per_class})
        if trainer.spec.log.histograms:
            histograms.add_parameters(self.board, trainer.model, step=trainer.step)
        self.checkpoint(is_best=is_best)
        self.report.epoch(trainer, self.metrics, evaluation)

    def log(self, values: dict[str, float]) -> None:
        self.metrics.update(values)
        self.board.scalars(self.trainer.step, values)

    def checkpoint(self, *, is_best: bool) -> None:
        state = self.trainer.state_dict()
        self.board.flush()  # first, so that what a checkpoint follows is never lost
        self.save({**state, "metrics": self.metrics}, is_best)


class Trainer:
    def __init__(self, spec: Spec, source: Source, setting: Setting) -> None:
        self.spec, self.source, self.setting = spec, source, setting
        torch.manual_seed(spec.train.seed)
        self.model = build_model(spec, source).to(setting.device).to(memory_format=setting.memory_format)
        self.network: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(self.model) if setting.compile else self.model
        )
        optimizer = spec.train.optimizer
        self.optimizer: torch.optim.Optimizer = catalog.OPTIMIZERS[optimizer.name].load()(
            self.model.parameters(), fused=setting.fused, **optimizer.options()
        )
        self.scaler = torch.amp.GradScaler(setting.device.type, enabled=setting.dtype is torch.float16)
        self.loader = self._loader(source.train, spec.data.batch_size, train=True)
        evaluation_batch = min(500, max(1, EVALUATION_VALUES // source.test.image_size**2))
        self.test_loader = self._loader(source.test, evaluation_batch, train=False)
        self.window = Window()
        self.epoch = self.batch = self.step = 0  # finished epochs, batches of the one under way, steps in all
        self.num_images = 0  # pictures trained on in this attempt
        self.best_accuracy, self.best_epoch = -1.0, 0

    def _loader(self, split: Split | FileSplit, batch_size: int, *, train: bool) -> Loader:
        augmentations = [
            functools.partial(catalog.AUGMENTATIONS[entry.name].load(), **entry.options())
            for entry in (self.spec.data.augment if train else ())
        ]
        return Loader(
            split,
            batch_size=batch_size,
            device=self.setting.device,
            mean=self.source.mean,
            std=self.source.std,
            dtype=self.setting.dtype,
            augment=augmentations,
            seed=self.spec.train.seed,
            shuffle=train,
        )

    @property
    def is_epoch_trained(self) -> bool:
        """Whether all batches of the epoch under way are done, and its evaluation is what comes next."""
        return self.batch == self.loader.num_batches

    @property
    def first_point(self) -> int:
        """The first step that this attempt may write to the curves: 0 for a new run.

        An epoch that was trained but not evaluated is told again from its last step on: the attempt before may have
        evaluated it and been killed before it could save that.
        """
        return 0 if self.step == 0 else self.step + (not self.is_epoch_trained)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.loader.num_batches // self.spec.train.accumulate)

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.spec.train.epochs

    @functools.cached_property
    def schedule(self) -> Callable[[int], float]:
        """From a step, counted from 0, to its learning rate."""
        section = self.spec.train.schedule
        peak: float = self.spec.train.optimizer.options()["lr"]
        factor = functools.partial(
            catalog.SCHEDULES[section.name].load(),
            steps=self.num_steps,
            steps_per_epoch=self.steps_per_epoch,
            **section.options(),
        )
        return lambda step: peak * factor(step)

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision. A weight is used once a step, so a cache of cast weights would only cost."""
        return torch.autocast(
            self.setting.device.type,
            dtype=self.setting.dtype,
            enabled=self.setting.dtype is not torch.float32,
            cache_enabled=False,
        )

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
            logits = self.forward(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.spec.train.label_smoothing)
        self.scaler.scale(loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        self.window.add(loss, logits, labels, step=self.step + 1)
        self.num_images += len(labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: (N, C, H, W), normalized. Gives float32 logits (N, classes)."""
        return self.network(images.contiguous(memory_format=self.setting.memory_format)).float()

    def update_weights(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.step)
        if self.spec.train.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.train.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1

    @torch.no_grad()
    def evaluate(self, stop: Stop) -> Evaluation:
        """Loss and confusion over the held-out set. Raises Interrupted where it is asked to stop."""
        self.model.eval()
        evaluator = Evaluator(len(self.source.classes))
        for images, labels in self.test_loader.epoch(0):
            with self.autocast():
                logits = self.forward(images)
            evaluator.add(F.cross_entropy(logits, labels, reduction="none"), logits, labels)
            stop.check()
        return evaluator.result()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on. Raises DivergedError rather than give weights that are not finite."""
        self.window.fold()
        if not all(torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).tolist()):
            raise DivergedError(f"the weights are not finite after step {self.step}: {DIVERGED_HINT}")
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "window": self.window.state_dict(),
            "position": {"epoch": self.epoch, "batch": self.batch, "step": self.step},
            "best": {"accuracy": self.best_accuracy, "epoch": self.best_epoch},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.setting.device)
            if self.setting.device.type == "cuda"
            else None,
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError where the state is of another model."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"the checkpoint does not fit the model: {error}") from None
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.window.load_state_dict(state["window"])
        self.epoch, self.batch, self.step = (state["position"][key] for key in ("epoch", "batch", "step"))
        self.best_accuracy, self.best_epoch = state["best"]["accuracy"], state["best"]["epoch"]
        torch.set_rng_state(state["random"].cpu())
        if self.setting.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.setting.device)
        if self.spec.train.deterministic:
            torch.set_num_threads(state["threads"])  # sums are taken in an order that depends on it


def build_model(spec: Spec, source: Source) -> nn.Module:
    """The network for these pictures. Raises DataError where it cannot take them."""
    try:
        model: nn.Module = catalog.MODELS[spec.model.name].load()(
            num_classes=len(source.classes),
            channels=source.train.channels,
            image_size=source.train.image_size,
            **spec.model.options(),
        )
    except ValueError as error:
        raise DataError(
            f"model {spec.model.name!r} cannot take {source.train.image_size}-pixel pictures: {error}"
        ) from None
    return model


class Report(Protocol):
    """Told of the training as it goes on; whoever is told writes logs and progress."""

    def step(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """A step was taken; `metrics` are the latest value of each scalar. Called often."""

    def epoch(self, trainer: Trainer, metrics: dict[str, float], evaluation: Evaluation) -> None:
        """An epoch has ended and was evaluated."""


class Stopwatch:
    """Pictures a second between two looks."""

    def __init__(self, num_images: int) -> None:
        self.num_images, self.at = num_images, time.perf_counter()

    def rate(self, num_images: int) -> float:
        now = time.perf_counter()
        rate = (num_images - self.num_images) / max(1e-9, now - self.at)
        self.num_images, self.at = num_images, now
        return rate
