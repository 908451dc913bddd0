"""Jobs as they look to a person: a view a job, for tables and for JSON. Looking never writes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.home import durable
from pipeline.home.ids import by_age, name_of
from pipeline.home.lease import Lease
from pipeline.home.records import FOLDER_OF, Attempts, Progress
from pipeline.queue import back_off
from pipeline.queue.dependencies import Dependencies
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import ForeignFile, Ticket
from pipeline.queue.whereabouts import gpu_of, where_of

EXIT_CODES = {"succeeded": 0, "failed": 3, "invalid": 3, "cancelled": 4, "timed_out": 5, "lost": 6, "pruned": 0}
"""Of `submit --wait`, by how the job ended."""

T = TypeVar("T")

POLL_S = 0.3
LOOKS = 10
ENDED = frozenset(FOLDER_OF.values())  # states
NO_ATTEMPTS = Attempts()  # of every job that was never tried; nobody changes it


@dataclass  # not frozen, which would take as long as to read the ticket
class JobView:
    """A job as it looks now. `state` is the folder of its ticket; `outcome` is None until its end is recorded."""

    id: str
    name: str
    state: str
    priority: int
    attempt: int  # of the latest one; 0 before the first
    outcome: str | None
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    epoch: int  # finished
    epochs: int
    step: int
    metrics: dict[str, float]
    why: str
    run_dir: str
    images_per_second: float = 0.0
    time_left_s: float | None = None
    sweep: str | None = None  # the id of the sweep that it is a trial of, or its own where it is one
    trial: int | None = None  # its number there
    after: Sequence[str] = ()  # the ids of the jobs that are to succeed before it starts; of one that has not ended
    where: str = ""  # the cluster's name for its latest attempt, and the node; empty on this machine
    worker: str = ""  # that has, or had, its latest attempt; in a list of jobs empty of one that has ended
    gpu: str = ""  # that its latest attempt was given: its number and model, or what is known of it; empty on a CPU
    steps: int = 0  # of the whole job; 0 before its training begins

    @property
    def is_sweep(self) -> bool:
        return self.sweep == self.id

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Survey:
    """What a look at all jobs found."""

    jobs: list[JobView] = field(default_factory=list)  # oldest first
    num_earlier: int = 0  # ended jobs that were left out, earlier than those among `jobs`
    foreign: list[ForeignFile] = field(default_factory=list)  # had the name of a ticket
    ids: set[str] = field(default_factory=set)  # of all tickets that were looked at


def survey(queue: Queue, state: str | None = None, *, most_ended: int | None = None) -> Survey:
    """Looks at all jobs, or those in one state; of the ended ones at the latest `most_ended`. Raises OSError.

    The trials of sweeps do not count for that. None that moves meanwhile is left out. Each ticket is read once, and of
    a job that was never started only that.
    """
    states = queue.tickets.states()
    ids = by_age(job_id for job_id, where in states.items() if state in (None, where))
    recorded = {*durable.names_in(queue.paths.jobs), *durable.names_in(queue.home.runs)}
    durable.expect(sum(most_ended is None or states[job_id] not in ENDED for job_id in ids))
    found, num_ended, num_earlier = Survey(), 0, 0
    others = Dependencies(queue.records, {job_id for job_id, where in states.items() if where not in ENDED})
    for job_id in reversed(ids):
        if num_ended == most_ended and states[job_id] in ENDED:
            num_earlier += 1
            continue
        view = _follow(queue, job_id, states[job_id], is_recorded=job_id in recorded, others=others)
        found.ids.add(job_id)
        if isinstance(view, ForeignFile):
            found.foreign.append(view)
        elif view is not None and state in (None, view.state):
            found.jobs.append(view)
            num_ended += view.outcome is not None and view.trial is None
    found.jobs.reverse()
    found.foreign.reverse()
    return dataclasses.replace(found, num_earlier=num_earlier)


def jobs(queue: Queue, state: str | None = None) -> list[JobView]:
    """All jobs, oldest first, or those in one state."""
    return survey(queue, state).jobs


def job(queue: Queue, job_id: str, state: str) -> JobView | None:
    """One job in a state; None where it has moved on meanwhile, or its ticket is none.

    What the disk does not give of it now, its `why` says.
    """
    view = _look(queue, job_id, state)
    return view if isinstance(view, JobView) else None


def _follow(
    queue: Queue, job_id: str, state: str | None, *, is_recorded: bool = True, others: Dependencies | None = None
) -> JobView | ForeignFile | None:
    """One job, wherever it goes while it is looked at; None where its ticket is gone. Raises OSError."""
    for _ in range(LOOKS):
        if state is None:
            return None
        view = _look(queue, job_id, state, is_recorded=is_recorded, others=others)
        if view is not None:
            return view
        state, is_recorded = queue.tickets.state(job_id), True
    return None


def _look(
    queue: Queue, job_id: str, state: str, *, is_recorded: bool = True, others: Dependencies | None = None
) -> JobView | ForeignFile | None:
    """One job in a state; None where it has moved on.

    is_recorded: whether there may be more of it than its ticket. others: what is known of jobs that others wait for.
    """
    try:
        end = queue.records.sound_end(job_id) if state in ENDED else None
        ticket = None if end else queue.tickets.read(state, job_id)
    except OSError as error:
        return unreadable(queue, job_id, state, f"it cannot be read now: {durable.in_words(error)}")
    if end is not None:
        return JobView(**{**vars(end), "id": job_id, "state": state, "run_dir": queue.home.run_text(job_id)})
    if not isinstance(ticket, Ticket):
        return ticket
    return _without_end(queue, ticket, state, others or Dependencies(queue.records), is_recorded=is_recorded)


def _without_end(queue: Queue, ticket: Ticket, state: str, others: Dependencies, *, is_recorded: bool) -> JobView:
    problems: list[str] = []
    attempts, progress, is_alive = NO_ATTEMPTS, None, True
    if is_recorded or state != "pending":
        attempts = _readable(lambda: queue.attempts(ticket.id), problems) or attempts
        progress = _readable(lambda: Progress.read(queue.home.run(ticket.id).progress), problems)
        is_alive = _readable(lambda: Lease.is_held(queue.paths.lease(ticket.id)), problems) is not False
        _readable(lambda: back_off.must_wait(queue.paths.wait(ticket.id)), problems)  # else it is claimed by nobody
    progress = progress or _before_it_began(_epochs(ticket))
    where = where_of(attempts.latest)
    why = _why(state, attempts, progress, is_alive=is_alive)
    if ticket.after and state == "pending" and not attempts.number:
        why = _readable(lambda: _why_held(ticket, others), problems) or why
    return JobView(
        id=ticket.id,
        name=ticket.name,
        state=state,
        priority=ticket.priority,
        attempt=attempts.number,
        outcome=None,
        submitted_at=ticket.submitted_at,
        started_at=attempts.started_at,
        finished_at=None,
        epoch=progress.epoch,
        epochs=progress.epochs,
        step=progress.step,
        metrics=progress.metrics,
        why="; ".join([why, *problems]),
        run_dir=queue.home.run_text(ticket.id),
        images_per_second=progress.images_per_second,
        time_left_s=progress.time_left_s,
        sweep=ticket.sweep_id,
        trial=ticket.trial,
        where=where,
        after=ticket.after,
        worker=attempts.latest.get("worker", ""),
        gpu=gpu_of(attempts.latest),
        steps=progress.steps,
    )


def _epochs(ticket: Ticket) -> int:
    """How many it asks for; 0 of a sweep, and where its spec, which nobody has validated here, does not say."""
    train: Any = ticket.spec.get("train")
    epochs: Any = train.get("epochs") if isinstance(train, dict) else None
    is_number = isinstance(epochs, (int, float)) and not isinstance(epochs, bool) and math.isfinite(epochs)
    return math.ceil(epochs) if is_number and not ticket.is_sweep else 0


@functools.cache
def _before_it_began(epochs: int) -> Progress:
    """One for all jobs that ask for so many: to make one each takes a tenth of the time of `status` over 100,000."""
    return Progress(0, epochs=epochs)


def _readable(read: Callable[[], T], problems: list[str]) -> T | None:
    """What is read; None, and a line in `problems`, where the disk does not give it now."""
    try:
        return read()
    except OSError as error:
        problems.append(f"a record cannot be read now: {durable.in_words(error)}")
        return None


def unreadable(queue: Queue, job_id: str, state: str, why: str) -> JobView:
    return JobView(
        id=job_id,
        name=name_of(job_id),
        state=state,
        priority=0,
        attempt=0,
        outcome=None,
        submitted_at="",
        started_at=None,
        finished_at=None,
        epoch=0,
        epochs=0,
        step=0,
        metrics={},
        why=why,
        run_dir=queue.home.run_text(job_id),
    )


def _why_held(ticket: Ticket, others: Dependencies) -> str:
    """Why the jobs that it waits for keep it from being started; empty where they do not."""
    if never := others.why_never(ticket.after):
        return f"{never}; the next worker cancels it"
    waits_for = others.open(ticket.after)
    return f"waits for {', '.join(waits_for)}" if waits_for else ""


def _why(state: str, attempts: Attempts, progress: Progress, *, is_alive: bool) -> str:
    latest = attempts.latest
    if state == "pending":
        return f"queued again: {latest['why']}" if latest.get("why") else "waits for a worker"
    if state != "running":
        return "has no recorded end; the next worker queues it again"
    if attempts.is_elsewhere:
        said = progress.note or f"training, {where_of(latest)}"
        return said if is_alive else f"{said}; no worker watches it: `pipeline worker --on {latest.get('executor')}`"
    if attempts.is_in_foreground:
        said = f"{progress.note or 'training'}, in the foreground"
        return said if is_alive else "its process died; `pipeline run --resume` goes on with it"
    if not is_alive:
        return "its worker died; the next worker goes on with it"
    return progress.note or "training"


def look(queue: Queue, job_id: str) -> JobView | None:
    """One job, wherever it is; None where its ticket is none, or gone. Raises OSError."""
    view = _follow(queue, job_id, queue.tickets.state(job_id))
    return view if isinstance(view, JobView) else None


def find(queue: Queue, prefix: str) -> JobView:
    """The job whose id begins so, or the `latest`. Raises UsageError."""
    job_id = queue.tickets.find(prefix)
    view = _follow(queue, job_id, queue.tickets.state(job_id))
    if isinstance(view, JobView):
        with contextlib.suppress(OSError):  # its row says what cannot be read
            latest = queue.attempts(job_id).latest
            view.where, view.worker, view.gpu = where_of(latest), latest.get("worker", ""), gpu_of(latest)
        return view
    raise UsageError(f"{job_id}: its ticket cannot be read; `pipeline status` says what is in quarantine")


def changes(queue: Queue, job_id: str) -> Iterator[JobView]:
    """The job, again and again until it has ended; the last one given is its end."""
    while True:
        view = find(queue, job_id)
        yield view
        if view.outcome is not None:
            return
        time.sleep(POLL_S)
