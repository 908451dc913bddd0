"""The jobs that wait, in the order in which they are claimed, as one process remembers them.

Each ticket is read once when it is first seen, and nothing of it is kept but its priority, whether it is a sweep, and
what it waits for: 100,000 jobs may wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.home import durable
from pipeline.home.ids import by_age
from pipeline.queue.tickets import ForeignFile, Ticket, Tickets, is_ticket_name


@dataclass
class Waiting:
    tickets: Tickets
    _foreign: dict[str, ForeignFile] = field(default_factory=dict)  # by file name: what was no ticket at the last look
    _priorities: dict[str, int] = field(default_factory=dict)  # by the ticket's file name; the lowest goes first
    _order: list[str] = field(default_factory=list)  # those names
    _unread: set[str] = field(default_factory=set)  # of them: could not be read yet
    _sweeps: set[str] = field(default_factory=set)  # of them
    _after: dict[str, list[str]] = field(default_factory=dict)  # of those that wait for other jobs

    def __iter__(self) -> Iterator[str]:
        """The ids, first the one that is to be claimed first."""
        return (name[:-5] for name in self._order)

    def sweeps(self) -> list[str]:
        """The ids of sweeps alone, in the same order."""
        return [name[:-5] for name in self._order if name in self._sweeps] if self._sweeps else []

    def after(self, job_id: str) -> list[str]:
        """The ids of the jobs that a job waits for."""
        return self._after.get(f"{job_id}.json", []) if self._after else []

    def __contains__(self, job_id: object) -> bool:
        """Whether a ticket of that id was read, and need not be again; it may have been found to be none."""
        name = f"{job_id}.json"
        return name in self._priorities or name in self._foreign

    @property
    def foreign(self) -> list[ForeignFile]:
        """What had the name of a ticket at the last look, and is none."""
        return list(self._foreign.values())

    def look(self) -> None:
        """See who waits now. Raises OSError where the folder cannot be listed."""
        names = self.tickets.names("pending")
        new = [name for name in names if name not in self._priorities]
        if len(names) - len(new) < len(self._priorities):
            there = set(names)
            self._order = [name for name in self._order if name in there]
            self._priorities = {name: self._priorities[name] for name in self._order}
            self._sweeps &= there
            self._after = {name: after for name, after in self._after.items() if name in there}
        self._foreign = {}
        durable.expect(len(new))
        self._unread = self._unread.intersection(names) if self._unread else set()
        for name in [*new, *self._unread]:
            if is_ticket_name(name):
                self._read(name)
        if len(self._order) < len(self._priorities):
            self._order = [f"{job_id}.json" for job_id in by_age(name[:-5] for name in self._priorities)]
            self._order.sort(key=self._priorities.__getitem__)

    def _read(self, name: str) -> None:
        try:
            ticket = self.tickets.read("pending", name[:-5])
        except OSError:  # asked for again with the next look, and when its turn comes
            self._priorities.setdefault(name, 0)
            self._unread.add(name)
            return
        if name in self._unread:
            self._unread.remove(name)
            self.forget(name[:-5])
        if isinstance(ticket, Ticket):
            self._priorities[name] = -ticket.priority
            if ticket.is_sweep:
                self._sweeps.add(name)
            if ticket.after:
                self._after[name] = ticket.after
        elif ticket is not None:
            self._foreign[name] = ticket

    def forget(self, job_id: str) -> None:
        """Have a ticket read again with the next look."""
        self._priorities.pop(f"{job_id}.json", None)
        self._order = [name for name in self._order if name in self._priorities]
