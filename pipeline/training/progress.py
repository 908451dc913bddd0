"""How far an attempt is: `progress.json`, for people to look at, and after each epoch a line in the log.

A line of figures in `epochs.jsonl`, too, which stays (`home/epoch_record.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import time
from collections.abc import Callable

from pipeline.home import durable, epoch_record
from pipeline.home.paths import RunPaths
from pipeline.home.records import Progress
from pipeline.training.moment import Moment
from pipeline.wording import in_words

EVERY_S = 0.5


class ProgressWriter:
    """Is told by the loop, as its `Listener`. Raises OSError where the file cannot be written."""

    def __init__(self, run: RunPaths, attempt: int, log: Callable[[str], None]) -> None:
        """log: takes a line for the attempt's log."""
        self.run, self.log = run, log
        before = Progress.glance(run.progress) or Progress(attempt)
        self.latest = dataclasses.replace(before, attempt=attempt, note="starting")
        self.num_steps = self.first_step = 0
        self.began_at = self.written_at = time.perf_counter()

    def note(self, text: str) -> None:
        """Say what the attempt does before it trains."""
        self.latest = dataclasses.replace(self.latest, note=text)
        self._write()

    def begin(self, moment: Moment, metrics: dict[str, float], *, num_steps: int) -> None:
        """The training begins or goes on. num_steps: of the whole job."""
        self.began_at, self.first_step, self.num_steps = time.perf_counter(), moment.step, num_steps
        self._update(moment, metrics)
        self._write()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.began_at

    def after_step(self, moment: Moment, metrics: dict[str, float]) -> None:
        if time.perf_counter() - self.written_at > EVERY_S:
            self._update(moment, metrics)
            self._write()

    def record_epoch(self, moment: Moment, metrics: dict[str, float]) -> None:
        """Add the epoch to `epochs.jsonl`. A killed attempt's next one may do it again."""
        self._require_folder()
        attempt = self.latest.attempt
        epoch_record.append(self.run.epochs, epoch=moment.epoch, step=moment.step, metrics=metrics, attempt=attempt)

    def after_epoch(self, moment: Moment, metrics: dict[str, float]) -> None:
        self._update(moment, metrics)
        self._write()
        self.log(self._epoch_line(moment, metrics))

    def end(self, moment: Moment, metrics: dict[str, float]) -> None:
        """The training ends, for whatever reason; that this cannot be written is not another one."""
        self._update(moment, metrics)
        with contextlib.suppress(OSError):
            self._write()

    def _epoch_line(self, moment: Moment, metrics: dict[str, float]) -> str:
        trained = top5 = rate = left = ""
        name = "val" if "val/loss" in metrics else "test"
        if "train/epoch_loss" in metrics:
            accuracy = 100 * metrics["train/epoch_accuracy"]
            trained = f"loss {metrics['train/epoch_loss']:.4f}  accuracy {accuracy:5.2f} %  "
        if f"{name}/top5_accuracy" in metrics:
            top5 = f"  top-5 {100 * metrics[f'{name}/top5_accuracy']:5.2f} %"
        if "train/images_per_second" in metrics:
            rate = f"  {self.latest.images_per_second:,.0f} images/s"
        if not moment.is_last:
            left = f"  {in_words(self.latest.time_left_s or 0)} left"
        accuracy = 100 * metrics[f"{name}/accuracy"]
        judged = f"{name} loss {metrics[f'{name}/loss']:.4f}  {name} accuracy {accuracy:5.2f} %{top5}"
        return f"epoch {moment.epoch:{len(str(moment.epochs))}}/{moment.epochs}  {trained}{judged}{rate}{left}"

    def _update(self, moment: Moment, metrics: dict[str, float]) -> None:
        steps = moment.step - self.first_step
        left_s = (self.num_steps - moment.step) * self.elapsed_s / steps if steps else None
        self.latest = Progress(
            self.latest.attempt,
            epoch=moment.epoch,
            epochs=moment.epochs,
            step=moment.step,
            steps=self.num_steps,
            metrics=metrics,
            images_per_second=metrics.get("train/images_per_second", 0.0),
            time_left_s=left_s,
        )

    def _require_folder(self) -> None:
        if not self.run.spec.exists():  # a folder that was removed may have been made again, by some other file
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.run.spec))

    def _write(self) -> None:
        self._require_folder()
        write_progress(self.run, self.latest)
        self.written_at = time.perf_counter()


def write_progress(run: RunPaths, progress: Progress) -> None:
    """Replace `progress.json`: whole, but not fsynced, as it is for looking at."""
    temporary = run.progress.with_name(f".{run.progress.name}.{progress.attempt}.tmp")  # no other attempt's
    with os.fdopen(durable.open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(durable.to_json(progress.to_json()))
    durable.rename(temporary, run.progress)
