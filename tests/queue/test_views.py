"""Looking at jobs: on a medium that cannot be written, too, and nothing changes by it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from quick import quick_spec

from pipeline.cli.terminal import NEXT
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.home.records import Progress, Result
from pipeline.queue import views
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import ForeignFile, Ticket, Tickets

Pipeline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def read_only(small_disk: Path) -> Queue:
    """A queue with a job in each of several states, a torn ticket and a foreign file, on a mount that is read-only."""
    queue = Queue(Home(small_disk))
    queue.submit_all([quick_spec("ended"), quick_spec("runs")])
    for outcome in ("failed", None):
        claim = queue.claim("worker")
        assert isinstance(claim, Claim)
        if outcome:
            queue.settle(claim, Result(1, "failed", "its own fault"))
        claim.lease.release()
    (torn,) = queue.submit_all([quick_spec("torn")])
    queue.submit(quick_spec("waits"))
    queue.paths.ticket("pending", torn).write_text("{")
    (queue.paths.state("done") / "notes.txt").write_text("mine")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return queue


def test_status_show_and_logs_work_on_a_read_only_mount(read_only: Queue, pipeline: Pipeline) -> None:
    done = pipeline("status", "--json", home=read_only.home)
    assert done.returncode == 0, done.stderr
    found = {view["name"]: view["state"] for view in json.loads(done.stdout)}
    assert found == {"ended": "failed", "runs": "running", "waits": "pending"}
    done = pipeline("status", home=read_only.home)
    assert done.returncode == 0
    assert "notes.txt: its name is not that of a ticket" in done.stderr
    assert "it cannot be read: " in done.stderr
    for command in ("show", "logs"):
        assert pipeline(command, "latest", home=read_only.home).returncode == 0


def test_looking_changes_no_file(home: Home, pipeline: Pipeline) -> None:
    queue = Queue(home)
    queue.submit(quick_spec())
    (queue.paths.state("pending") / "foreign").mkdir()
    os.mkfifo(queue.paths.state("running") / "pipe.json")
    before = {path: path.lstat().st_ctime_ns for path in home.root.rglob("*")}
    for command in (["status"], ["status", "--json"], ["show", "latest"], ["logs", "latest"]):
        assert pipeline(*command).returncode == 0
    assert {path: path.lstat().st_ctime_ns for path in home.root.rglob("*")} == before


def test_a_job_is_shown_with_all_that_is_known_of_it(home: Home) -> None:
    queue = Queue(home)
    job_id = queue.submit(quick_spec(epochs=7, resources={"priority": 3}))
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    run = home.run(job_id)
    run.root.mkdir(parents=True)
    run.progress.write_text(json.dumps(Progress(1, epoch=2, epochs=7, step=46, metrics={"test/loss": 0.5}).to_json()))
    [view] = views.jobs(queue)
    assert (
        view.to_json().items()
        >= {
            "id": job_id,
            "name": "quick",
            "state": "running",
            "priority": 3,
            "attempt": 1,
            "outcome": None,
            "epoch": 2,
            "epochs": 7,
            "step": 46,
            "metrics": {"test/loss": 0.5},
            "why": "training",
            "run_dir": str(run.root),
        }.items()
    )
    claim.lease.release()
    assert views.find(queue, job_id).why == "its worker died; the next worker goes on with it"
    lease = Lease.acquire(queue.paths.lease(job_id))
    assert lease is not None
    queue.settle(Claim(claim.ticket, lease, queue.attempts(job_id)), Result(1, "interrupted", "asked to stop"))
    lease.release()
    assert views.find(queue, job_id).why == "queued again: asked to stop"


def test_a_job_that_is_claimed_while_it_is_looked_at_is_not_left_out(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing of the folders and the reading of its ticket."""
    queue = Queue(home)
    first, second = queue.submit_all([quick_spec(), quick_spec()])
    read, claims = Tickets.read, []

    def read_late(self: Tickets, state: str, job_id: str) -> Ticket | ForeignFile | None:
        monkeypatch.setattr(Tickets, "read", read)
        claims.append(Queue(home).claim("worker"))
        return read(self, state, job_id)

    monkeypatch.setattr(Tickets, "read", read_late)
    assert {view.id: view.state for view in views.jobs(queue)} == {first: "running", second: "pending"}
    assert len(claims) == 1


def test_a_job_that_goes_back_while_the_folders_are_listed_is_not_left_out(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of a folder that was not looked at yet, to one that was."""
    queue = Queue(home)
    job_id = queue.submit(quick_spec())
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    names = Tickets.names

    def names_late(self: Tickets, state: str) -> list[str]:
        found = names(self, state)
        if state == "pending" and queue.paths.ticket("running", job_id).exists():
            queue.requeue(claim)
        return found

    monkeypatch.setattr(Tickets, "names", names_late)
    assert [(view.id, view.state) for view in views.jobs(queue)] == [(job_id, "pending")]


def test_of_jobs_that_wait_the_next_are_shown_and_the_others_counted(home: Home, pipeline: Pipeline) -> None:
    queue = Queue(home)
    ids = queue.submit_all([quick_spec("waits") for _ in range(NEXT + 2)])
    first = queue.submit(quick_spec("first", resources={"priority": 1}))
    shown = pipeline("status").stdout
    assert [line.split()[0] for line in shown.splitlines()[1:-1]] == [*ids[: NEXT - 1], first], "by their ages"
    assert shown.splitlines()[-1] == "... and 3 that wait for longer (--all shows them)"
    everything = pipeline("status", "--all").stdout
    assert [line.split()[0] for line in everything.splitlines()[1:]] == [*ids, first]
