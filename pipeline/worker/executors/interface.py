"""What a worker asks of an executor, and of an attempt that it has started. Both raise OSError for what may pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pipeline.queue.claims import Claim


class RunningAttempt(Protocol):
    """A handle on an attempt. The worker that has started it is the only one that uses it."""

    def poll(self) -> int | None:
        """The exit status, negative for a signal, as of a process; None while it runs."""

    def ask_to_stop(self) -> None:
        """Have it write a checkpoint and leave. Does not wait."""

    def kill(self) -> None:
        """End it at once, with everything that it has started."""

    def read_log(self, *, to_the_end: bool = False) -> list[str]:
        """The latest lines that it has written since the last call; `to_the_end` once nothing more will come.

        Of very many, some are left out: they are for people who watch. It is what keeps the log small, too.
        """

    def used_bytes(self, limit: int) -> int:
        """The memory that it takes, exact where it is more than the limit; 0 where that cannot be told."""

    def describe(self) -> str:
        """Where it runs, in words, for a line that says that it starts; empty where that is plain."""

    def close(self) -> None:
        """Let go of everything that it was given. To be called once, when it has ended."""


class Executor(Protocol):
    """Starts attempts of claimed jobs somewhere."""

    name: str  # in the record of each attempt

    def record(self, job_id: str) -> dict[str, Any]:
        """`executor` and `handle`, for the record of an attempt before it starts: by them a later worker can ask."""

    def is_alive(self, entry: Mapping[str, Any]) -> bool:
        """Whether the attempt that an entry of attempts.json is about still runs, wherever its worker is."""

    def start(self, claim: Claim) -> RunningAttempt:
        """Start the attempt that the claim's record was opened for. Nothing of it is left where OSError is raised."""
