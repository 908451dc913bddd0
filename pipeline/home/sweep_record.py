"""A sweep's own record, `runs/<id>/trials.json`: its trials by number, and the job that each of them is.

A trial stands here, durably, before its job is submitted: so none is counted twice or forgotten, whatever is killed.
How a trial ended is not here: that is its job's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.home import durable
from pipeline.home.records import Record

CANCELLED = "its sweep was cancelled"
GIVEN_UP = "its sweep has ended"
FOR_ITS_SWEEP = (CANCELLED, GIVEN_UP)
"""Why a trial was cancelled, where no person has cancelled it alone: a sweep that is retried takes it up again."""


@dataclass(frozen=True)
class Trial(Record):
    number: int  # from 0
    job: str  # its id
    values: dict[str, Any]  # of the fields that are searched, as `train.optimizer.lr`


@dataclass(frozen=True)
class SweepRecord(Record):
    num_trials: int  # that are asked for in all
    maximize: list[str]  # tags of scalars
    minimize: list[str]
    fields: list[str]  # that are searched
    trials: list[Trial] = field(default_factory=list)

    @property
    def objectives(self) -> list[tuple[str, bool]]:
        """The tags, and whether more of each is better."""
        return [(tag, True) for tag in self.maximize] + [(tag, False) for tag in self.minimize]

    def write(self, path: Path) -> None:
        durable.replace_json(path, self.to_json())
