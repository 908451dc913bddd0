"""What a worker asks of an executor, and of an attempt that it has started. Both raise OSError for what may pass."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from pipeline.home.records import Outcome
from pipeline.queue.claims import Claim


class EngineEnd(NamedTuple):
    """How whoever ran an attempt says that it ended, where that is more than an exit status."""

    outcome: Outcome
    why: str


class RunningAttempt(Protocol):
    """A handle on an attempt. The worker that has started it, or taken it up, is the only one that uses it."""

    @property
    def handle(self) -> dict[str, Any]:
        """By what a later worker, and a person, finds it again: for its record."""

    @property
    def outlives_worker(self) -> bool:
        """Whether it goes on when its worker leaves, and a later one takes it up."""

    @property
    def started_at(self) -> float | None:
        """Since when it runs, on the monotonic clock; None while it waits for a place to run at."""

    @property
    def has_run(self) -> bool:
        """Whether it is known to have run, however short."""

    @property
    def waits_for(self) -> str:
        """What it waits for, in words; empty where it runs."""

    @property
    def end(self) -> EngineEnd | None:
        """How it ended, where whoever ran it says that better than its status; None before."""

    def poll(self) -> int | None:
        """The exit status, negative for a signal, as of a process; None while it runs."""

    def ask_to_stop(self) -> None:
        """Have it write a checkpoint and leave. Does not wait."""

    def kill(self) -> None:
        """End it at once, with everything that it has started."""

    def read_log(self, *, to_the_end: bool = False) -> list[str]:
        """The latest lines that it has written since the last call; `to_the_end` once nothing more will come.

        Of very many, some are left out: they are for people who watch. On this machine it keeps the log small, too.
        """

    def used_bytes(self, limit: int) -> int:
        """The memory that it takes, exact where it is more than the limit; 0 where that cannot be told."""

    def describe(self) -> str:
        """Where it runs, in words, for a line that says that it starts; empty where that is plain."""

    def close(self) -> None:
        """Let go of everything that it was given. To be called once, when it has ended or the worker leaves it."""


class Executor(Protocol):
    """Starts attempts of claimed jobs somewhere."""

    name: str  # in the record of each attempt

    @property
    def cluster(self) -> str:
        """Which one of those of that name; in the record too."""

    def record(self, claim: Claim) -> dict[str, Any]:
        """`executor` and `handle`, for the record of an attempt before it starts: by them a later worker finds it."""

    def start(self, claim: Claim) -> RunningAttempt:
        """Start the attempt that the claim's record was opened for. Nothing of it is left where OSError is raised."""

    def tick(self) -> None:
        """Called with each turn of the worker's loop, to say what holds all of its attempts up."""

    def take_up(self, claim: Claim) -> RunningAttempt:
        """Go on watching the attempt that another worker of this kind has started, whatever has become of it."""

    def close(self) -> None:
        """Let go of what the worker's attempts have in common."""
