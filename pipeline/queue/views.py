"""Jobs as they look to a person: a view a job, for tables and for JSON. Looking never writes."""

from __future__ import annotations

import codecs
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.home import attempt_log, durable
from pipeline.home.ids import age_key, name_of
from pipeline.home.lease import Lease
from pipeline.home.paths import STATES, RunPaths
from pipeline.home.records import Attempts, End, Entry, Progress
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

EXIT_CODES = {"succeeded": 0, "failed": 3, "invalid": 3, "cancelled": 4, "timed_out": 5, "lost": 6}
"""Of `submit --wait`, by how the job ended."""

T = TypeVar("T")

POLL_S = 0.3
ALL = 2 * attempt_log.LIMIT_BYTES
LOOKS = 10


@dataclass(frozen=True)
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

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def jobs(queue: Queue, state: str | None = None) -> list[JobView]:
    """All jobs, oldest first, or those in one state."""
    states = [state] if state else [*STATES, "pending"]  # a job may go back there while the others are looked at
    found = {job_id: where for where in states for job_id in queue.tickets.ids(where)}
    views = [job(queue, job_id, found[job_id]) for job_id in sorted(found, key=age_key)]
    return [view for view in views if view]


def job(queue: Queue, job_id: str, state: str) -> JobView | None:
    """One job in a state; None where it has moved on meanwhile, or its ticket is none.

    What the disk does not give of it now, its `why` says.
    """
    try:
        end = End.read(queue.paths.end(job_id)) if state not in ("pending", "running") else None
        ticket = None if end else queue.tickets.read(state, job_id)
    except OSError as error:
        return unreadable(queue, job_id, state, f"it cannot be read now: {durable.in_words(error)}")
    if end is not None:
        run_dir = str(queue.home.run(job_id).root)
        return JobView(**{**vars(end), "id": job_id, "state": state, "run_dir": run_dir})
    return _without_end(queue, ticket, state) if isinstance(ticket, Ticket) else None


def _without_end(queue: Queue, ticket: Ticket, state: str) -> JobView:
    problems: list[str] = []
    attempts = _readable(lambda: queue.attempts(ticket.id), problems) or Attempts()
    progress = _readable(lambda: Progress.read(queue.home.run(ticket.id).progress), problems)
    is_alive = _readable(lambda: Lease.is_held(queue.paths.lease(ticket.id)), problems)
    train = ticket.spec.get("train")
    progress = progress or Progress(0, epochs=train.get("epochs", 0) if isinstance(train, dict) else 0)
    why = _why(state, attempts.latest, progress, is_alive=is_alive is not False)
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
        run_dir=str(queue.home.run(ticket.id).root),
        images_per_second=progress.images_per_second,
        time_left_s=progress.time_left_s,
    )


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
        run_dir=str(queue.home.run(job_id).root),
    )


def _why(state: str, latest: Entry, progress: Progress, *, is_alive: bool) -> str:
    if state == "pending":
        return f"queued again: {latest['why']}" if latest.get("why") else "waits for a worker"
    if state != "running":
        return "has no recorded end; the next worker queues it again"
    if not is_alive:
        return "its worker died; the next worker goes on with it"
    return progress.note or "training"


def find(queue: Queue, prefix: str) -> JobView:
    """The job whose id begins so, or the `latest`. Raises UsageError."""
    job_id = queue.tickets.find(prefix)
    for _ in range(LOOKS):  # it may move between two of them
        view = job(queue, job_id, queue.tickets.state(job_id) or "pending")
        if view is not None:
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


class Log:
    """A job's log, all attempts of it, as it grows."""

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self.positions: dict[Path, int] = {}  # how much of each file was read
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut by the end of a read

    def read_more(self) -> str:
        """What was written since the last call."""
        texts = []
        for path in self.run.logs():
            with contextlib.suppress(FileNotFoundError, durable.NotAPlainFileError):
                fd = durable.open_plain(path)
                with contextlib.closing(os.fdopen(fd)):
                    text, self.positions[path], _ = attempt_log.read_on(fd, self.positions.get(path, 0), ALL)
                texts.append(text)
        return self.decoder.decode(b"".join(texts))
