"""`pipeline rm` and `pipeline prune`: what is shown, what is asked, what goes."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable

import pytest
from quick import quick_spec

from pipeline.home.paths import Home
from pipeline.home.records import Outcome, Result
from pipeline.queue import repair
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

Pipeline = Callable[..., subprocess.CompletedProcess[str]]
NAMES = ("first", "second", "third")


@pytest.fixture
def queue(home: Home) -> Queue:
    """One that has succeeded, one that failed, one that was cancelled, and one that waits."""
    queue = Queue(home)
    for name, outcome in zip(NAMES, ("succeeded", "failed", "cancelled"), strict=True):
        end(queue, name, outcome)  # type: ignore[arg-type]
    queue.submit(quick_spec("waits"))
    return queue


def end(queue: Queue, name: str, outcome: Outcome) -> None:
    job_id = queue.submit(quick_spec(name))
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    queue.home.run(job_id).checkpoints.mkdir(parents=True)
    queue.home.run(job_id).last.write_bytes(b"x" * 1_000_000)
    queue.end(claim, Result(1, outcome, "because"))
    claim.lease.release()


def ids(queue: Queue) -> set[str]:
    return set(queue.tickets.states())


def test_rm_removes_each_and_says_what_it_refuses(queue: Queue, pipeline: Pipeline) -> None:
    done = pipeline("rm", "first", "waits", "0003")
    assert (done.returncode, done.stdout) == (1, "first-0001: removed\nthird-0003: removed\n")
    assert "waits-0004: waits; `pipeline cancel waits-0004` first" in done.stderr
    assert ids(queue) == {"second-0002", "waits-0004"}
    done = pipeline("rm", "second", "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nobody: no job's id begins so" in done.stderr
    assert "so nothing was done" in done.stderr


def test_rm_removes_a_run_without_a_ticket(queue: Queue, pipeline: Pipeline) -> None:
    """As `pipeline run` of an earlier version left it."""
    run = queue.home.run("old-20260101T000000000000Z-aaaaaa")
    run.root.mkdir()
    run.spec.write_text("name: old\n")
    assert pipeline("rm", "old").returncode == 2, "by its whole id alone"
    assert pipeline("rm", run.root.name).returncode == 0
    assert not run.root.exists()


def test_rm_refuses_what_may_be_several_and_what_is_gone(queue: Queue, pipeline: Pipeline) -> None:
    queue.submit(quick_spec("first"))
    done = pipeline("rm", "first")
    assert (done.returncode, "first: 2 ids begin so" in done.stderr) == (2, True)
    assert pipeline("rm", "first-0001").returncode == 0
    done = pipeline("rm", "first-0001")
    assert (done.returncode, done.stderr) == (2, "error: first-0001: is not there any more\n")


def test_prune_shows_first_and_removes_once_it_is_confirmed(queue: Queue, pipeline: Pipeline) -> None:
    before = ids(queue)
    done = pipeline("prune", "--keep", "1")
    assert done.returncode == 0
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["ID", "OUTCOME", "FINISHED", "SIZE"]
    assert [row.split()[:2] for row in rows] == [["first-0001", "succeeded"], ["second-0002", "failed"]]
    assert "nothing was removed; --yes removes 2 jobs with 2.0 MB" in done.stderr
    assert ids(queue) == before
    done = pipeline("prune", "--keep", "1", "--yes")
    assert (done.returncode, "removed 2 jobs with 2.0 MB" in done.stderr) == (0, True)
    assert ids(queue) == {"third-0003", "waits-0004"}
    assert repair.repair(queue) == []


def test_prune_says_what_it_leaves_out(queue: Queue, pipeline: Pipeline) -> None:
    queue.submit_all([dataclasses.replace(Ticket.new(quick_spec("next")), after=["first"])])
    done = pipeline("prune", "--keep", "0", "--yes")
    assert "left out, as other jobs need what they have: 1 job" in done.stderr
    assert ids(queue) == {"first-0001", "waits-0004", "next-0005"}


def test_prune_removes_what_failed_alone(queue: Queue, pipeline: Pipeline) -> None:
    assert pipeline("prune", "--failed", "--yes").returncode == 0
    assert ids(queue) == {"first-0001", "third-0003", "waits-0004"}
    assert "there is nothing to remove" in pipeline("prune", "--failed", "--yes").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "which jobs? --keep N, --older 30d, --failed"),
        (("--older", "soon"), "--older: 'soon' is not a duration; write 90s, 5m, 1h30m, 2d"),
        (("--keep", "-1"), "--keep"),
    ],
)
def test_prune_refuses_what_says_too_little(
    queue: Queue, pipeline: Pipeline, options: tuple[str, ...], message: str
) -> None:
    before = ids(queue)
    done = pipeline("prune", *options, "--yes")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert ids(queue) == before
    assert "nothing to remove" in pipeline("prune", "--older", "30d").stderr
