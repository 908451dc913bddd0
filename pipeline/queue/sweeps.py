"""A sweep as it looks now: its trials, what each has come to, and which of them are best. Looking never writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.home import durable, epoch_record
from pipeline.home.sweep_record import SweepRecord
from pipeline.queue import views
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket
from pipeline.queue.views import JobView

Objectives = Sequence[tuple[str, bool]]
"""Tags of scalars, and whether more of each is better."""


@dataclass(frozen=True)
class Score:
    """A trial's figures in its best epoch, by the first objective."""

    epoch: int  # 0 where that is known of the job alone
    values: tuple[float, ...]  # one an objective
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialView:
    number: int
    job_id: str
    values: Mapping[str, Any]  # of the fields that are searched
    job: JobView | None  # None where its ticket cannot be found
    score: Score | None  # None where it has finished no epoch
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # the figures after each

    @property
    def outcome(self) -> str:
        """How it ended, or where it is."""
        return "missing" if self.job is None else self.job.outcome or self.job.state

    @property
    def is_complete(self) -> bool:
        return self.outcome == "succeeded" and self.score is not None


@dataclass(frozen=True)
class SweepView:
    record: SweepRecord
    trials: list[TrialView]

    @property
    def best(self) -> list[TrialView]:
        """Returns the best trial that has succeeded; of several objectives, the Pareto front."""
        complete = [trial for trial in self.trials if trial.is_complete]
        return front(complete, self.record.objectives)

    @property
    def ranked(self) -> list[TrialView]:
        """Returns the trials that have figures, those that have succeeded first, best first by the first objective."""
        scored = [trial for trial in self.trials if trial.score is not None]
        sign = -1 if self.record.objectives[0][1] else 1
        return sorted(scored, key=lambda trial: (not trial.is_complete, sign * _values(trial)[0]))

    @property
    def num_ended(self) -> int:
        return sum(trial.job is not None and trial.job.outcome is not None for trial in self.trials)

    def count(self) -> dict[str, int]:
        """Counts the trials of each outcome or state."""
        counts: dict[str, int] = {}
        for trial in self.trials:
            counts[trial.outcome] = counts.get(trial.outcome, 0) + 1
        return counts


def look(queue: Queue, sweep_id: str) -> SweepView | None:
    """Returns the sweep, or None where the job is none or has not started yet. Raises OSError."""
    record = SweepRecord.read(queue.home.run(sweep_id).trials)
    if record is None or not record.objectives:
        return None
    trials = []
    for trial in record.trials:
        job = views.look(queue, trial.job)
        epochs = epoch_record.read(queue.home.run(trial.job).epochs)
        found = score(epochs, job.metrics if job else {}, record.objectives)
        trials.append(TrialView(trial.number, trial.job, trial.values, job, found, epochs))
    return SweepView(record, trials)


def score(
    epochs: Mapping[int, Mapping[str, float]], latest: Mapping[str, float], objectives: Objectives
) -> Score | None:
    """Returns the figures of the best epoch by the first objective, or None where an objective is not known.

    latest: the job's latest figures, which have what is told once, at its end.
    """
    (first, is_high), *_ = objectives
    known = {epoch: value for epoch, m in epochs.items() if (value := value_of(m, first)) is not None}
    best = (max if is_high else min)(known, key=lambda epoch: known[epoch], default=0)
    metrics = {**latest, **epochs.get(best, {})}
    values = [value_of(metrics, tag) for tag, _ in objectives]
    if any(value is None for value in values):
        return None
    return Score(best, tuple(value for value in values if value is not None), metrics)


def tag_in(metrics: Mapping[str, float], tag: str) -> str:
    """Returns the tag that is meant: where no images are held out as val, val/ means test/."""
    is_of_test = tag not in metrics and tag.startswith("val/")
    return f"test/{tag.removeprefix('val/')}" if is_of_test else tag


def value_of(metrics: Mapping[str, float], tag: str) -> float | None:
    """Returns a scalar, or None where it is not known."""
    return metrics.get(tag_in(metrics, tag))


def in_words(score: Score, objectives: Objectives) -> str:
    """Returns a trial's figures as text, each after its tag: `val/accuracy 0.93`."""
    figures = zip(objectives, score.values, strict=True)
    return ", ".join(f"{tag_in(score.metrics, tag)} {value:.4g}" for (tag, _), value in figures)


def front(trials: Sequence[TrialView], objectives: Objectives) -> list[TrialView]:
    """Returns the scored trials that are on the Pareto front: none is as good in all objectives and better in one.

    With one objective it is the best trial alone, the earliest of equals.
    """
    signs = [1 if is_high else -1 for _, is_high in objectives]
    points = [tuple(sign * value for sign, value in zip(signs, _values(trial), strict=True)) for trial in trials]
    if len(signs) == 1:
        return [trials[points.index(max(points))]] if points else []

    def is_beaten(point: tuple[float, ...]) -> bool:
        return any(other != point and all(a >= b for a, b in zip(other, point, strict=True)) for other in points)

    return [trial for trial, point in zip(trials, points, strict=True) if not is_beaten(point)]


def _values(trial: TrialView) -> tuple[float, ...]:
    assert trial.score is not None
    return trial.score.values


def jobs_of(queue: Queue, sweep_id: str) -> list[str]:
    """Returns the ids of the jobs that are a sweep's trials; a job that is no sweep has none.

    Where its record is lost or damaged, these are the trials that wait or run, by their tickets. Raises OSError.
    """
    trials = queue.home.run(sweep_id).trials
    if record := SweepRecord.read(trials):
        return [trial.job for trial in record.trials]
    if not durable.is_there(queue.home.run(sweep_id).study):
        return []
    ids = [(state, job_id) for state in ("pending", "running") for job_id in queue.tickets.ids(state)]
    found = ((job_id, queue.tickets.read(state, job_id)) for state, job_id in ids)
    return [job_id for job_id, ticket in found if isinstance(ticket, Ticket) and ticket.sweep == sweep_id]


def short_names(fields: Sequence[str]) -> list[str]:
    """Returns the ends of the fields' names, as long as it takes to tell them apart: `lr`, `optimizer.name`."""
    return [_short_name(field, [other for other in fields if other != field]) for field in fields]


def _short_name(field: str, others: Sequence[str]) -> str:
    parts = field.split(".")
    ends = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
    fit = (end for end in ends if end != "name" and not any(f".{other}".endswith(f".{end}") for other in others))
    return next(fit, field)
