"""A queue that is paused: nothing is started, what runs goes on, and whoever asks is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from quick import quick_spec, wait_until
from worker_processes import Start, queue, start  # noqa: F401

from pipeline.errors import QueueError
from pipeline.home.paths import Home
from pipeline.queue import pausing, repair
from pipeline.queue.claims import Claim
from pipeline.queue.drained import is_drained
from pipeline.queue.job_queue import Queue

Pipeline = Callable[..., subprocess.CompletedProcess[str]]


def test_nothing_is_claimed_until_it_is_resumed(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    pausing.pause(queue)
    pausing.pause(queue)
    assert Queue(queue.home).claim("worker") is None
    assert not is_drained(queue)
    assert repair.repair(queue) == [], "it is none of the leftovers"
    assert pausing.resume(queue)
    assert not pausing.resume(queue)
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    assert claim.id == job_id


def test_a_worker_says_so_and_goes_on_when_it_is_resumed(
    queue: Queue, start: Start, pipeline: Pipeline, tmp_path: Path
) -> None:
    assert pipeline("pause").returncode == 0
    job_id = queue.submit(quick_spec())
    worker = start("worker", "--drain")
    said = wait_until(
        lambda: [text for path in tmp_path.glob("output-*") if "paused" in (text := path.read_text())], "it"
    )
    assert "the queue is paused: `pipeline resume` has its jobs started" in said[0]
    assert queue.tickets.state(job_id) == "pending"
    assert pipeline("resume").stderr == f"{queue.home.root}: goes on\n"
    assert worker.wait() == 0
    assert queue.tickets.state(job_id) == "done"


def test_a_job_that_runs_goes_on_and_what_is_submitted_waits(queue: Queue, start: Start, pipeline: Pipeline) -> None:
    first = queue.submit(quick_spec("first", epochs=2))
    worker = start("worker")
    wait_until(lambda: queue.tickets.state(first) == "running", "the first to run")
    pausing.pause(queue)
    second = queue.submit(quick_spec("second"))
    wait_until(lambda: queue.tickets.state(first) == "done", "the first to end")
    assert queue.tickets.state(second) == "pending"
    assert "the queue is paused" in pipeline("status").stderr
    worker.terminate()
    worker.wait()


def test_where_nothing_can_be_written_it_is_said(home: Home) -> None:
    home.root.mkdir()
    (home.root / "queue").write_text("no folder")
    with pytest.raises(QueueError):
        pausing.pause(Queue(home))
