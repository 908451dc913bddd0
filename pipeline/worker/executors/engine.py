"""What is asked of an engine that runs attempts on other machines: Slurm (`slurm.py`), Ray (`ray.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pipeline.home.records import Outcome
from pipeline.jobfile.resources import Resources


class RefusedError(Exception):
    """The engine will never run a task as it is: an unknown partition, say. The message is for people, on one line."""


class UnreachableError(Exception):
    """The engine does not answer now. What it was asked may have been done all the same."""


class BusyError(Exception):
    """The engine has no place for a task now; it may have one later."""


@dataclass(frozen=True)
class Task:
    """An attempt, as an engine is handed it."""

    name: str  # the job's id and the attempt's number; no other task of any home has it
    command: Sequence[str]
    environment: Mapping[str, str]  # beside what the engine gives
    log: Path  # takes what the attempt writes, at its end
    resources: Resources


@dataclass(frozen=True)
class Seen:
    """A task, as its engine tells it."""

    id: str  # the engine's own, for people
    phase: Literal["waits", "runs", "ended"]
    words: str = ""  # why it waits, or how it ended, in the engine's words
    node: str = ""  # where it runs, or ran
    ran_s: float = 0.0  # for how long it has run
    status: int = 0  # once it has ended: exit status as of a process, negative for a signal
    outcome: Outcome | None = None  # once it has ended, where the engine ended it, or knows better than its status


class Engine(Protocol):
    """Each method is called by one thread alone, and may take seconds. All raise UnreachableError.

    Tasks go by their names: an engine that has lost its memory gives the numbers of old ones to others.
    """

    name: str  # as in the record of each attempt
    cluster: str  # which one of those that it runs: a worker takes up attempts of its own cluster alone

    def submit(self, task: Task) -> str:
        """Hand a task over, and return the engine's id of it. A second task of the name is no further one where the
        engine can tell. Raises RefusedError and BusyError.
        """

    def look(self, names: Sequence[str]) -> Mapping[str, Seen]:
        """What the engine knows of these tasks, by name. Where it knows several of a name, the one that lives."""

    def ask_to_stop(self, name: str) -> None:
        """Signal a task that runs to write a checkpoint and leave, if the engine can do that without killing it."""

    def kill(self, name: str) -> None:
        """End a task at once, whether it waits or runs; nothing happens where there is none."""
