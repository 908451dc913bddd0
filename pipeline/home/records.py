"""The small JSON records of a job: how an attempt ended, where it is, how often it was tried.

runs/<id>/result.json         Result    how the latest attempt ended; by the child, or for it by the worker
runs/<id>/progress.json       Progress  where the running attempt is; not durable, replaced every second or so
runs/<id>/evaluation.json     Evaluated what the latest evaluation found, in full; by the child
queue/jobs/<id>/attempts.json Attempts  one entry an attempt; by the holder of the job's lease
queue/jobs/<id>/result.json   End       the job's one recorded end
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.home import durable
from pipeline.home.typed import convert

Outcome = Literal["succeeded", "failed", "invalid", "cancelled", "timed_out", "lost", "interrupted"]
"""How an attempt ended. `interrupted` was asked to stop and goes on later; it is the end of no job."""

FOLDER_OF: dict[str, str] = {
    "succeeded": "done",
    "failed": "failed",
    "invalid": "failed",
    "timed_out": "failed",
    "lost": "failed",
    "cancelled": "cancelled",
}
"""The folder that a ticket lies in once its job has ended."""


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    seconds, fraction = divmod(time.time(), 1)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(fraction * 1000):03d}Z"


class _Record:
    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Self | None:
        """None where fields are missing or of the wrong kind; unknown fields are left out."""
        if value is None:
            return None
        try:
            record: Self = convert(value, cls)
        except ValueError:
            return None
        return record

    @classmethod
    def read(cls, path: Path) -> Self | None:
        return cls.from_json(durable.read_json(path))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """JSON has no NaN; what is not a number is left out."""
    return {key: value for key, value in metrics.items() if math.isfinite(value)}


@dataclass(frozen=True)
class Progress(_Record):
    attempt: int
    epoch: int = 0  # epochs finished
    epochs: int = 0
    step: int = 0  # optimizer steps taken, over all attempts
    steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    time_left_s: float | None = None
    note: str = ""  # what it is doing where that is not training

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", _finite(self.metrics))


@dataclass(frozen=True)
class Result(_Record):
    attempt: int
    outcome: Outcome
    why: str
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    started_at: str | None = None
    finished_at: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", _finite(self.metrics))

    def write(self, path: Path) -> None:
        durable.replace_json(path, self.to_json(), indent=2)


@dataclass(frozen=True)
class End(Result):
    """A Result with all that `status` shows of an ended job, so that it reads one file a job."""

    id: str = ""
    name: str = ""
    priority: int = 0
    submitted_at: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome not in FOLDER_OF:
            raise ValueError(self.outcome)


@dataclass(frozen=True)
class Mistake:
    """A held-out image that was taken for something else."""

    index: int  # in the held-out set
    label: int  # the true class
    predicted: int
    probability: float  # of the predicted class
    png: str  # the image, at most 96 pixels a side: base64 of a PNG file


@dataclass(frozen=True)
class ClassScore:
    """How well a class is told from the others; a share of nothing is NaN."""

    name: str
    support: int  # held-out images of the class
    num_correct: int
    num_predicted: int  # held-out images that were taken for it

    @property
    def precision(self) -> float:
        """Of what was taken for the class, the share that is."""
        return self.num_correct / self.num_predicted if self.num_predicted else math.nan

    @property
    def recall(self) -> float:
        """Of the class, the share that was recognized: its accuracy."""
        return self.num_correct / self.support if self.support else math.nan

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn)."""
        total = self.support + self.num_predicted
        return 2 * self.num_correct / total if total else math.nan


@dataclass(frozen=True)
class Evaluated(_Record):
    """The latest evaluation. confusion: rows are the true classes, columns the predicted ones."""

    epoch: int  # finished epochs, at this evaluation
    step: int
    loss: float
    accuracy: float
    classes: list[str]
    confusion: list[list[int]]
    mistakes: list[Mistake]  # the most confident first, up to 20

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "mistakes": [vars(mistake) for mistake in self.mistakes]}  # `asdict` copies each number

    def class_scores(self) -> list[ClassScore]:
        """Of each class, in order."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        return [
            ClassScore(name, sum(row), row[index], predicted[index])
            for index, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True))
        ]


@dataclass
class Attempts(_Record):
    """`retries_used` counts what uses up `resources.retries`; an interrupted attempt does not."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    retries_used: int = 0

    @property
    def number(self) -> int:
        """Of the latest attempt; 0 before the first."""
        return len(self.entries)

    @property
    def is_open(self) -> bool:
        return bool(self.entries) and "outcome" not in self.entries[-1]

    @property
    def started_at(self) -> str | None:
        """When the job was first started."""
        return self.entries[0].get("started_at") if self.entries else None

    def begin(self, worker: str) -> int:
        self.entries.append({"started_at": now(), "worker": worker})
        return self.number

    def end(self, outcome: Outcome, why: str) -> None:
        self.entries[-1] |= {"finished_at": now(), "outcome": outcome, "why": why}

    def write(self, path: Path) -> None:
        durable.make_folder(path.parent)
        durable.replace_json(path, self.to_json())
