"""A home with a sweep in it, written record by record, as workers would have left it; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.home import durable, epoch_record
from pipeline.home.paths import Home
from pipeline.home.records import FOLDER_OF, End, Progress
from pipeline.home.sweep_record import SweepRecord, Trial
from pipeline.jobfile import frozen
from pipeline.queue.job_queue import Queue

SWEEP = "sweep-20260101T000000000000Z-aaaaaa"
SPACE: dict[str, Any] = {
    "train.optimizer.lr": {"from": 1e-4, "to": 0.1, "log": True},
    "data.batch_size": {"from": 32, "to": 256, "step": 32},
    "train.optimizer.name": ["sgd", "adamw"],
}


@dataclass
class Tried:
    """A trial as it ended. figures: those of its epochs, one a tag."""

    values: dict[str, Any]
    figures: dict[str, Sequence[float]] = field(default_factory=dict)
    outcome: str = "succeeded"  # or pending, or missing
    epochs: int = 3  # that it was to have
    why: str = ""


def job_id(number: int) -> str:
    return f"sweep-{number}-20260101T0000{number // 60:02d}{number % 60:02d}0000Z-{number:06x}"


def leave(
    home: Home,
    trials: Sequence[Tried],
    *,
    space: dict[str, Any] = SPACE,
    maximize: Sequence[str] = ("test/accuracy",),
    minimize: Sequence[str] = (),
    num_trials: int | None = None,
    outcome: str | None = "succeeded",
    name: str = "sweep",
) -> str:
    """Leaves a sweep, and returns its id. outcome: None where it still runs."""
    Queue(home)
    run = home.run(SWEEP)
    search = {"sampler": "tpe", "pruner": "median", "space": space}
    frozen.save_sweep(run, {"name": name, "model": {"name": "cnn_bn"}, "search": search}, {})
    recorded = [Trial(number, job_id(number), tried.values) for number, tried in enumerate(trials)]
    total = len(trials) if num_trials is None else num_trials
    SweepRecord(total, list(maximize), list(minimize), list(space), recorded).write(run.trials)
    run.log(1).write_text("asked for trials\n")
    for number, tried in enumerate(trials):
        if tried.outcome != "missing":
            _leave_trial(home, number, tried)
    progress = Progress(1, epoch=len(trials), epochs=total, note="some trials ended")
    durable.replace_json(run.progress, progress.to_json())
    if outcome:
        _end(home, SWEEP, outcome, "all trials ended", epoch=len(trials), epochs=total)
    return SWEEP


def _leave_trial(home: Home, number: int, tried: Tried) -> None:
    run = home.run(job_id(number))
    durable.make_folder(run.root)
    epoch, figures = 0, dict[str, float]()
    for epoch, values in enumerate(zip(*tried.figures.values(), strict=True), 1):
        figures = dict(zip(tried.figures, values, strict=True))
        epoch_record.append(run.epochs, epoch=epoch, step=10 * epoch, metrics=figures)
    _end(home, job_id(number), tried.outcome, tried.why, epoch=epoch, epochs=tried.epochs, metrics=figures)


def _end(home: Home, of_job: str, outcome: str, why: str, **figures: Any) -> None:
    ticket = home.queue.ticket(FOLDER_OF[outcome], of_job)
    durable.make_folder(ticket.parent)
    ticket.write_text("{}")
    durable.make_folder(home.queue.job(of_job))
    times = {"started_at": "2026-01-01T00:00:00.000Z", "finished_at": "2026-01-01T00:01:40.000Z"}
    End(1, outcome, why, **figures, **times, id=of_job, name="sweep").write(home.queue.end(of_job))  # type: ignore[arg-type]
