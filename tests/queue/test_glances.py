"""Looking at a home again and again."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from quick import quick_spec

from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.queue.claims import Claim
from pipeline.queue.glances import Watcher
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(Home(tmp_path / "home"))


def run(queue: Queue) -> Claim:
    claim = queue.claim("test")
    assert isinstance(claim, Claim)
    return claim


def end(queue: Queue, claim: Claim) -> None:
    queue.end(claim, Result(1, "succeeded", "trained"))
    claim.lease.release()


def test_a_home_without_a_queue_has_no_jobs(queue: Queue) -> None:
    glance = Watcher(queue).look(most=10)
    assert (sum(glance.counts.values()), glance.running, glance.waiting, glance.ended) == (0, [], [], [])
    assert not queue.paths.root.exists(), "looking never writes"


def test_each_look_sees_what_moved_since_the_last(queue: Queue) -> None:
    watcher = Watcher(queue)
    ids = queue.submit_all([quick_spec()] * 3)
    assert [job.id for job in watcher.look(most=2).waiting] == ids[:2]
    claim = run(queue)
    glance = watcher.look(most=10)
    assert ([job.id for job in glance.running], [job.id for job in glance.waiting]) == (ids[:1], ids[1:])
    end(queue, claim)
    glance = watcher.look(most=10)
    assert (glance.running, [job.id for job in glance.ended]) == ([], ids[:1])
    assert dict(glance.counts) == {"pending": 2, "running": 0, "done": 1, "failed": 0, "cancelled": 0}


def test_the_next_of_those_that_wait_is_the_one_of_the_highest_priority(queue: Queue) -> None:
    first, urgent = queue.submit_all([quick_spec(), quick_spec(resources={"priority": 3})])
    assert [job.id for job in Watcher(queue).look(most=5).waiting] == [urgent, first]


def test_trials_that_have_ended_leave_the_room_to_other_jobs(queue: Queue) -> None:
    sweep, *others = queue.submit_all([quick_spec()] * 3)
    trials = queue.submit_all([dataclasses.replace(Ticket.new(quick_spec()), sweep=sweep, trial=n) for n in range(5)])
    for _ in range(8):
        end(queue, run(queue))
    watcher = Watcher(queue)
    for _ in range(2):
        assert [job.id for job in watcher.look(most=2).ended] == others[::-1]
    assert [job.id for job in watcher.look(most=2, with_trials=True).ended] == trials[:-3:-1]


def test_nothing_is_listed_again_where_nothing_has_changed(queue: Queue) -> None:
    """A folder is as old as it says: what is put there behind its back is not looked for."""
    (job_id,) = queue.submit_all([quick_spec()])
    pending = queue.paths.state("pending")
    age(pending)
    watcher = Watcher(queue)
    watcher.look(most=5)
    before = pending.stat().st_mtime_ns
    queue.paths.ticket("pending", job_id).unlink()
    age(pending, to=before)
    assert watcher.look(most=5).counts["pending"] == 1
    age(pending, to=before + 1)
    assert watcher.look(most=5).counts["pending"] == 0


def age(folder: Path, *, to: int = 1_700_000_000_000_000_000) -> None:
    os.utime(folder, ns=(to, to))


def test_a_folder_that_cannot_be_listed_is_told(queue: Queue) -> None:
    queue.create()
    queue.paths.state("done").rmdir()
    queue.paths.state("done").write_text("no folder")
    with pytest.raises(OSError, match="done"):
        Watcher(queue).look(most=5)
