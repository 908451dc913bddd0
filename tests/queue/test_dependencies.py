"""Jobs that wait for others: when they are started, when they end without that, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from quick import quick_spec

from pipeline.errors import UsageError
from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Outcome, Result
from pipeline.queue import removal, repair, views
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.drained import is_drained
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import ForeignFile, Ticket


@pytest.fixture
def queue(home: Home) -> Queue:
    return Queue(home)


def ticket(name: str, *after: str) -> Ticket:
    return dataclasses.replace(Ticket.new(quick_spec(name)), after=list(after))


def end(queue: Queue, job_id: str, outcome: Outcome) -> None:
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    assert claim.id == job_id
    queue.end(claim, Result(1, outcome, f"it {outcome}"))
    claim.lease.release()


def test_a_job_is_started_when_those_before_it_have_succeeded(queue: Queue) -> None:
    last, first, second = queue.submit_all([ticket("last", "first", "second"), ticket("first"), ticket("second")])
    assert views.find(queue, last).why == f"waits for {first}, {second}"
    end(queue, first, "succeeded")
    assert views.find(queue, last).why == f"waits for {second}"
    end(queue, second, "succeeded")
    assert views.find(queue, last).why == "waits for a worker"
    assert not is_drained(queue)
    end(queue, last, "succeeded")


def test_it_is_passed_over_by_others_that_may_run(queue: Queue) -> None:
    (first,) = queue.submit_all([ticket("first")])
    running = queue.claim("worker")
    waits, other = queue.submit_all([ticket("waits", "first"), ticket("other")])
    claim = queue.claim("worker")
    assert isinstance(running, Claim)
    assert isinstance(claim, Claim)
    assert (running.id, claim.id) == (first, other)
    assert queue.claim("worker") is None
    assert queue.tickets.state(waits) == "pending"


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "timed_out"])
def test_it_ends_where_one_before_it_did_not_succeed_and_retry_takes_both_up(queue: Queue, outcome: Outcome) -> None:
    first, second, third = queue.submit_all([ticket("first"), ticket("second", "first"), ticket("third", "second")])
    end(queue, first, outcome)
    assert views.find(queue, second).why.endswith(f"has ended as {outcome}; the next worker cancels it")
    ended = queue.claim("worker")
    assert isinstance(ended, Ended)
    why = f"cancelled while it waited: {first}, which it was to run after, has ended as {outcome}"
    assert (ended.id, ended.end.outcome, ended.end.why) == (second, "cancelled", why)
    assert isinstance(queue.claim("worker"), Ended), "and so does what waits for that"
    assert is_drained(queue)
    for job_id in (first, second, third):
        repair.retry(queue, job_id)
    for job_id in (first, second, third):
        end(queue, job_id, "succeeded")


def test_a_name_stands_for_its_latest_job_and_what_is_submitted_with_it_is_the_latest(queue: Queue) -> None:
    old, new = queue.submit_all([ticket("net"), ticket("net")])
    by_name, by_id, by_number = queue.submit_all([ticket("a", "net"), ticket("b", old), ticket("c", "0001")])
    afters = [views.find(queue, job_id).after for job_id in (by_name, by_id, by_number)]
    assert afters == [[new], [old], [old]]
    with_it, latest = queue.submit_all([ticket("d", "net"), ticket("net")])
    assert views.find(queue, with_it).after == [latest], "in whatever order the files are given"
    again, _ = queue.submit_all([ticket("net", "net"), ticket("e")])
    assert views.find(queue, again).after == [latest], "never itself"


@pytest.mark.parametrize(
    ("tickets", "message"),
    [
        ([("b", "nobody")], r"after: no job is called 'nobody'; there are no jobs here yet"),
        ([("net",), ("b", "nte")], r"after: no job is called 'nte'; did you mean 'net'\?"),
        ([("a", "b"), ("b", "a")], r"after: these wait for each other: a, b"),
    ],
)
def test_what_can_never_be_is_refused_and_nothing_is_submitted(
    queue: Queue, tickets: list[tuple[str, ...]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        queue.submit_all([ticket(*each) for each in tickets])
    assert queue.tickets.states() == {}


@pytest.mark.parametrize("gone", ["removed", "in quarantine"])
def test_a_job_that_is_gone_has_not_succeeded(queue: Queue, gone: str) -> None:
    first, second = queue.submit_all([ticket("first"), ticket("second", "first")])
    if gone == "removed":
        queue.paths.ticket("pending", first).unlink()
    else:
        queue.paths.ticket("pending", first).write_text("{")
        repair.repair(queue)
    ended = queue.claim("worker")
    assert isinstance(ended, Ended)
    assert (ended.id, ended.end.outcome) == (second, "cancelled")
    assert ended.end.why.endswith(f"{first}, which it was to run after, is not there any more")


def test_one_that_was_started_has_waited_for_them(queue: Queue) -> None:
    """What it waited for may be removed since; a retry needs it no more."""
    first, second = queue.submit_all([ticket("first"), ticket("second", "first")])
    end(queue, first, "succeeded")
    end(queue, second, "failed")
    removal.remove(queue, first)
    repair.retry(queue, second)
    end(queue, second, "succeeded")


def test_of_jobs_that_are_submitted_together_those_before_are_there_first(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may claim one before the next is there, and whoever submits may be killed in between."""
    made: list[str] = []
    create = durable.create

    def record(path: Path, data: bytes, *, by_way_of: Path) -> None:
        made.append(path.stem)
        create(path, data, by_way_of=by_way_of)

    monkeypatch.setattr(durable, "create", record)
    last, middle, first = queue.submit_all([ticket("last", "middle"), ticket("middle", "first"), ticket("first")])
    assert made == [first, middle, last]
    assert [last, middle, first] == ["last-0001", "middle-0002", "first-0003"], "the ids are as the files were given"


def test_the_id_of_a_job_that_is_gone_is_nobody_elses(queue: Queue) -> None:
    """`a-0001` may be the id of a job, the name of one, and the beginning of the id of a third."""
    gone, other = queue.submit_all([ticket("a"), ticket("a-0001")])
    end(queue, gone, "succeeded")
    removal.remove(queue, gone)
    with pytest.raises(UsageError, match="a-0001: is not there any more"):
        queue.tickets.find(gone)
    with pytest.raises(UsageError, match="a-0001: is not there any more"):
        queue.submit_all([ticket("b", gone)])
    assert queue.tickets.find(other) == other
    assert queue.tickets.find("a-00") == other


def test_nobody_waits_for_what_waits_for_a_hopeless_job(queue: Queue) -> None:
    first, _, _ = queue.submit_all([ticket("first"), ticket("second", "first"), ticket("third", "second")])
    assert is_drained(queue, but_for={first})
    queue.submit(quick_spec("fourth"))
    assert not is_drained(queue, but_for={first})


def test_an_unread_ticket_starts_no_sooner(queue: Queue) -> None:
    """A worker that could not read it at first does not know what it waits for; it is read before it is claimed."""
    first, second = queue.submit_all([ticket("first"), ticket("second", "first")])
    queue.waiting.look()
    queue.waiting._after.clear()
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    assert claim.id == first
    assert queue.claim("worker") is None
    assert queue.tickets.state(second) == "pending"


@pytest.mark.parametrize("after", [["../x"], "first-0001", [1], {"a": 1}])
def test_a_ticket_that_waits_for_what_is_no_id_is_foreign(queue: Queue, after: object) -> None:
    (job_id,) = queue.submit_all([ticket("first")])
    path = queue.paths.ticket("pending", job_id)
    path.write_text(json.dumps({**json.loads(path.read_text()), "after": after}))
    assert isinstance(queue.tickets.read("pending", job_id), ForeignFile)
