"""One attempt of one job, from its spec to its result: what a worker's child process is.

    python -m pipeline.training.attempt HOME ID ATTEMPT [--alive FD]

It leaves `result.json` in every case but its own violent death, for which the worker writes one. Asked to stop, it
writes a checkpoint first, from which the next attempt goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import Interrupted, JobError, UsageError
from pipeline.home import durable
from pipeline.home.ids import new_id
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Outcome, Progress, Result, now
from pipeline.jobfile import catalog, frozen
from pipeline.jobfile.spec import Spec
from pipeline.stop import WORKER_DIED, Stop, listen
from pipeline.wording import in_words

if TYPE_CHECKING:
    from pipeline.training.loop import Trainer
    from pipeline.training.metrics import Evaluation

PROGRESS_EVERY_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.attempt")
    parser.add_argument("home", type=Path)
    parser.add_argument("id")
    parser.add_argument("attempt", type=int)
    parser.add_argument("--alive", type=int, help="read end of a pipe; its end of file says that the worker is dead")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file name need not be text
    home, stop = Home(arguments.home), Stop()
    attempt = Attempt(home, arguments.id, arguments.attempt, stop, write_line)
    with listen(stop, signal.SIGTERM, alive_fd=arguments.alive, abandoned=leave_at_once):
        result = attempt.execute()
    return 0 if result.outcome == "succeeded" else 1


def leave_at_once() -> None:
    """With all that this process has started, where it leads a session, as a worker's child does."""
    if os.getsid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def write_line(line: str) -> None:
    """To the log: a worker sends its child's output there."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_in_foreground(home: Home, spec: Spec, *, echo: Callable[[str], None]) -> tuple[Result, Path]:
    """Train a job here and now, without the queue; Ctrl-C saves it. Its result, and the run's folder.

    Raises UsageError where the home cannot be written to.
    """
    job_id, stop = new_id(spec.name), Stop()
    run = home.run(job_id)
    try:
        frozen.save(run, spec)
    except OSError as error:
        raise UsageError(f"{home.root}: cannot be a home: {error.strerror}") from None
    with (
        run.log(1).open("a", encoding="utf-8", errors="backslashreplace") as log,
        listen(stop, signal.SIGINT, signal.SIGTERM),
    ):

        def write(line: str) -> None:
            log.write(line + "\n")
            log.flush()
            echo(line)

        return Attempt(home, job_id, 1, stop, write).execute(), run.root


@dataclass
class Attempt:
    home: Home
    id: str
    number: int
    stop: Stop
    echo: Callable[[str], None]
    progress: Progress = field(init=False)
    started_at: str = field(default_factory=now)

    def __post_init__(self) -> None:
        self.run = self.home.run(self.id)
        before = Progress.read(self.run.progress) or Progress(self.number)
        self.progress = dataclasses.replace(before, attempt=self.number, note="starting")

    def execute(self) -> Result:
        """Run the job and record how that ended. Nothing that the job does escapes from here."""
        try:
            outcome, why = "succeeded", self.train()
        except Interrupted as request:
            outcome = "lost" if str(request) == WORKER_DIED else "interrupted"
            why = f"{request}; step {self.progress.step} is saved" if self.progress.step else str(request)
        except JobError as error:
            outcome, why = "failed", str(error)
        except OSError as error:
            self.echo(traceback.format_exc())
            outcome, why = ("lost" if error.errno in durable.DISK_FULL else "failed"), explain(error)
        except BaseException as error:  # noqa: BLE001 - the job's boundary: whatever it was, it is recorded
            self.echo(traceback.format_exc())
            outcome, why = "failed", explain(error)
        return self.record(outcome, why)

    def record(self, outcome: str, why: str) -> Result:
        p = self.progress
        known: Outcome = outcome  # type: ignore[assignment]
        result = Result(self.number, known, why, p.epoch, p.epochs, p.step, p.metrics, self.started_at, now())
        result.write(self.run.result)
        self.log(f"{outcome}: {why}")
        return result

    def train(self) -> str:
        """Load, build, go on from where the last attempt was, train to the end. Gives the `why` of a success."""
        spec = frozen.load(self.run)
        self.report_note(f"loading {spec.data.name}")
        from pipeline.board.writer import Board
        from pipeline.data import source as datasets
        from pipeline.training import checkpoint, device, manifest
        from pipeline.training.logbook import Logbook
        from pipeline.training.loop import Loop, Trainer

        device.keep_freed_memory()
        if spec.train.deterministic:
            device.make_deterministic()
        setting = device.choose(spec)
        source = datasets.load(
            spec.data.name,
            catalog.DATASETS[spec.data.name].load(),
            spec.data.options(),
            image_size=spec.data.image_size,
            datasets=self.home.datasets,
            log=self.log,
        )
        for note in source.notes:
            self.log(note)
        self.stop.check()
        trainer = Trainer(spec, source, setting)
        checkpoint.remove_temporaries(self.run)
        state = checkpoint.load(self.run.last)
        metrics = {} if state is None else state.pop("metrics")
        if state is not None:
            trainer.load_state_dict(state)
        provenance = manifest.write(self.run, spec, source, setting, job_id=self.id, attempt=self.number)
        self.log(self.opening(trainer, resumed=state is not None))
        report = TrainingReport(self, trainer, metrics)
        with Board(self.run.root, first_step=trainer.first_point) as board:
            job_file = self.run.spec.read_text("utf-8")
            logbook = Logbook(board, trainer, manifest=provenance, job_file=job_file, log=self.log)
            loop = Loop(
                trainer,
                logbook=logbook,
                report=report,
                save=lambda state, is_best: checkpoint.save(self.run, state, is_best=is_best),
                stop=self.stop,
                metrics=metrics,
            )
            try:
                loop.run()
                self.log(logbook.costs(report.elapsed_s))
            finally:
                report.write_progress(trainer, loop.metrics)
        return f"trained {spec.train.epochs} epochs; test accuracy {100 * loop.metrics['test/accuracy']:.2f} %"

    def opening(self, trainer: Trainer, *, resumed: bool) -> str:
        """What is about to be trained, in a line."""
        spec, source = trainer.spec, trainer.source
        computes = trainer.setting.describe()
        parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
        begin = f"resumed at step {trainer.step} (epoch {trainer.epoch + 1})" if resumed else "begins"
        return (
            f"attempt {self.number} {begin}: {spec.model.name} with {parameters:,} parameters on {spec.data.name} "
            f"({len(source.train):,} + {len(source.test):,} images), {computes['device']} ({computes['name']}), "
            f"{computes['precision']}, {trainer.num_steps:,} steps in {spec.train.epochs} epochs"
        )

    def log(self, line: str) -> None:
        self.echo(f"{time.strftime('%H:%M:%S')}  {line}")

    def report_note(self, note: str) -> None:
        self.progress = dataclasses.replace(self.progress, note=note)
        write_progress(self.run, self.progress)


class TrainingReport:
    """Keeps `progress.json` and the log."""

    def __init__(self, attempt: Attempt, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.attempt = attempt
        self.began_at, self.first_step = time.perf_counter(), trainer.step
        self.written_at = 0.0
        self.write_progress(trainer, metrics)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.began_at

    def step(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if time.perf_counter() - self.written_at > PROGRESS_EVERY_S:
            self.write_progress(trainer, metrics)

    def epoch(self, trainer: Trainer, metrics: dict[str, float], evaluation: Evaluation) -> None:
        self.write_progress(trainer, metrics)
        epochs = trainer.spec.train.epochs
        left = "" if trainer.epoch == epochs else f"  {in_words(self.attempt.progress.time_left_s or 0)} left"
        train_part = ""
        if "train/loss" in metrics:
            train_part = f"loss {metrics['train/loss']:.4f}  accuracy {100 * metrics['train/accuracy']:5.2f} %  "
        self.attempt.log(
            f"epoch {trainer.epoch:{len(str(epochs))}}/{epochs}  {train_part}"
            f"test loss {evaluation.loss:.4f}  test accuracy {100 * evaluation.accuracy:5.2f} %  "
            + (f"{self.attempt.progress.images_per_second:,.0f} images/s{left}" if train_part else "")
        )

    def write_progress(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        steps = trainer.step - self.first_step
        left_s = (trainer.num_steps - trainer.step) * self.elapsed_s / steps if steps else None
        self.attempt.progress = Progress(
            self.attempt.number,
            epoch=trainer.epoch,
            epochs=trainer.spec.train.epochs,
            step=trainer.step,
            steps=trainer.num_steps,
            metrics=metrics,
            images_per_second=metrics.get("train/images_per_second", 0.0),
            time_left_s=left_s,
        )
        write_progress(self.attempt.run, self.attempt.progress)
        self.written_at = time.perf_counter()


def write_progress(run: RunPaths, progress: Progress) -> None:
    """Whole, but not fsynced: it is for looking at."""
    temporary = run.progress.with_suffix(".tmp")
    temporary.write_bytes(durable.to_json(progress.to_json()))
    temporary.replace(run.progress)


def explain(error: BaseException) -> str:
    """An unforeseen error in a line, with what usually helps."""
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if isinstance(error, OSError) and error.errno in durable.DISK_FULL:
        return f"the disk is full: {text}; it goes on from its last checkpoint, once there is room"
    out_of_memory = isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    if out_of_memory:
        return f"out of memory; a smaller data.batch_size or data.image_size helps ({text})"
    return f"{text} (the log has the traceback)"


if __name__ == "__main__":
    sys.exit(main())
