"""Tickets and the folders that they lie in. A ticket is one submitted, validated, frozen copy of a job file.

What lies in a state's folder and is not a whole ticket is foreign: it stops nothing, and a worker's repair moves it
to `quarantine/` with a `.why` file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import re
import secrets
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import OwnCodeError, Problem, QueueError, SpecError, UsageError
from pipeline.home import durable, sequence
from pipeline.home.ids import ID, by_age, name_of
from pipeline.home.paths import MODULE, STATES, QueuePaths
from pipeline.home.records import now

if TYPE_CHECKING:
    from pipeline.jobfile.spec import Spec

MAX_MODULE_NAME = 200  # characters, of the whole path
TICKET = re.compile(ID.pattern + r"\.json")
MAX_TICKET_BYTES = 1024 * 1024
MAX_QUARANTINED_NAME = 150  # characters of a foreign file's name that are kept
MAX_REASON = 500
LOOKS = 10  # at folders that tickets move between


@dataclass(frozen=True)
class Ticket:
    """One submitted, validated, frozen copy of a job file."""

    id: str  # empty until it is submitted
    name: str
    priority: int
    submitted_at: str
    spec: dict[str, Any]  # validated when submitted; the worker validates it again before it runs it
    modules: dict[str, str] = field(default_factory=dict)  # the user's own Python files that it needs, by their paths
    sweep: str | None = None  # the id of the sweep that it is a trial of
    trial: int | None = None  # its number there, from 0
    after: list[str] = field(
        default_factory=list
    )  # the ids of the jobs that are to succeed first; names until it is submitted

    @classmethod
    def new(cls, spec: Spec) -> Ticket:
        """Makes the ticket of a job; `Queue.submit` gives it its id."""
        frozen = spec.model_dump(mode="json")
        return cls("", spec.name, spec.resources.priority, now(), frozen, spec.own_files(), after=list(spec.after))

    @classmethod
    def of_sweep(cls, spec: Spec, written: Mapping[str, Any], modules: Mapping[str, str]) -> Ticket:
        """Makes the ticket of a sweep: its job file as it was written, for a trial may name another model with others.

        modules: the files that its further trials need.
        """
        return dataclasses.replace(cls.new(spec), spec=dict(written), modules={**modules, **spec.own_files()})

    @property
    def is_sweep(self) -> bool:
        return self.spec.get("search") is not None

    @property
    def sweep_id(self) -> str | None:
        """The sweep that it is a trial of, or itself where it is one."""
        return self.id if self.is_sweep else self.sweep

    def to_json(self) -> bytes:
        """Raises QueueError where it would be too large to be read again."""
        may_lack: dict[str, Any] = {"modules": {}, "sweep": None, "trial": None, "after": []}
        fields = {name: v for name, v in vars(self).items() if name not in may_lack or v != may_lack[name]}
        content = durable.to_json(fields)
        if len(content) > MAX_TICKET_BYTES:
            raise QueueError(f"{self.name}: it is too large for a ticket, with {len(content):,} bytes")
        return content

    @classmethod
    def parse(cls, data: bytes, job_id: str) -> Ticket:
        """Raises ValueError with what is wrong."""
        value = durable.parse_json(data)
        try:
            required = {name: value[name] for name in ("id", "name", "priority", "submitted_at", "spec")}
            further = {name: value[name] for name in ("modules", "sweep", "trial", "after") if name in value}
            ticket = cls(**required, **further)
        except (TypeError, KeyError, IndexError):
            raise ValueError("not a ticket") from None
        if ticket.id != job_id:
            raise ValueError(f"it says that it is {ticket.id!r}")
        given = tuple(type(value) for value in list(vars(ticket).values())[1:])
        of_trial = given[5:7] in ((str, int), (type(None), type(None)))
        if (
            given[:5] != (str, int, str, dict, dict)
            or not of_trial
            or given[7:] != (list,)
            or not all(type(text) is str for text in (*ticket.modules.values(), *ticket.after))
        ):
            raise ValueError("a field of it is of the wrong kind")
        if ticket.sweep is not None and not ID.fullmatch(ticket.sweep):
            raise ValueError("it is of a sweep whose name none can have")
        if not all(ID.fullmatch(job_id) for job_id in ticket.after):
            raise ValueError("it is to run after a job whose name none can have")
        if not all(MODULE.fullmatch(name) and len(name) <= MAX_MODULE_NAME for name in ticket.modules):
            raise ValueError("a module has a name that none can have")
        return ticket

    def validated(self) -> Spec:
        """The spec. Raises SpecError where this version of the program does not take it any more."""
        from pydantic_core import ValidationError  # here: whoever looks at jobs does without, and answers sooner

        from pipeline.jobfile import frozen, own_modules
        from pipeline.jobfile.spec import Spec

        try:
            with own_modules.using(own_modules.Modules.frozen(self.modules)):
                spec = Spec.model_validate_json(json.dumps(frozen.upgraded(self.spec)))
            spec.own_files()
        except ValidationError as error:
            said = error.errors(include_input=False)[0]["msg"]
        except Exception as error:  # noqa: BLE001 - whatever the user's own files make of a reader: it is this job's alone
            said = f"{error}" if isinstance(error, OwnCodeError) else f"{type(error).__name__}: {error}"
        else:
            return spec
        why = f"this version of the program does not take its spec: {said}"
        raise SpecError([Problem(self.id, 0, "", why)])


@dataclass(frozen=True)
class ForeignFile:
    """What lies where tickets lie and is none."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{_printable(self.path)}: {self.why}"


@dataclass(frozen=True)
class Tickets:
    """The tickets of one queue, by the state that their folder stands for. Looking at them changes nothing."""

    paths: QueuePaths

    def ids(self, state: str) -> list[str]:
        """The ids of the tickets in a state's folder. Raises OSError where it cannot be listed."""
        return [name[:-5] for name in filter(TICKET.fullmatch, self.names(state))]

    def names(self, state: str) -> list[str]:
        """Everything that lies in a state's folder. Raises OSError where it cannot be listed."""
        return durable.names_in(self.paths.state(state))

    def states(self) -> dict[str, str]:
        """The state of every ticket, by its id; no ticket that moves meanwhile is left out.

        Raises OSError where a folder cannot be listed.
        """
        found: dict[str, str] = {}
        for look in range(LOOKS):
            num_before = len(found)
            for state in STATES:
                found |= dict.fromkeys(self.names(state), state)
            if look and len(found) == num_before:  # nothing new: what moved against their order was found by now
                break
        return {name[:-5]: found[name] for name in filter(TICKET.fullmatch, found)}

    def read(self, state: str, job_id: str) -> Ticket | ForeignFile | None:
        """The ticket; what is wrong with the file where it is none; None where it has moved on.

        Raises OSError where the disk or the system does not let it be read now, which makes no ticket foreign.
        """
        path = self.paths.ticket_text(state, job_id)
        try:
            return Ticket.parse(durable.read_small(path, limit=MAX_TICKET_BYTES), job_id)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, RecursionError) as error:
            return ForeignFile(Path(path), f"it cannot be read: {error}")

    def foreign(self, known: Container[str] = ()) -> list[ForeignFile]:
        """Everything that is no ticket: by its name in any state, by its content where jobs wait or run.

        known: ids of tickets that were read already, and are not read again. What cannot be read now is left out.
        """
        found = []
        for state in STATES:
            for name in self.names(state):
                if not is_ticket_name(name):
                    found.append(ForeignFile(self.paths.state(state) / name, "its name is not that of a ticket"))
                elif state in ("pending", "running") and name[:-5] not in known:
                    with contextlib.suppress(OSError):
                        file = self.read(state, name[:-5])
                        found += [file] if isinstance(file, ForeignFile) else []
        return found

    def quarantine(self, path: Path, why: str) -> bool:
        """Moves a file out of the way, with the reason beside it; whether it went: else it stays where it is.

        Out of a run, which may be on another volume than the queue, it may only go as far as to a hidden name there.
        """
        name = re.sub(r"[^A-Za-z0-9._-]", "_", path.name)[:MAX_QUARANTINED_NAME]
        target = self.paths.quarantine / f"{name}.{secrets.token_hex(3)}"
        reason = target.with_name(f"{target.name}.why")
        line = f"{_printable(path)}: {why[:MAX_REASON]}"
        try:
            _write_line(reason, line)
            try:
                path.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                path.rename(path.with_name(f".{target.name}"))
                _write_line(reason, f"{line}; it is on another volume, and is called .{target.name} there now")
        except OSError:
            with contextlib.suppress(OSError):
                reason.unlink()
            return False
        return True

    def quarantined(self) -> list[str]:
        """A line for each file in quarantine: where it lay, and why it is here."""
        lines = []
        for path in sorted(self.paths.quarantine.glob("*.why")):
            with contextlib.suppress(OSError, ValueError):  # a folder, say, or gone meanwhile
                lines.append(durable.read_small(path, limit=MAX_TICKET_BYTES).decode(errors="replace").strip())
        return lines

    def state(self, job_id: str) -> str | None:
        """The state of a ticket; None where there is none of that id. Raises OSError where the disk does not say."""
        for _ in range(3):  # another look finds a ticket that moved against the order of this one
            for state in STATES:
                if durable.is_there(self.paths.ticket(state, job_id)):
                    return state
        return None

    def move(self, job_id: str, source: str, target: str) -> None:
        there = self.paths.ticket(target, job_id)
        try:
            self.paths.ticket(source, job_id).rename(there)
        except FileNotFoundError:
            return
        except IsADirectoryError:  # for the next try
            self.quarantine(there, "it is a folder, and lies where a ticket goes")
            raise
        durable.fsync_folder(self.paths.state(target))

    def find(self, prefix: str) -> str:
        """The id that begins so; `latest` is the newest. Raises UsageError where there is none, or more than one.

        A name that one job alone has is meant as that: of a sweep's trials, `digits_sweep-2` is the third, and not 22.
        Where no id begins so, the number at the end of one will do: `3f2a`. The whole id of a job that is gone is no
        beginning of another's.
        """
        require_prefix(prefix)
        if ID.fullmatch(prefix) and self.state(prefix):
            return prefix
        ids = by_age(self.states())
        if sequence.was_given(self.paths, prefix) and prefix not in ids:
            raise UsageError(f"{prefix}: is not there any more")
        if not ids:
            raise UsageError(f"{self.paths.root}: there are no jobs here yet")
        if prefix == "latest":
            return ids[-1]
        found = [prefix] if prefix in ids else [job_id for job_id in ids if job_id.startswith(prefix)]
        found = found or [job_id for job_id in ids if job_id.endswith(f"-{prefix}")]
        if not found:
            raise UsageError(f"{prefix}: no job's id begins so; the latest is {ids[-1]}")
        found = [job_id for job_id in found if name_of(job_id) == prefix] or found
        if len(found) > 1:
            raise UsageError(f"{prefix}: {len(found)} ids begin so, the latest is {found[-1]}; give more of it")
        return found[0]


def require_prefix(prefix: str) -> None:
    """Raises UsageError for an empty one: so a variable comes that is not set, and every id begins so."""
    if not prefix:
        raise UsageError("the id is empty; give the beginning of one, or latest")


def is_ticket_name(name: str) -> bool:
    return TICKET.fullmatch(name) is not None


def _write_line(path: Path, line: str) -> None:
    durable.replace(path, lambda file: file.write(f"{line}\n".encode(errors="replace")))


def _printable(path: Path) -> str:
    """Returns the path on one line, whatever its name is made of."""
    return str(path) if str(path).isprintable() else ascii(str(path))
