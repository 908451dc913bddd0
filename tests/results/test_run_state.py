"""How a run ended, from records that say different things of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quick import quick_spec

from pipeline.board.writer import Board
from pipeline.home import durable
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import End, Progress, Result
from pipeline.jobfile import frozen
from pipeline.queue.tickets import Ticket
from pipeline.results import report_facts, run_state
from pipeline.results.compare import compare, to_json

FIRST = ("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z")
SECOND = ("2026-01-01T00:02:00.000Z", "2026-01-01T00:05:00.000Z")
STOPPED: dict[str, Any] = {"started_at": FIRST[0], "finished_at": FIRST[1], "outcome": "interrupted", "why": "asked to"}
KILLED: dict[str, Any] = {"started_at": SECOND[0], "finished_at": SECOND[1], "outcome": "lost", "why": "was killed"}


@pytest.fixture
def run(home: Home) -> RunPaths:
    """A run whose first attempt was stopped, and whose second was killed: the first alone says how that went."""
    job_id = "killed-0001"
    run = home.run(job_id)
    frozen.save(run, quick_spec("killed", epochs=3))
    with Board(run.root, first_step=0) as board:
        board.scalars(10, {"test/accuracy": 0.5})
    Result(1, "interrupted", "asked to", 1, 3, 10, {"test/loss": 2.0}, *FIRST).write(run.result)
    durable.replace_json(run.progress, Progress(2, 2, 3, 25, 30, {"test/loss": 1.0}).to_json())
    return run


def leave(path: Path, value: dict[str, Any]) -> None:
    durable.make_folder(path.parent)
    durable.replace_json(path, value)


def leave_attempts(home: Home, run: RunPaths, *entries: dict[str, Any]) -> None:
    leave(home.queue.attempts(run.root.name), {"entries": list(entries), "retries_used": 0})


def leave_ticket(home: Home, run: RunPaths, state: str) -> None:
    spec = quick_spec("killed", epochs=3)
    ticket = Ticket(run.root.name, spec.name, 0, FIRST[0], spec.model_dump(mode="json"))
    leave(home.queue.ticket(state, run.root.name), json.loads(ticket.to_json()))


def leave_end(home: Home, run: RunPaths) -> None:
    end = End(2, "lost", "was killed", 1, 3, 20, {"test/loss": 1.5}, FIRST[0], SECOND[1], id=run.root.name)
    leave(home.queue.end(run.root.name), end.to_json())


def test_the_recorded_end_counts_for_more_than_what_an_earlier_attempt_said(home: Home, run: RunPaths) -> None:
    leave_attempts(home, run, STOPPED, KILLED)
    leave_end(home, run)
    for state in ("failed", None):  # the ticket may have been removed
        if state:
            leave_ticket(home, run, state)
        else:
            home.queue.ticket("failed", run.root.name).unlink()
        found = run_state.read(home, run)
        assert (found.state, found.why) == ("lost", "was killed")
        assert (found.started_at, found.finished_at) == (FIRST[0], SECOND[1])
        assert (found.epoch, found.epochs, found.step, found.steps) == (2, 3, 25, 30), "what it told last"
        assert found.metrics == {"test/loss": 1.5}


def test_where_no_end_is_recorded_the_latest_entry_counts(home: Home, run: RunPaths) -> None:
    leave_attempts(home, run, STOPPED, KILLED)
    found = run_state.read(home, run)
    assert (found.state, found.why, found.started_at, found.finished_at) == ("lost", "was killed", FIRST[0], SECOND[1])
    assert found.metrics == {"test/loss": 1.0}


def test_what_an_earlier_attempt_said_is_not_the_end_of_a_later_one(home: Home, run: RunPaths) -> None:
    leave_attempts(home, run, STOPPED, {"started_at": SECOND[0]})
    found = run_state.read(home, run)
    assert found.state == run_state.NO_END
    assert (found.started_at, found.finished_at) == (FIRST[0], None)
    assert found.metrics == {"test/loss": 1.0}
    home.queue.attempts(run.root.name).unlink()  # as in a copy of the run alone: progress.json is of attempt 2
    assert run_state.read(home, run).state == run_state.NO_END


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_job_that_is_queued_again_has_not_ended(home: Home, run: RunPaths, state: str) -> None:
    leave_attempts(home, run, STOPPED, KILLED)
    leave_ticket(home, run, state)
    found = run_state.read(home, run)
    assert (found.state, found.finished_at) == (state, None)


def test_a_run_in_the_foreground_ended_as_its_own_result_says(home: Home, run: RunPaths) -> None:
    result = Result(1, "succeeded", "trained", 3, 3, 30, {"test/loss": 0.5}, *FIRST)
    result.write(run.result)
    durable.replace_json(run.progress, Progress(1, 3, 3, 30, 30, {"test/loss": 0.5}).to_json())
    found = run_state.read(home, run)
    assert (found.state, found.why, found.started_at, found.finished_at) == ("succeeded", "trained", *FIRST)
    assert (found.epoch, found.metrics, found.entries) == (3, {"test/loss": 0.5}, [])


@pytest.mark.parametrize("name", ["attempts", "end"])
def test_a_damaged_record_is_as_good_as_none(home: Home, run: RunPaths, name: str) -> None:
    leave_attempts(home, run, STOPPED, KILLED)
    leave_end(home, run)
    path = {"attempts": home.queue.attempts, "end": home.queue.end}[name](run.root.name)
    path.write_text("{")
    assert run_state.read(home, run).state == "lost"


def test_compare_and_report_tell_of_the_killed_attempt(home: Home, run: RunPaths) -> None:
    leave_attempts(home, run, STOPPED, KILLED)
    leave_end(home, run)
    leave_ticket(home, run, "failed")
    [one, _] = to_json(compare(home, [run, run], "test/accuracy", say=[].append))["runs"]
    assert (one["state"], one["epoch"], one["seconds"]) == ("lost", 2, 60 + 180)
    facts = report_facts.read(home, run)
    assert (facts.state, facts.why, facts.metrics) == ("lost", "was killed", {"test/loss": 1.5})
    assert [row[4:] for row in report_facts.attempts(facts)] == [["interrupted", "asked to"], ["lost", "was killed"]]
