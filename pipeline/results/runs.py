"""Finding runs by the beginnings of their ids. A run is a folder of HOME/runs that has a spec.

One that a `pipeline run` of before left has no ticket. A ticket need not have a run: its job has not started, or the
folder was removed.
"""

from __future__ import annotations

import contextlib
import os
import re

from pipeline.errors import UsageError
from pipeline.home import sequence
from pipeline.home.ids import ID, age_key, name_of
from pipeline.home.paths import STATES, Home, RunPaths
from pipeline.jobfile import frozen
from pipeline.queue import sweeps
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Tickets, require_prefix

SHOWN = 5  # ids in a message
TIME_OF_BEFORE = re.compile(r"(\d{8})T\d{6}")  # in ids as they were: day and second


def find(home: Home, prefix: str) -> RunPaths:
    """Returns the run whose id begins so, or has that number; `latest` is the newest.

    Raises UsageError where there is not exactly one.
    """
    require_prefix(prefix)
    names = folders(home)
    if prefix in names and home.run(prefix).spec.is_file():
        return home.run(prefix)
    if sequence.was_given(home.queue, prefix) and prefix not in names:
        raise UsageError(_why_none(home, prefix, names))
    begin_so = names if prefix == "latest" else [name for name in names if name.startswith(prefix)]
    begin_so = begin_so or [name for name in names if name.endswith(f"-{prefix}")]  # by its number
    found = [name for name in begin_so if home.run(name).spec.is_file()]
    if not found:
        raise UsageError(_why_none(home, prefix, names))
    named = [name for name in found if ID.fullmatch(name) and name_of(name) == prefix]
    if len(named) == 1:
        return home.run(named[0])
    if len(found) > 1 and prefix != "latest":
        more = "  ...\n" if len(found) > SHOWN else ""
        listed = "\n".join(f"  {name}" for name in found[-SHOWN:])
        raise UsageError(f"{prefix}: {len(found)} runs' ids begin so; give more of it:\n{more}{listed}")
    return home.run(found[-1])


def find_trained(home: Home, prefix: str) -> RunPaths:
    """Returns the same of what has trained a network. Raises UsageError for a sweep, whose trials do that."""
    run = find(home, prefix)
    if is_sweep(run):
        jobs = sweeps.jobs_of(Queue(home), run.root.name)
        example = f", as {jobs[0]}" if jobs else ""
        raise UsageError(f"{run.root.name}: is a sweep; each of its trials is a job with an id of its own{example}")
    return run


def find_all(home: Home, prefixes: list[str]) -> list[RunPaths]:
    """Returns the runs in the order given, each once. None may be that of a sweep."""
    return list({run.root: run for run in (find_trained(home, prefix) for prefix in prefixes)}.values())


def is_sweep(run: RunPaths) -> bool:
    """Whether a run is that of a sweep: by its record, or, where that is gone, by its job file."""
    if os.path.lexists(run.trials):
        return True
    with contextlib.suppress(OSError, ValueError):
        return isinstance(frozen.read_tree(run).get("search"), dict)
    return False


def short_ids(home: Home, ids: list[str]) -> dict[str, str]:
    """Returns what a person can read and type: ids that are short as they are, and the beginnings of those of before.

    Such a one ends after the name, the day or the second, as far as it takes to be the only run's that begins so.
    """
    names = folders(home)
    return {job_id: _shortest(job_id, [name for name in names if name != job_id]) for job_id in ids}


def _shortest(job_id: str, others: list[str]) -> str:
    name = name_of(job_id)
    time = TIME_OF_BEFORE.match(job_id.removeprefix(f"{name}-"))
    if not ID.fullmatch(job_id) or time is None:
        return job_id
    distinct = 1 + max((_in_common(job_id, other) for other in others), default=0)
    nice = (name, f"{name}-{time[1]}", f"{name}-{time[0]}")
    return next((text for text in nice if len(text) >= distinct), job_id[:distinct])


def _in_common(first: str, second: str) -> int:
    """Counts the characters that they have in common at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((length for length, (a, b) in pairs if a != b), min(len(first), len(second)))


def folders(home: Home) -> list[str]:
    """Returns the names in HOME/runs, oldest first."""
    try:
        return sorted(os.listdir(home.runs), key=lambda name: (age_key(name), name))  # noqa: PTH208 - as in tickets.py
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{home.runs}: cannot be read: {error.strerror}") from None


def _why_none(home: Home, prefix: str, names: list[str]) -> str:
    tickets = Tickets(home.queue)
    try:
        jobs = [(job_id, state) for state in STATES for job_id in tickets.ids(state)]
    except OSError as error:
        raise UsageError(f"{error.filename or home.queue.root}: cannot be read: {error.strerror}") from None
    begin_so = sorted((age_key(j), j, s) for j, s in jobs if prefix == "latest" or j.startswith(prefix))
    runs = [name for name in names if home.run(name).spec.is_file()]
    if begin_so:
        _, job_id, state = begin_so[-1]
        if state in ("pending", "running"):
            return f"{job_id}: has not started yet, so there is no run to look at; `pipeline status` says why"
        return f"{job_id}: there is no run: it never started, or {home.run(job_id).root} was removed"
    if not runs:
        return f"{home.runs}: there are no runs here yet; submit a job with `make submit JOB=digits`"
    return f"{prefix}: no run's id begins so; the latest is {runs[-1]}{_nearest_name(prefix, runs)}"


def _nearest_name(wrong: str, runs: list[str]) -> str:
    """Returns a question; nothing where no name is near, or where the name is right and the rest of an id is wrong."""
    import difflib  # here, for what is right needs no remedy

    names = {name_of(name) for name in runs if ID.fullmatch(name)}
    near = difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {near[0]}?" if near and not wrong.startswith(f"{near[0]}-") else ""
