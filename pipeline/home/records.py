"""The small JSON records of a job: how an attempt ended, where it is, how often it was tried.

runs/<id>/result.json         Result    how an attempt ended as it saw it itself; by the attempt alone
runs/<id>/order.json          Order     which attempt is to run, and whether it is to stop; by the job's worker
runs/<id>/progress.json       Progress  where the running attempt is; not durable, replaced every second or so
queue/jobs/<id>/attempts.json Attempts  one entry an attempt, with its verdict; by the holder of the job's lease
queue/jobs/<id>/result.json   End       the job's one recorded end
queue/control/<id>.cancel     StopRequest   that it is to end; by anybody
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypedDict

from pipeline.home import durable
from pipeline.home.typed import convert

Outcome = Literal["succeeded", "failed", "invalid", "cancelled", "timed_out", "lost", "pruned", "interrupted"]
"""How an attempt ended. `interrupted` was asked to stop and goes on later; it is the end of no job. `pruned` was a
trial of a sweep that others had left behind, which is no failure."""

FOLDER_OF: dict[str, str] = {
    "succeeded": "done",
    "failed": "failed",
    "invalid": "failed",
    "timed_out": "failed",
    "lost": "failed",
    "cancelled": "cancelled",
    "pruned": "done",
}
"""The folder that a ticket lies in once its job has ended."""

WELL = ("succeeded", "pruned")
"""The ends that are no reason to look for what went wrong."""

LOCAL = "local"
"""The executor of an attempt that is a process of its worker's: it lives while it holds its job's lease."""

FOREGROUND = "foreground"
"""The executor of `pipeline run`: the attempt is that process, and holds its job's lease."""

MAX_WHY = 10_000  # characters


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    seconds, fraction = divmod(time.time(), 1)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(fraction * 1000):03d}Z"


class Record:
    """A JSON object on disk, as a dataclass."""

    MAX_BYTES: ClassVar[int] = durable.MAX_RECORD_BYTES

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Self | None:
        """Returns None where fields are missing or of the wrong kind; unknown fields are left out."""
        if value is None:
            return None
        try:
            record: Self = convert(value, cls)
        except ValueError:
            return None
        return record

    @classmethod
    def read(cls, path: Path) -> Self | None:
        return cls.from_json(durable.read_json(path, limit=cls.MAX_BYTES))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """JSON has no NaN; what is not a number is left out."""
    if all(map(math.isfinite, metrics.values())):
        return metrics
    return {key: value for key, value in metrics.items() if math.isfinite(value)}


@dataclass(frozen=True)
class Order(Record):
    """The latest word of a job's worker to its attempts. An attempt of a smaller number has been replaced."""

    attempt: int
    stop: bool = False


@dataclass(frozen=True)
class Progress(Record):
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

    @classmethod
    def glance(cls, path: Path) -> Progress | None:
        """Reads, and returns None too where the disk does not give it: figures for people hold up no job."""
        try:
            return cls.read(path)
        except OSError:
            return None


@dataclass(frozen=True)
class Result(Record):
    MAX_BYTES = 1024 * 1024  # whatever a job writes there, its end and the record of its attempts can be written

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
        if (metrics := _finite(self.metrics)) is not self.metrics:
            object.__setattr__(self, "metrics", metrics)
        if len(self.why) > MAX_WHY:
            object.__setattr__(self, "why", self.why[:MAX_WHY])

    @classmethod
    def after(cls, progress: Progress | Result, *, attempt: int, outcome: Outcome, why: str) -> Result:
        """Makes a result of the figures that were last told, as of an attempt that has left none."""
        p = progress
        return Result(attempt, outcome, why, p.epoch, p.epochs, p.step, p.metrics, finished_at=now())

    def write(self, path: Path) -> None:
        durable.replace_json(path, self.to_json(), indent=2)


@dataclass(frozen=True)
class End(Result):
    """A Result with all that `status` shows of an ended job, so that it reads one file a job."""

    MAX_BYTES = durable.MAX_RECORD_BYTES

    id: str = ""
    name: str = ""
    priority: int = 0
    submitted_at: str = ""
    sweep: str | None = None  # the id of the sweep that it was a trial of, or its own where it was one
    trial: int | None = None  # its number there, from 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome not in FOLDER_OF:
            raise ValueError(self.outcome)

    @property
    def took_s(self) -> float | None:
        """From its first start to its end; None where it was never started."""
        if not self.started_at or not self.finished_at:
            return None
        with contextlib.suppress(ValueError):
            took = datetime.fromisoformat(self.finished_at) - datetime.fromisoformat(self.started_at)
            return took.total_seconds()
        return None


@dataclass(frozen=True)
class StopRequest(Record):
    """`queue/control/<id>.cancel`: somebody wants a job that waits or runs to end."""

    outcome: Literal["cancelled", "pruned"] = "cancelled"
    why: str = ""  # where there is more to say than the outcome does
    requested_at: str = field(default_factory=now)

    def in_words(self, when: str) -> str:
        """What the job's end says of it."""
        what = f"{self.outcome} {when}".rstrip()
        return f"{what}: {self.why}" if self.why else what


class Entry(TypedDict, total=False):
    """One attempt, from its start on; from `finished_at` on, the verdict on it."""

    started_at: str
    worker: str
    executor: str
    handle: dict[str, str | int | float | bool | None]  # by which the executor finds it again
    finished_at: str
    outcome: Outcome
    why: str
    epoch: int
    step: int
    lacked_room: bool


@dataclass
class Attempts(Record):
    """`retries_used` counts what uses up `resources.retries`; an interrupted attempt does not."""

    entries: list[Entry] = field(default_factory=list)
    retries_used: int = 0

    def __post_init__(self) -> None:
        if self.retries_used < 0:
            raise ValueError(self.retries_used)

    @property
    def number(self) -> int:
        """The number of the latest attempt; 0 before the first."""
        return len(self.entries)

    @property
    def is_open(self) -> bool:
        return bool(self.entries) and "outcome" not in self.entries[-1]

    @property
    def is_elsewhere(self) -> bool:
        """Whether the latest attempt was handed to an engine, and may live though no process here holds its lease."""
        return self.is_open and self.entries[-1].get("executor", LOCAL) not in (LOCAL, FOREGROUND)

    @property
    def is_in_foreground(self) -> bool:
        """Whether the latest attempt was in the terminal of a person, who alone takes the job up again."""
        return self.latest.get("executor") == FOREGROUND

    @property
    def started_at(self) -> str | None:
        """When the job was first started."""
        return self.entries[0].get("started_at") if self.entries else None

    @property
    def latest(self) -> Entry:
        """The entry of the latest attempt; empty before the first."""
        return self.entries[-1] if self.entries else {}

    @property
    def num_without_room(self) -> int:
        """How many attempts in a row, up to the latest one, ended for want of room on the disk."""
        return sum(1 for _ in itertools.takewhile(lambda entry: entry.get("lacked_room"), reversed(self.entries)))

    def begin(self, worker: str, executor: Mapping[str, Any]) -> int:
        """Opens an entry. executor: who runs the attempt, and the handle by which to ask later whether it lives."""
        self.entries.append(convert({"started_at": now(), "worker": worker, **executor}, Entry))
        return self.number

    def end(self, result: Result, *, lacked_room: bool = False) -> None:
        """Closes the latest entry with the verdict on its attempt."""
        verdict: Entry = {"finished_at": now(), "outcome": result.outcome, "why": result.why}
        verdict |= {"epoch": result.epoch, "step": result.step}
        self.entries[-1] |= {**verdict, "lacked_room": True} if lacked_room else verdict

    def write(self, path: Path) -> None:
        """Raises OSError, also where the record is larger than can be read back."""
        durable.make_folder(path.parent)
        try:
            durable.replace_json(path, self.to_json())
        except ValueError as error:
            raise OSError(errno.EFBIG, str(error), str(path)) from None
