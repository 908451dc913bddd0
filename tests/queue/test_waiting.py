"""The jobs that wait, as a worker remembers them: by their priorities alone, and each read once."""

from __future__ import annotations

import errno
import gc
from collections import Counter
from pathlib import Path

import pytest
import small_sweeps
from quick import quick_spec

from pipeline.home.paths import Home
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import ForeignFile, Ticket, Tickets

NUM_JOBS = 200


@pytest.fixture
def queue(home: Home) -> Queue:
    queue = Queue(home)
    queue.create()
    return queue


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each ticket was read."""
    counted: Counter[str] = Counter()
    read = Tickets.read

    def count(self: Tickets, state: str, job_id: str) -> Ticket | ForeignFile | None:
        counted[job_id] += 1
        return read(self, state, job_id)

    monkeypatch.setattr(Tickets, "read", count)
    return counted


def claim(queue: Queue) -> Claim:
    found = queue.claim("worker")
    assert isinstance(found, Claim)
    found.lease.release()
    return found


def test_sweeps_alone_are_claimed_without_a_look_at_the_others(queue: Queue, reads: Counter[str]) -> None:
    queue.submit_all(quick_spec(resources={"priority": 9}) for _ in range(NUM_JOBS))
    low, high = (small_sweeps.submit(queue, resources={"priority": priority}) for priority in (1, 2))
    found = [queue.claim("worker", with_others=False) for _ in range(3)]
    assert [claim and claim.ticket.id for claim in found if not isinstance(claim, Ended)] == [high, low, None]
    assert max(reads.values()) <= 3
    assert sum(reads.values()) < NUM_JOBS + 10


def test_each_ticket_is_read_once_and_once_more_when_it_is_claimed(queue: Queue, reads: Counter[str]) -> None:
    ids = queue.submit_all(quick_spec() for _ in range(NUM_JOBS))
    assert [claim(queue).id for _ in range(3)] == ids[:3]
    assert reads == {**dict.fromkeys(ids, 1), **dict.fromkeys(ids[:3], 2)}
    late = queue.submit(quick_spec(resources={"priority": 1}))
    assert claim(queue).id == late
    assert reads[late] == 2
    assert reads[ids[-1]] == 1


def test_a_ticket_that_cannot_be_read_once_has_its_priority_when_it_can(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    low, high = queue.submit(quick_spec()), queue.submit(quick_spec(resources={"priority": 5}))
    read, refused = Tickets.read, list[str]()

    def refuse_once(self: Tickets, state: str, job_id: str) -> Ticket | ForeignFile | None:
        if job_id == high and len(refused) < 2:
            refused.append(job_id)
            raise OSError(errno.EMFILE, "Too many open files")
        return read(self, state, job_id)

    monkeypatch.setattr(Tickets, "read", refuse_once)
    orders = []
    for _ in range(3):
        queue.waiting.look()
        orders.append(list(queue.waiting))
    assert orders == [[low, high], [low, high], [high, low]]
    assert [claim(queue).id for _ in range(2)] == [high, low]
    queue.waiting.look()
    assert list(queue.waiting) == []


def test_nothing_of_a_ticket_is_kept_while_it_waits(queue: Queue) -> None:
    queue.submit_all(quick_spec() for _ in range(NUM_JOBS))
    claimed = claim(queue)
    gc.collect()
    alive = [found for found in gc.get_objects() if type(found) is Ticket]
    assert alive == [claimed.ticket]


def test_foreign_files_are_told_and_read_again_with_each_look(queue: Queue, reads: Counter[str]) -> None:
    bad, good = queue.submit_all([quick_spec(), quick_spec()])
    path = queue.paths.ticket("pending", bad)
    content = path.read_bytes()
    path.write_text("{")
    [file] = queue.foreign()
    assert (file.path, reads[good]) == (path, 1)
    path.write_bytes(content)
    assert queue.foreign() == []
    assert claim(queue).id == bad, "it is a ticket again"


def test_a_ticket_that_turns_foreign_while_it_waits_holds_up_nobody(queue: Queue) -> None:
    bad, good = queue.submit_all([quick_spec(), quick_spec()])
    queue.waiting.look()
    queue.paths.ticket("pending", bad).write_text("{")
    assert claim(queue).id == good
    assert [file.path for file in queue.foreign()] == [queue.paths.ticket("pending", bad)]


def test_what_came_or_went_meanwhile_is_seen_with_the_next_look(queue: Queue, tmp_path: Path) -> None:
    first, second = queue.submit_all([quick_spec(), quick_spec()])
    queue.waiting.look()
    queue.paths.ticket("pending", first).rename(tmp_path / "gone")
    third = queue.submit(quick_spec())
    queue.waiting.look()
    assert list(queue.waiting) == [second, third]
    (tmp_path / "gone").rename(queue.paths.ticket("pending", first))
    queue.waiting.look()
    assert list(queue.waiting) == [first, second, third]
