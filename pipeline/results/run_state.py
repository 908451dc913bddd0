"""How a run ended, or how far it is.

The queue's records count first: they alone know what became of an attempt that was killed. The run's own `result.json`
is what an attempt said of itself. It counts where the queue knows nothing, as of a foreground run of before, only if
no later attempt has begun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Attempts, End, Entry, Progress, Result
from pipeline.queue import views
from pipeline.queue.job_queue import Queue

NO_END = "no end yet"


@dataclass(frozen=True)
class RunState:
    state: str  # how it ended, or pending or running, or that it has no end yet
    why: str
    started_at: str | None
    finished_at: str | None
    epoch: int  # finished
    epochs: int
    step: int
    steps: int  # of all epochs
    metrics: dict[str, float]
    entries: list[Entry]  # of attempts.json; none where the job never was in the queue


def exact_epochs(asked: object, epochs: int) -> float:
    """Returns the epochs of a training, the last one as far as it goes: 9.9 of 10, where a job asks for so many."""
    return asked if isinstance(asked, float) and math.ceil(asked) == epochs else epochs


def read(home: Home, run: RunPaths) -> RunState:
    """Reads the records of a run. Those that are missing or damaged are left out. Raises OSError."""
    queue, job_id = Queue(home), run.root.name
    progress = Progress.read(run.progress) or Progress(0)
    attempts = queue.attempts(job_id)
    ticket = queue.tickets.state(job_id)
    view = views.job(queue, job_id, ticket) if ticket else None
    if view is not None:
        return _with_figures(view, view.outcome or view.state, progress, attempts)
    result = _recorded_end(queue, run, attempts, progress)
    if result is not None:
        return _with_figures(result, result.outcome, progress, attempts)
    why = progress.note or "it has no recorded end: it still runs, or it was killed"
    begun = Result(progress.attempt, "lost", why, started_at=attempts.started_at)
    return _with_figures(begun, NO_END, progress, attempts)


def _recorded_end(queue: Queue, run: RunPaths, attempts: Attempts, progress: Progress) -> Result | None:
    """Returns how a job without a ticket ended: as the queue recorded it, else as its latest attempt did."""
    end = End.read(queue.paths.end(run.root.name))
    if end is not None:
        return end
    entry = attempts.entries[-1] if attempts.entries else {}
    recorded = Result.from_json({"attempt": attempts.number, **entry, "started_at": attempts.started_at})
    result = Result.read(run.result)
    latest = attempts.number or progress.attempt
    return recorded or (result if result is not None and result.attempt >= latest else None)


def _with_figures(ended: views.JobView | Result, state: str, progress: Progress, attempts: Attempts) -> RunState:
    """Adds the figures that the latest attempt told last: what ended it may know less of them."""
    return RunState(
        state,
        ended.why,
        ended.started_at,
        ended.finished_at,
        epoch=max(ended.epoch, progress.epoch),
        epochs=ended.epochs or progress.epochs,
        step=max(ended.step, progress.step),
        steps=progress.steps,
        metrics={**progress.metrics, **ended.metrics},
        entries=attempts.entries,
    )
