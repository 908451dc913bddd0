"""A sweep as it looks now: its trials, what each has come to, and which of them are best. Looking never writes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.home import epoch_record
from pipeline.home.sweep_record import SweepRecord
from pipeline.queue import views
from pipeline.queue.job_queue import Queue
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
        """The best trials that have succeeded: one, or those that no other is better than in all objectives."""
        complete = [trial for trial in self.trials if trial.is_complete]
        return front(complete, self.record.objectives)

    @property
    def ranked(self) -> list[TrialView]:
        """The trials that have figures, the best first, by the first objective."""
        scored = [trial for trial in self.trials if trial.score is not None]
        sign = -1 if self.record.objectives[0][1] else 1
        return sorted(scored, key=lambda trial: (not trial.is_complete, sign * _values(trial)[0]))

    @property
    def num_ended(self) -> int:
        return sum(trial.job is not None and trial.job.outcome is not None for trial in self.trials)

    def count(self) -> dict[str, int]:
        """How many trials there are of each outcome or state."""
        counts: dict[str, int] = {}
        for trial in self.trials:
            counts[trial.outcome] = counts.get(trial.outcome, 0) + 1
        return counts


def look(queue: Queue, sweep_id: str) -> SweepView | None:
    """The sweep; None where the job is none, or was not started yet. Raises OSError."""
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
    """Figures of the best epoch by the first objective; None where an objective is not known.

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
    """The tag that is meant: where there are no images held out as val, val/ means test/."""
    is_of_test = tag not in metrics and tag.startswith("val/")
    return f"test/{tag.removeprefix('val/')}" if is_of_test else tag


def value_of(metrics: Mapping[str, float], tag: str) -> float | None:
    """A scalar; None where it is not known."""
    return metrics.get(tag_in(metrics, tag))


def in_words(score: Score, objectives: Objectives) -> str:
    """The figures of a trial, by the tags that they are of."""
    figures = zip(objectives, score.values, strict=True)
    return ", ".join(f"{tag_in(score.metrics, tag)} {value:.4g}" for (tag, _), value in figures)


def front(trials: Sequence[TrialView], objectives: Objectives) -> list[TrialView]:
    """Those of scored trials that no other is at least as good as in all objectives, and better in one.

    Of one objective, the first of the best alone.
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
    """The ids of the jobs that are a sweep's trials; none of another job."""
    with contextlib.suppress(OSError):
        if record := SweepRecord.read(queue.home.run(sweep_id).trials):
            return [trial.job for trial in record.trials]
    return []


def short_names(fields: Sequence[str]) -> list[str]:
    """The fields by the ends of their names, as long as it takes to tell them apart: `lr`, `optimizer.name`."""
    return [_short_name(field, [other for other in fields if other != field]) for field in fields]


def _short_name(field: str, others: Sequence[str]) -> str:
    parts = field.split(".")
    ends = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
    fit = (end for end in ends if end != "name" and not any(f".{other}".endswith(f".{end}") for other in others))
    return next(fit, field)
