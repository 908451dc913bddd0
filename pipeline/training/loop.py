"""The training loop: epochs of steps, when to log, when to evaluate, when to save.

Nothing in a step waits for the device; what is logged is read every `log.every` steps. The order of images and their
augmentation are functions of seed, epoch and batch (`data/loader.py`), so that a checkpoint taken after any step is
enough to go on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.board import tags
from pipeline.errors import DivergedError, Interrupted
from pipeline.models.quantized_figures import size_in_bits
from pipeline.stop import Stop
from pipeline.training.engine import Engine
from pipeline.training.evaluation import Evaluation, evaluate
from pipeline.training.logbook import Logbook
from pipeline.training.metrics import DIVERGED_HINT
from pipeline.training.moment import Moment
from pipeline.training.step import Step
from pipeline.wording import against_fp32, in_bits


class Listener(Protocol):
    """Is told of the training as it goes on. `metrics` are the latest value of each scalar."""

    def after_step(self, moment: Moment, metrics: dict[str, float]) -> None:
        """A step was taken. Called often."""

    def after_epoch(self, moment: Moment, metrics: dict[str, float]) -> None:
        """An epoch has ended and was evaluated; its checkpoint may still be on its way to the disk."""


class Save(Protocol):
    def __call__(self, state: dict[str, Any], is_best: bool, write: Callable[[], None] | None) -> None:
        """Begin to save a state as it is now.

        is_best: so far. write: what must be written before it is; to be called once the device was waited for.
        """


@dataclass
class Loop:
    """One attempt's way through the epochs that are left."""

    engine: Engine
    step: Step
    logbook: Logbook
    listener: Listener
    save: Save
    stop: Stop
    metrics: dict[str, float] = field(default_factory=dict)  # the latest value of each scalar
    check_saved: Callable[[], None] = lambda: None  # raises what went wrong since with a checkpoint or before it
    record_epoch: Callable[[Moment, dict[str, float]], None] = lambda *_: None  # from the thread that saves

    def train(self) -> None:
        """Train to the end. Raises Interrupted, with a checkpoint written, where it is asked to stop."""
        engine = self.engine
        if engine.first_point == 0:
            self.logbook.begin()
        self.log_size()
        self.repeat_last_point()
        try:
            self.logbook.after_step(engine.step)
            while not engine.moment.is_last:
                self.train_epoch()
                self.end_epoch()
            if engine.epoch < engine.spec.train.num_epochs:
                self.logbook.log(f"stops early: {engine.patience.in_words()}")
        except Interrupted:
            with contextlib.suppress(OSError):  # a full disk: the job goes on from the checkpoint before
                self.checkpoint(is_best=False)
            raise
        finally:
            self.logbook.close()

    def repeat_last_point(self) -> None:
        """Where an attempt was stopped before its evaluation, this one speaks from that step on, the point included."""
        if self.engine.is_epoch_trained and self.is_point(self.engine.step):
            self.log({tag: value for tag, value in self.metrics.items() if tag in tags.TRAINING})
            self.logbook.add_step_sizes(self.engine.step, self.engine.model)

    def log_size(self) -> None:
        """Tell how large a quantized network is, once; it stays so."""
        if tags.MODEL_BITS not in self.metrics and (size := size_in_bits(self.engine.model)):
            self.log({tags.MODEL_BITS: size.bits, tags.MODEL_BITS_IN_FP32: size.bits_in_fp32})
            self.logbook.log(f"quantized: {in_bits(size.bits)} {against_fp32(*size)}")

    def is_point(self, step: int) -> bool:
        """Whether the training curves have a point at this step, of a whole window; each epoch has one at least.

        So has one that is cut short: its last step.
        """
        engine = self.engine
        is_cut = step == engine.num_steps and step % engine.steps_per_epoch > 0
        return is_cut or step % min(engine.spec.log.every, engine.steps_per_epoch) == 0

    def train_epoch(self) -> None:
        """Take the steps that are left of the epoch."""
        engine, stopwatch = self.engine, Stopwatch(self.engine.num_images)
        saved_at = time.perf_counter()
        for step in take_steps(engine, self.step):
            self.logbook.after_step(step)
            if step == 1:
                self.logbook.after_first_step(engine.model, engine.loader)
                stopwatch = Stopwatch(engine.num_images)  # that was no step's time
            if self.is_point(step):
                self.log_point(stopwatch)
            self.listener.after_step(engine.moment, self.metrics)
            is_due = time.perf_counter() - saved_at > engine.spec.train.checkpoint_every
            if is_due and not engine.is_epoch_trained:  # then the epoch's own comes at once
                self.checkpoint(is_best=False)
                saved_at = time.perf_counter()
            self.check_saved()
            self.stop.check()

    def log_point(self, stopwatch: Stopwatch) -> None:
        engine = self.engine
        loss, accuracy = engine.means.read_window()  # waits for the device: the time below is that of finished work
        self.log(
            {
                tags.TRAIN_LOSS: loss,
                tags.TRAIN_ACCURACY: accuracy,
                tags.LEARNING_RATE: engine.schedule(engine.step - 1),
                tags.IMAGES_PER_SECOND: stopwatch.rate(engine.num_images),
                **self.logbook.measure(self.step.gradient_norm),
            }
        )
        self.logbook.add_step_sizes(engine.step, engine.model)

    def end_epoch(self) -> None:
        """Evaluate, and begin to write what an epoch leaves and to save; that goes on while the next one is trained."""
        engine = self.engine
        epoch, patience = engine.epoch + 1, engine.patience
        moment = dataclasses.replace(engine.moment, epoch=epoch, is_stopped=patience.is_over(epoch))  # if no better
        with engine.average.in_use():
            evaluation = evaluate(engine, self.stop, features_of=self.logbook.wanted_features(moment))
        trained = engine.means.read_epoch(num_images=engine.images_of_epoch)
        if not math.isfinite(evaluation.loss):
            name = engine.dataset.held_out_name
            raise DivergedError(f"the {name} loss is {evaluation.loss} after step {engine.step}: {DIVERGED_HINT}")
        patience.see(epoch, evaluation.accuracy)
        moment = dataclasses.replace(moment, is_stopped=patience.is_over(epoch))
        is_best = evaluation.accuracy > engine.best_accuracy
        if is_best:
            engine.best_accuracy, engine.best_epoch = evaluation.accuracy, epoch
        found = self.found(trained, evaluation)
        self.metrics.update(found)
        metrics, write_shown = dict(self.metrics), self.logbook.end_epoch(moment, engine.model, evaluation)

        def write() -> None:
            self.logbook.scalars(moment.step, found)
            write_shown()
            self.record_epoch(moment, metrics)

        engine.end_epoch()
        self.checkpoint(is_best=is_best, write=write)
        self.listener.after_epoch(moment, self.metrics)

    def found(self, trained: tuple[float, float] | None, evaluation: Evaluation) -> dict[str, float]:
        """Returns an epoch's scalars. trained: mean loss and accuracy of its training; None where not known."""
        name = self.engine.dataset.held_out_name
        values = (evaluation.loss, evaluation.accuracy, self.engine.best_accuracy)
        found = dict(zip(tags.HELD_OUT[name], values, strict=True))
        if trained is not None:
            found |= zip((tags.EPOCH_LOSS, tags.EPOCH_ACCURACY), trained, strict=True)
        if evaluation.top5_accuracy is not None:
            found[tags.TOP5[name]] = evaluation.top5_accuracy
        return found

    def log(self, values: dict[str, float]) -> None:
        self.metrics.update(values)
        self.logbook.scalars(self.engine.step, values)

    def checkpoint(self, *, is_best: bool, write: Callable[[], None] | None = None) -> None:
        self.save({**self.engine.state_dict(), "metrics": self.metrics}, is_best, write)


def take_steps(engine: Engine, step: Step) -> Iterator[int]:
    """Take the steps that are left of the epoch under way; gives the number of steps taken so far after each."""
    engine.begin_training()
    batches = engine.loader.epoch(engine.epoch, first=engine.batch)
    while not engine.is_epoch_trained:
        num_batches = min(engine.spec.train.accumulate, engine.num_batches - engine.batch)
        lr = engine.schedule(engine.step)
        engine.num_images += step(itertools.islice(batches, num_batches), num_batches=num_batches, lr=lr)
        engine.batch, engine.step = engine.batch + num_batches, engine.step + 1
        engine.average.update(engine.step, num_steps=engine.num_steps)
        yield engine.step


class Stopwatch:
    """Measures images a second between two looks."""

    def __init__(self, num_images: int) -> None:
        self.num_images, self.at = num_images, time.perf_counter()

    def rate(self, num_images: int) -> float:
        now = time.perf_counter()
        rate = (num_images - self.num_images) / max(1e-9, now - self.at)
        self.num_images, self.at = num_images, now
        return rate
