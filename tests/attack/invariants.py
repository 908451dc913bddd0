"""What holds of a home whatever was done to it, once the next worker has been there."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Collection, Iterator

from pipeline.cli.app import make_app
from pipeline.errors import PipelineError
from pipeline.home.paths import STATES, Home
from pipeline.home.records import FOLDER_OF, End
from pipeline.queue.job_queue import Queue

ENDED = ("done", "failed", "cancelled")


def check(home: Home, acknowledged: Collection[str], *, damaged: Collection[str] = ()) -> list[str]:
    """What is violated, in words; nothing if all is well.

    acknowledged: ids that somebody was told of. damaged: those whose ticket was destroyed, which may be in quarantine.
    """
    found = {state: Queue(home).tickets.ids(state) for state in STATES}
    known = dict.fromkeys([*acknowledged, *(job_id for ids in found.values() for job_id in ids)])
    violations = []
    for job_id in known:
        states = [state for state in STATES if job_id in found[state]]
        if not states and job_id in damaged:
            continue
        violations += [f"{job_id} is in {states or 'no state'}"] if len(states) != 1 else _end(home, job_id, states[0])
    return violations + looks(home, [job_id for job_id in known if job_id not in damaged])


def is_drained(home: Home, *, but_for: Collection[str] = ()) -> list[str]:
    """That nothing waits or runs any more."""
    left = {state: set(Queue(home).tickets.ids(state)).difference(but_for) for state in ("pending", "running")}
    return [f"it did not drain: {left}"] if any(left.values()) else []


def _end(home: Home, job_id: str, state: str) -> Iterator[str]:
    """One end: recorded where the job has ended, and the same as the folder says."""
    end = End.read(home.queue.end(job_id))
    if end is None and state in ENDED:
        yield f"{job_id} is {state} and has no recorded end"
    if end is not None and FOLDER_OF[end.outcome] != state:
        yield f"{job_id} is {state}, and its recorded end is {end.outcome}"


def looks(home: Home, job_ids: Collection[str]) -> list[str]:
    """That `status` and `show` answer, and tell of every job."""
    violations, told = [], ""
    for words in (["status"], ["status", "--all", "--json"], *(["show", job_id] for job_id in job_ids)):
        code, said = command(home, *words)
        if code != 0:
            violations.append(f"`pipeline {' '.join(words)}` does not answer: {said}")
        told = said if "--json" in words else told
    if not violations:
        violations += [
            f"`status` does not tell of {lost}" for lost in set(job_ids) - {job["id"] for job in json.loads(told)}
        ]
    return violations


def command(home: Home, *words: str) -> tuple[int, str]:
    """The command in this process: its exit code, and what it printed. Whatever it should not raise is code 70."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            make_app(words)(["--home", str(home.root), *words], standalone_mode=False)
        except PipelineError as error:
            return error.exit_code, str(error)
        except Exception as error:  # noqa: BLE001 - a traceback, for whoever has typed it
            return 70, f"{type(error).__name__}: {error}"
    return 0, out.getvalue()
