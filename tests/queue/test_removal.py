"""Removing jobs: what goes, what is refused, and what a kill in between leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from quick import quick_spec
from sweeps_by_hand import Told, make_sweep

from pipeline.errors import QueueError
from pipeline.home.paths import Home
from pipeline.home.records import End, Outcome, Result
from pipeline.queue import removal, repair
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.removal import Wanted
from pipeline.queue.tickets import Ticket

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def queue(home: Home) -> Queue:
    return Queue(home)


def ended(queue: Queue, name: str, outcome: Outcome = "succeeded", finished_at: str | None = None) -> str:
    """A job that has ended, and has left a run of some size."""
    job_id = queue.submit(quick_spec(name))
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    run = queue.home.run(job_id)
    run.checkpoints.mkdir(parents=True)
    run.last.write_bytes(b"x" * 100_000)
    queue.end(claim, Result(1, outcome, "because"))
    claim.lease.release()
    if finished_at is not None:
        end = End.read(queue.paths.end(job_id))
        assert end is not None
        dataclasses.replace(end, finished_at=finished_at).write(queue.paths.end(job_id))
    return job_id


def left(queue: Queue, job_id: str) -> list[Path]:
    """Everything in the home that has a job's id in its name."""
    return [path for path in queue.home.root.rglob("*") if job_id in path.name]


def test_nothing_of_a_job_is_left_and_its_number_is_not_given_again(queue: Queue) -> None:
    job_id, other = ended(queue, "first"), ended(queue, "second")
    removal.remove(queue, job_id)
    assert left(queue, job_id) == []
    assert queue.tickets.states() == {other: "done"}
    assert queue.submit(quick_spec()) == "quick-0003"
    assert repair.repair(queue) == []


def test_what_has_not_ended_is_refused(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    with pytest.raises(QueueError, match=f"{job_id}: waits; `pipeline cancel {job_id}` first"):
        removal.remove(queue, job_id)
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    with pytest.raises(QueueError, match=f"{job_id}: is running"):
        removal.remove(queue, job_id)
    assert queue.tickets.state(job_id) == "running"


@pytest.mark.parametrize("needs", ["after", "init", "file", "searched"])
def test_what_another_job_needs_stays_until_that_has_ended(queue: Queue, needs: str) -> None:
    job_id = ended(queue, "first")
    ticket = Ticket.new(quick_spec("second"))
    if needs == "after":
        ticket = dataclasses.replace(ticket, after=["first"])
    elif needs == "searched":
        ticket.spec["search"] = {"space": {"model.init": ["nobody", job_id]}}
    else:
        ticket.spec["model"]["init"] = job_id if needs == "init" else str(queue.home.run(job_id).best)
    (second,) = queue.submit_all([ticket])
    with pytest.raises(QueueError, match=f"{job_id}: {second} needs it"):
        removal.remove(queue, job_id)
    repair.cancel(queue, second)
    removal.remove(queue, job_id)
    assert queue.tickets.state(job_id) is None


def let_go_of(path: Path) -> None:
    """As the death of the process that holds a lease does."""
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if fd.readlink() == path:
                os.close(int(fd.name))


def test_a_sweep_goes_with_its_trials(home: Home) -> None:
    sweep, trials = make_sweep(home, [Told({"train.optimizer.lr": 0.1}), Told({"train.optimizer.lr": 0.2}, "pending")])
    queue = Queue(home)
    with pytest.raises(QueueError, match=f"{sweep}: is running"):
        removal.remove(queue, sweep)
    let_go_of(queue.paths.lease(sweep))
    repair.cancel(queue, sweep)
    assert queue.tickets.state(sweep) == "cancelled"
    with pytest.raises(QueueError, match=f"{trials[1]}: waits"):
        removal.remove(queue, sweep)
    assert queue.tickets.states() == {sweep: "cancelled", trials[0]: "done", trials[1]: "pending"}, "all, or nothing"
    repair.cancel(queue, trials[1])
    assert removal.remove(queue, sweep) == 2
    assert queue.tickets.states() == {}
    assert list(home.runs.iterdir()) == []


def test_a_trial_stays_while_its_sweep_counts_on_it(home: Home) -> None:
    sweep, (trial,) = make_sweep(home, [Told({"train.optimizer.lr": 0.1})])
    queue = Queue(home)
    with pytest.raises(QueueError, match=f"{trial}: is a trial of {sweep}, which has not ended"):
        removal.remove(queue, trial)
    let_go_of(queue.paths.lease(sweep))
    repair.cancel(queue, sweep)
    removal.remove(queue, trial)
    assert removal.remove(queue, sweep) == 0


def test_a_failed_sweep_with_a_good_trial_did_not_only_fail(home: Home) -> None:
    sweep, _ = make_sweep(home, [Told({"train.optimizer.lr": 0.1}), Told({"train.optimizer.lr": 0.2}, "failed")])
    queue = Queue(home)
    let_go_of(queue.paths.lease(sweep))
    repair.cancel(queue, sweep)
    queue.paths.ticket("cancelled", sweep).rename(queue.paths.ticket("failed", sweep))
    assert removal.choose(queue, Wanted(only_failed=True)) == []
    assert [job.id for job in removal.choose(queue, Wanted())] == [sweep]


def test_more_trials_than_files_that_may_be_open(home: Home) -> None:
    sweep, _ = make_sweep(home, [Told({"train.optimizer.lr": 0.1}, accuracies=[0.5]) for _ in range(60)])
    queue = Queue(home)
    for path in queue.paths.leases.iterdir():
        let_go_of(path)
    repair.cancel(queue, sweep)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 30, before[1]))
    try:
        assert removal.remove(queue, sweep) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_a_killed_removal_has_left_is_in_nobodys_way(queue: Queue) -> None:
    """It was killed after the first step, and the job was retried, and failed once more."""
    job_id = ended(queue, "first", "failed")
    hidden = queue.home.removed_run(job_id)
    hidden.mkdir()
    (hidden / "last.pt").write_bytes(b"x")
    removal.remove(queue, job_id)
    assert left(queue, job_id) == []


def test_a_run_that_is_a_link_is_let_go_and_not_what_it_leads_to(queue: Queue, tmp_path: Path) -> None:
    job_id = ended(queue, "first")
    run = queue.home.run(job_id).root
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    removal.remove(queue, job_id)
    assert left(queue, job_id) == []
    assert (tmp_path / "elsewhere" / "checkpoints").is_dir()


def test_files_that_stay_are_said(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = ended(queue, "first")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)  # noqa: ARG005 - as of a file that may not go
    with pytest.raises(QueueError, match=f"{job_id}: is removed, but not all of its files: .*removed-{job_id}"):
        removal.remove(queue, job_id)
    assert queue.tickets.state(job_id) is None


def test_records_without_a_ticket_go_with_the_next_removal(queue: Queue) -> None:
    job_id, running = ended(queue, "first"), queue.submit(quick_spec("second"))
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    queue.paths.ticket("done", job_id).unlink()
    removal.finish(queue)
    assert [path.name for path in queue.paths.jobs.iterdir()] == [running]


def test_those_are_chosen_that_meet_all_that_is_asked(queue: Queue) -> None:
    old = ended(queue, "old", finished_at="2020-01-01T00:00:00.000Z")
    bad = ended(queue, "bad", "failed", finished_at="2020-01-02T00:00:00.000Z")
    new = ended(queue, "new", "failed")
    odd = ended(queue, "odd", finished_at="yesterday")
    queue.submit(quick_spec("waits"))

    def chosen(**options: object) -> list[str]:
        return [job.id for job in removal.choose(queue, Wanted(**options))]  # type: ignore[arg-type]

    assert chosen() == [old, bad, new, odd]
    assert chosen(keep=1) == [old, bad, new]
    assert chosen(keep=9) == []
    assert chosen(older_than_s=86400.0) == [old, bad], "of what does not say when it ended nothing is removed"
    assert chosen(only_failed=True) == [bad, new]
    assert chosen(only_failed=True, keep=1) == [bad]
    assert chosen(only_failed=True, older_than_s=86400.0) == [bad]


def test_the_size_is_what_the_disk_gives_back(queue: Queue) -> None:
    ended(queue, "first")
    (job,) = removal.choose(queue, Wanted())
    assert 100_000 <= removal.size_of(queue, job) < 200_000


@needs_strace
@pytest.mark.parametrize("call", ["rename", "unlink", "rmdir", "unlinkat"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_kill_in_between_leaves_no_job_that_runs_again(queue: Queue, call: str, nth: int) -> None:
    job_id = ended(queue, "first")
    kill = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={nth}"]
    subprocess.run([*kill, sys.executable, "-m", "pipeline.cli", "--home", str(queue.home.root), "rm", job_id])
    repair.repair(queue)
    assert queue.tickets.state(job_id) in (None, "done"), "it is never queued again"
    if queue.tickets.state(job_id):
        removal.remove(queue, job_id)
    removal.finish(queue)
    assert left(queue, job_id) == []


def test_what_a_removal_that_was_killed_has_left_goes_with_the_next_repair(queue: Queue) -> None:
    queue.create()
    (queue.home.runs / ".removed-net-0001").mkdir()
    repair.repair(queue)
    assert list(queue.home.runs.iterdir()) == []
