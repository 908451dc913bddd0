"""Jobs that wait for others (`after` in a job file): which those are, whether they have ended, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import UsageError
from pipeline.home.ids import by_age, name_of
from pipeline.home.records import WELL
from pipeline.queue.job_records import JobRecords
from pipeline.queue.tickets import Ticket, Tickets
from pipeline.wording import nearest


def resolved(tickets: Tickets, submitted: Sequence[Ticket]) -> list[Ticket]:
    """Tickets that are submitted together, with ids in place of the names that their job files have in `after`.

    Raises UsageError where a job is not known, or some wait for each other.
    """
    if not any(ticket.after for ticket in submitted):
        return list(submitted)
    known = [*tickets.states(), *(ticket.id for ticket in submitted)]
    try:
        found = [dataclasses.replace(ticket, after=ids_of(ticket, tickets, known)) for ticket in submitted]
    except UsageError as error:
        raise UsageError(f"after: {error}") from None
    _require_an_order({ticket.id: ticket.after for ticket in found})
    return found


def ids_of(ticket: Ticket, tickets: Tickets, known: Iterable[str]) -> list[str]:
    """The ids of the jobs that a ticket is to run after: each is the latest of its name. Raises UsageError.

    known: the ids of all jobs, of those that are submitted with it too.
    """
    others = [job_id for job_id in known if job_id != ticket.id]
    return list(dict.fromkeys(_id_of(name, tickets, others) for name in ticket.after))


def _id_of(name: str, tickets: Tickets, known: Sequence[str]) -> str:
    """The latest job of that name, or the one job whose id is, or begins, so."""
    if name in known:
        return name
    if named := [job_id for job_id in known if name_of(job_id) == name]:
        return by_age(named)[-1]
    if not any(job_id.startswith(name) or job_id.endswith(f"-{name}") for job_id in known):
        names = {name_of(job_id) for job_id in known}
        said = nearest(name, names) if names else "; there are no jobs here yet"
        raise UsageError(f"no job is called {name!r}{said}")
    return tickets.find(name)


def _require_an_order(after: Mapping[str, Sequence[str]]) -> None:
    left = dict(after)
    while free := [job_id for job_id, others in left.items() if not left.keys() & set(others)]:
        for job_id in free:
            del left[job_id]
    if left:
        raise UsageError(f"after: these wait for each other: {', '.join(left)}")


class Dependencies:
    """What has become of jobs that others wait for, each looked at once: for one look at the queue."""

    def __init__(self, records: JobRecords) -> None:
        self.records = records
        self.outcomes: dict[str, str | None] = {}  # None: it has not ended

    def open(self, job_ids: Iterable[str]) -> list[str]:
        """Those that have not ended. Raises OSError."""
        return [job_id for job_id in job_ids if self.outcome(job_id) is None]

    def hold(self, job_ids: Iterable[str]) -> bool:
        """Whether a job that waits for them may not be started yet; one that never will is, to be ended."""
        return bool(self.open(job_ids)) and not self.why_never(job_ids)

    def why_never(self, job_ids: Iterable[str]) -> str:
        """Why a job that waits for them will never start; empty where it may. Raises OSError."""
        for job_id in job_ids:
            if (outcome := self.outcome(job_id)) not in (None, *WELL):
                return f"{job_id}, which it was to run after, has ended as {outcome}"
        return ""

    def outcome(self, job_id: str) -> str | None:
        """How it has ended. One that is not there any more, as it was removed, is waited for by nobody."""
        if job_id not in self.outcomes:
            end = self.records.sound_end(job_id)
            is_gone = end is None and self.records.tickets.state(job_id) is None
            self.outcomes[job_id] = end.outcome if end else WELL[0] if is_gone else None
        return self.outcomes[job_id]
