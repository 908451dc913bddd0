"""The numbers of jobs: short ids in the order of submission, each given once, whatever the clock and the disk do."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from quick import quick_spec

from pipeline.errors import QueueError
from pipeline.home import sequence
from pipeline.home.ids import ID, age_key, by_age, make_id, name_of, number_of
from pipeline.home.paths import Home
from pipeline.queue.job_queue import Queue

BEFORE = "vgg11-20261128T112440071144Z-988c0a"
NUM_PROCESSES, NUM_IDS = 4, 50


@pytest.fixture
def made(home: Home) -> Home:
    Queue(home).create()
    return home


def take(root: Path) -> list[str]:
    return [sequence.new_ids(Home(root), [f"p{os.getpid()}"])[0] for _ in range(NUM_IDS)]


def test_ids_are_short_and_count_up_over_all_names(made: Home) -> None:
    assert sequence.new_ids(made, ["vgg11", "net", "vgg11"]) == ["vgg11-0001", "net-0002", "vgg11-0003"]
    assert sequence.new_ids(made, ["net"]) == ["net-0004"]
    assert make_id("vgg11", 0x3F2A) == "vgg11-3f2a"
    assert make_id("vgg11", 0x10000) == "vgg11-10000"


def test_many_processes_never_get_one_number_twice(made: Home) -> None:
    with multiprocessing.get_context("spawn").Pool(NUM_PROCESSES) as pool:
        found = pool.map(take, [made.root] * NUM_PROCESSES)
    numbers = [number_of(job_id) for ids in found for job_id in ids]
    assert sorted(numbers) == list(range(1, NUM_PROCESSES * NUM_IDS + 1))
    assert all(ids == by_age(ids) for ids in found)


@pytest.mark.parametrize(
    "content", [None, b"", b"\0" * 16, b"-3\n", b"9\n", b"800000000000001\n", b"000000000000009\n0"]
)
def test_a_number_that_is_lost_is_found_again(made: Home, content: bytes | None) -> None:
    queue = Queue(made)
    first = queue.submit(quick_spec())
    made.run("net-0007").root.mkdir(parents=True)
    if content is None:
        made.queue.sequence.unlink()
    else:
        made.queue.sequence.write_bytes(content)
    assert (first, queue.submit(quick_spec())) == ("quick-0001", "quick-0008")


def test_a_run_of_somebody_else_is_never_taken_for_ones_own(
    made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two homes with one folder of runs."""
    monkeypatch.setenv("PIPELINE_RUNS", str(tmp_path / "runs"))
    home = Home(made.root)
    assert sequence.new_ids(home, ["net", "net"]) == ["net-0001", "net-0002"]
    home.run("net-0003").root.mkdir(parents=True)
    assert sequence.new_ids(home, ["net"]) == ["net-0004"]


def test_where_no_number_can_be_given_nothing_is_submitted(made: Home) -> None:
    made.queue.sequence.mkdir()
    with pytest.raises(QueueError, match="sequence: no id can be given"):
        Queue(made).submit(quick_spec())
    assert Queue(made).tickets.states() == {}


def test_a_clock_that_was_wrong_makes_no_job_the_latest_for_ever(made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(made)
    monkeypatch.setattr("time.time", lambda: 4e9)
    queue.submit(quick_spec("future"))
    monkeypatch.undo()
    second = queue.submit(quick_spec("now"))
    assert queue.tickets.find("latest") == second
    queue.waiting.look()
    assert list(queue.waiting) == ["future-0001", "now-0002"]


def test_ids_of_before_are_older_than_all_others() -> None:
    assert by_age(["net-0001", BEFORE, "net-10000", "net-ffff"]) == [BEFORE, "net-0001", "net-ffff", "net-10000"]
    assert [age_key("no id"), age_key("net"), age_key("net-1")] == ["", "", ""]
    assert by_age([BEFORE, "a-20261128T112440071143Z-ffffff"])[-1] == BEFORE
    assert by_age(["xZ-100001", "net-ffff", BEFORE]) == [BEFORE, "net-ffff", "xZ-100001"]


@pytest.mark.parametrize("name", ["a", "n" * 64, "with-dash_and-20261120T101112000001Z-00ff00", "cafe-0001"])
def test_an_id_has_its_name_and_its_number_whatever_the_name_is(name: str) -> None:
    for number in (1, 0xFFFF, 0x12345):
        job_id = make_id(name, number)
        assert ID.fullmatch(job_id)
        assert (name_of(job_id), number_of(job_id)) == (name, number)
        assert len(f".{job_id}.json.4194304.01234567.tmp") <= 255
    assert (name_of(BEFORE), number_of(BEFORE)) == ("vgg11", 0)


def test_a_job_is_found_by_its_number(made: Home) -> None:
    queue = Queue(made)
    ids = queue.submit_all([quick_spec("net"), quick_spec("net"), quick_spec("0002")])
    assert queue.tickets.find("0001") == ids[0]
    assert queue.tickets.find("0002") == ids[2], "a name goes before a number"
    assert queue.tickets.find("net-0002") == ids[1]
