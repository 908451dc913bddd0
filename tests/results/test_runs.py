"""Finding runs by the beginnings of their ids."""

from __future__ import annotations

import pytest
from quick import quick_spec

from pipeline.errors import UsageError
from pipeline.home.paths import Home
from pipeline.jobfile import frozen
from pipeline.queue.job_queue import Queue
from pipeline.results import runs

OLD = "vgg11-20260101T000000000000Z-aaaaaa"
NEW = "net-20260102T000000000000Z-bbbbbb"
SAME_DAY = "net-20260102T000001000000Z-cccccc"


def make_run(home: Home, job_id: str) -> None:
    frozen.save(home.run(job_id), quick_spec())


@pytest.mark.parametrize("prefix", [OLD, "vgg11", "v", "vgg11-20260101"])
def test_a_run_is_found_by_any_beginning_of_its_id(home: Home, prefix: str) -> None:
    make_run(home, OLD)
    make_run(home, NEW)
    assert runs.find(home, prefix).root == home.runs / OLD


def test_latest_is_the_newest_run_by_the_time_in_its_id(home: Home) -> None:
    for job_id in (NEW, OLD):
        make_run(home, job_id)
    assert runs.find(home, "latest").root.name == NEW


def test_a_name_that_is_the_beginning_of_another_is_found_by_its_whole_id(home: Home) -> None:
    make_run(home, NEW)
    make_run(home, NEW + "0")
    assert runs.find(home, NEW).root.name == NEW


def test_an_ambiguous_beginning_lists_some_of_the_candidates(home: Home) -> None:
    ids = [f"net-2026010{day}T000000000000Z-aaaaaa" for day in range(1, 8)]
    for job_id in ids:
        make_run(home, job_id)
    with pytest.raises(UsageError) as caught:
        runs.find(home, "net")
    assert str(caught.value).splitlines() == [
        "net: 7 runs' ids begin so; give more of it:",
        "  ...",
        *(f"  {job_id}" for job_id in ids[-5:]),
    ]


def test_a_folder_without_a_spec_is_no_run(home: Home) -> None:
    make_run(home, OLD)
    home.run(NEW).root.mkdir()
    (home.runs / "notes.txt").touch()
    assert runs.find(home, "latest").root.name == OLD
    with pytest.raises(UsageError, match=f"net: no run's id begins so; the latest is {OLD}"):
        runs.find(home, "net")


@pytest.mark.parametrize("prefix", ["../runs", ".", "/", "*"])
def test_an_id_is_never_taken_for_a_path(home: Home, prefix: str) -> None:
    make_run(home, OLD)
    with pytest.raises(UsageError, match="no run's id begins so"):
        runs.find(home, prefix)


def test_an_empty_beginning_is_refused_even_where_there_is_one_run(home: Home) -> None:
    make_run(home, OLD)
    with pytest.raises(UsageError, match="the id is empty"):
        runs.find(home, "")


def test_a_home_without_runs_says_so(home: Home) -> None:
    with pytest.raises(UsageError, match=f"{home.runs}: there are no runs here yet"):
        runs.find(home, "latest")


@pytest.mark.parametrize("is_latest", [True, False])
def test_a_job_that_has_not_started_is_told_as_one(home: Home, is_latest: bool) -> None:
    job_id = Queue(home).submit(quick_spec("waits"))
    with pytest.raises(UsageError, match=f"{job_id}: has not started yet, .*`pipeline status` says why"):
        runs.find(home, "latest" if is_latest else "waits")


def test_a_job_whose_run_was_removed_is_told_as_one(home: Home) -> None:
    queue = Queue(home)
    job_id = queue.submit(quick_spec("gone"))
    queue.tickets.move(job_id, "pending", "done")
    with pytest.raises(UsageError, match=f"{job_id}: there is no run: .*{home.run(job_id).root} was removed"):
        runs.find(home, "gone")


def test_a_run_given_twice_counts_once(home: Home) -> None:
    make_run(home, OLD)
    make_run(home, NEW)
    assert [run.root.name for run in runs.find_all(home, ["net", "vgg11", NEW])] == [NEW, OLD]


def test_short_ids_are_as_long_as_it_takes_to_find_the_run_by_them(home: Home) -> None:
    same_second = ["vgg-20260101T000000100000Z-aaaaaa", "vgg-20260101T000000200000Z-aaaaaa"]
    ids = [OLD, NEW, SAME_DAY, *same_second, "alone-20260101T000000000000Z-aaaaaa"]
    for job_id in ids:
        make_run(home, job_id)
    short = runs.short_ids(home, ids)
    assert list(short.values()) == [
        "vgg11",
        "net-20260102T000000",
        "net-20260102T000001",
        "vgg-20260101T0000001",
        "vgg-20260101T0000002",
        "alone",
    ]
    assert [runs.find(home, text).root.name for text in short.values()] == ids


def test_an_id_that_is_short_is_shown_whole_beside_those_of_before(home: Home) -> None:
    ids = [OLD, Queue(home).submit(quick_spec("net"))]
    for job_id in ids:
        make_run(home, job_id)
    assert runs.short_ids(home, ids)[OLD] == "vgg11"
    make_run(home, "vgg11-0007")
    short = runs.short_ids(home, [OLD, "vgg11-0007"])
    assert short == {OLD: "vgg11-20260101", "vgg11-0007": "vgg11-0007"}
    assert [runs.find(home, text).root.name for text in short.values()] == [OLD, "vgg11-0007"]


def test_the_nearest_name_is_offered_where_no_id_begins_so(home: Home) -> None:
    make_run(home, OLD)
    with pytest.raises(UsageError) as caught:
        runs.find(home, "vgg1l")
    assert str(caught.value) == f"vgg1l: no run's id begins so; the latest is {OLD}; did you mean vgg11?"
