"""What a process has in its hands that holds a job's lease: the job, to run it, or the end that it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.home.lease import Lease
from pipeline.home.records import Attempts, End
from pipeline.queue.tickets import Ticket

if TYPE_CHECKING:
    from pipeline.jobfile.resources import Resources
    from pipeline.jobfile.spec import Spec

SWEEP_RETRIES = 1_000  # it goes on with what its trials have come to, whoever was killed


@dataclass
class Claim:
    """A job that this process may run. Holding the lease is the right to move its ticket."""

    ticket: Ticket
    lease: Lease
    attempts: Attempts
    spec: Spec | None = None  # None where this version of the program does not take it, or nobody means to run it

    @property
    def id(self) -> str:
        return self.ticket.id

    @property
    def resources(self) -> Resources:
        """Those of the spec; the defaults where this version of the program does not take it any more."""
        from pipeline.jobfile.resources import Resources  # here: whoever looks at jobs does without

        return self.spec.resources if self.spec else Resources()

    @property
    def is_sweep(self) -> bool:
        """Whether it is a sweep, which runs other jobs, and computes nothing itself."""
        return self.ticket.is_sweep

    @property
    def retry_on(self) -> tuple[tuple[str, ...], int]:
        """The ends of an attempt after which it is tried again, and how often. Of a sweep, the spec has its trials'."""
        if self.attempts.is_in_foreground:
            return (), 0
        return (("lost",), SWEEP_RETRIES) if self.is_sweep else (self.resources.retry_on, self.resources.retries)


@dataclass(frozen=True)
class Ended:
    """A job that ended in the hands of whoever looked at it, without being run."""

    id: str
    end: End


RecordExecutor = Callable[[Claim], Mapping[str, Any]]
"""From a claim to what the record of its next attempt says of who runs it."""


def by_nobody(claim: Claim) -> Mapping[str, Any]:
    """For a claim that is not run."""
    del claim
    return {}
