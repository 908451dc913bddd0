"""Jobs that wait for others (`after` in a job file): which those are, whether they have ended, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence

from pipeline.errors import UsageError
from pipeline.home import sequence
from pipeline.home.ids import by_age, name_of
from pipeline.home.records import WELL
from pipeline.queue.job_records import JobRecords
from pipeline.queue.tickets import Ticket, Tickets
from pipeline.wording import nearest

GONE = "gone"


def resolved(tickets: Tickets, submitted: Sequence[Ticket]) -> list[Ticket]:
    """Tickets that are submitted together, with ids in place of the names that their job files have in `after`.

    They are given in an order in which none comes before one that it waits for. Raises UsageError where a job is not
    known, or some wait for each other.
    """
    if not any(ticket.after for ticket in submitted):
        return list(submitted)
    known = [*tickets.states(), *(ticket.id for ticket in submitted)]
    try:
        found = [dataclasses.replace(ticket, after=ids_of(ticket, tickets, known)) for ticket in submitted]
    except UsageError as error:
        raise UsageError(f"after: {error}") from None
    by_id = {ticket.id: ticket for ticket in found}
    return [by_id[job_id] for job_id in _in_order({ticket.id: ticket.after for ticket in found})]


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
    if sequence.was_given(tickets.paths, name):
        raise UsageError(f"{name}: is not there any more")
    if named := [job_id for job_id in known if name_of(job_id) == name]:
        return by_age(named)[-1]
    if not any(job_id.startswith(name) or job_id.endswith(f"-{name}") for job_id in known):
        names = {name_of(job_id) for job_id in known}
        said = nearest(name, names) if names else "; there are no jobs here yet"
        raise UsageError(f"no job is called {name!r}{said}")
    return tickets.find(name)


def _in_order(after: Mapping[str, Sequence[str]]) -> list[str]:
    found: list[str] = []
    left = dict(after)
    while free := [job_id for job_id, others in left.items() if not left.keys() & set(others)]:
        found += free
        for job_id in free:
            del left[job_id]
    if left:
        raise UsageError(f"after: these wait for each other: {', '.join(map(name_of, left))}")
    return found


class Dependencies:
    """What has become of jobs that others wait for, each looked at once: for one look at the queue.

    waiting: the jobs that are known to wait, which need not be looked for.
    """

    def __init__(self, records: JobRecords, waiting: Container[str] = ()) -> None:
        self.records, self.waiting = records, waiting
        self._outcomes: dict[str, str | None] = {}  # None: it has not ended
        self._holds: dict[tuple[str, ...], bool] = {}

    def open(self, job_ids: Iterable[str]) -> list[str]:
        """Those that have not ended. Raises OSError."""
        return [job_id for job_id in job_ids if self.outcome(job_id) is None]

    def hold(self, job_ids: Sequence[str]) -> bool:
        """Whether a job that waits for them may not be started yet; one that never will is, to be ended."""
        key = tuple(job_ids)
        if key not in self._holds:
            self._holds[key] = bool(self.open(key)) and not self.why_never(key)
        return self._holds[key]

    def why_never(self, job_ids: Iterable[str]) -> str:
        """Why a job that waits for them will never start; empty where it may. Raises OSError."""
        for job_id in job_ids:
            outcome = self.outcome(job_id)
            if outcome == GONE:
                return f"{job_id}, which it was to run after, is not there any more"
            if outcome not in (None, *WELL):
                return f"{job_id}, which it was to run after, has ended as {outcome}"
        return ""

    def outcome(self, job_id: str) -> str | None:
        """How it has ended; `gone` where it is not there any more, as one that was removed, or is in quarantine."""
        if job_id not in self._outcomes:
            self._outcomes[job_id] = None if job_id in self.waiting else self._look(job_id)
        return self._outcomes[job_id]

    def _look(self, job_id: str) -> str | None:
        tickets = self.records.tickets
        if end := self.records.sound_end(job_id):
            return end.outcome
        is_there = tickets.state(job_id) is not None or job_id in tickets.states()  # it may have moved between looks
        return None if is_there else GONE
