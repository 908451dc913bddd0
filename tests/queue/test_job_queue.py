"""Submitting, claiming, ending and queueing again, by one process, by many, and by processes that are killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from quick import quick_spec, wait_until
from rights import without_root_s

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import STATES, Home
from pipeline.home.records import FOLDER_OF, Attempts, End, Outcome, Result
from pipeline.queue import back_off, repair
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.drained import is_drained
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

NUM_WORKERS = 8
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def queue(home: Home) -> Queue:
    queue = Queue(home)
    queue.create()
    return queue


def claim(queue: Queue, worker: str = "worker") -> Claim:
    found = queue.claim(worker)
    assert isinstance(found, Claim)
    return found


def settle(queue: Queue, claimed: Claim, outcome: Outcome, why: str = "because") -> str:
    """As a worker does it."""
    queue.settle(claimed, Result(claimed.attempts.number, outcome, why))
    claimed.lease.release()
    return where(queue, claimed.id)


def where(queue: Queue, job_id: str) -> str:
    """The one state that the job is in."""
    [state] = [state for state in STATES if queue.paths.ticket(state, job_id).exists()]
    return state


# Submitting


def test_a_submitted_job_waits_as_one_whole_ticket(queue: Queue) -> None:
    job_id = queue.submit(quick_spec("first"))
    assert job_id.startswith("first-")
    assert where(queue, job_id) == "pending"
    assert queue.tickets.ids("pending") == [job_id]
    assert list(queue.paths.tmp.iterdir()) == []


def test_submit_makes_the_home(home: Home) -> None:
    assert Queue(home).submit(quick_spec()) in Queue(home).tickets.ids("pending")


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(QueueError, match="the queue cannot be made here"):
        Queue(Home(tmp_path / "file")).submit(quick_spec())


def test_an_error_between_two_jobs_submits_neither(queue: Queue) -> None:
    def specs() -> Iterator[Any]:
        yield quick_spec()
        raise RuntimeError("the caller's own fault")

    with pytest.raises(RuntimeError):
        queue.submit_all(specs())
    assert queue.tickets.ids("pending") == []


def test_the_folders_are_synced_once_a_process_and_again_where_one_was_missing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process may have made them; and to sync all of them for each job takes thrice as long as the rest."""
    Queue(home).create()
    queue, synced, fsync = Queue(home), list[Path](), os.fsync

    def record(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    queue.submit(quick_spec())
    assert set(synced[:2]) == {home.root, home.queue.root}
    assert [len(synced), synced[-1]] == [5, home.queue.state("pending")]
    synced.clear()
    queue.submit(quick_spec())
    assert len(synced) == 3, "the number, the ticket and its name"
    home.queue.control.rmdir()
    synced.clear()
    queue.create()
    assert synced[-1] == home.queue.root


def submit_two(root: Path, _: None) -> list[str]:
    return Queue(Home(root)).submit_all([quick_spec("a"), quick_spec("b")])


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Any]:
    """Makes empty homes, each below a folder of its own."""
    counter = iter(range(10_000))

    def make() -> tuple[Path, Any]:
        queue = Queue(Home(tmp_path / f"home{next(counter)}"))
        queue.create()
        return queue.home.root, None

    return make


def test_submit_killed_at_any_call_leaves_whole_tickets_only(homes: Any) -> None:
    counts = set()
    for root, _, outcome in faults.at_each_call(submit_two, "kill", homes):
        queue = Queue(Home(root))
        repair.repair(queue)
        waiting = queue.tickets.ids("pending")
        assert all(queue.tickets.read("pending", job_id) for job_id in waiting)
        assert queue.tickets.quarantined() == []
        assert outcome.killed or sorted(outcome.value) == sorted(waiting)
        counts.add(len(waiting))
        assert queue.submit(quick_spec()) in queue.tickets.ids("pending")
    assert counts == {0, 1, 2}


@pytest.mark.parametrize("fault", ["one EIO", "full disk"])
def test_submit_refused_by_the_disk_at_any_call_is_an_error_and_submits_nothing(
    homes: Any, fault: faults.Fault
) -> None:
    for root, _, outcome in faults.at_each_call(submit_two, fault, homes):
        queue = Queue(Home(root))
        if outcome.error is None:
            assert sorted(outcome.value) == sorted(queue.tickets.ids("pending"))
        else:
            assert isinstance(outcome.error, QueueError), outcome
            assert queue.tickets.ids("pending") == []
        assert queue.tickets.quarantined() == []


# With the kernel's own errors and kills, through the whole program


@pytest.fixture
def submit_under_strace(home: Home, tmp_path: Path) -> Any:
    Queue(home).create()
    job = tmp_path / "job.yaml"
    job.write_text("name: job\nmodel: {name: cnn_bn}\ndata: {name: digits}\n")

    def run(inject: str) -> subprocess.CompletedProcess[str]:
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={inject}"]
        program = [sys.executable, "-B", "-m", "pipeline.cli", "--home", str(home.root), "submit", str(job)]
        return subprocess.run([*command, *program], capture_output=True, text=True, timeout=120)

    probe = run("fsync:error=EIO:when=1000")
    if probe.returncode != 0 and "ptrace" in probe.stderr:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()}")
    return run


CALLS = [*(("fsync", when) for when in range(1, 5)), ("link,linkat", 1), ("write", 1)]


@needs_strace
@pytest.mark.parametrize(("call", "when"), CALLS)
def test_no_id_is_printed_and_nothing_submitted_where_the_kernel_refuses(
    home: Home, submit_under_strace: Any, call: str, when: int
) -> None:
    before = set(Queue(home).tickets.ids("pending"))
    for error in ("ENOSPC", "EIO"):
        done = submit_under_strace(f"{call}:error={error}:when={when}")
        assert done.returncode == 1, done
        assert done.stdout == ""
        assert done.stderr.splitlines()[-1].startswith("error: "), "a message and no traceback"
        assert set(Queue(home).tickets.ids("pending")) == before


@needs_strace
def test_a_temporary_that_cannot_be_removed_does_not_undo_what_was_submitted(
    home: Home, submit_under_strace: Any
) -> None:
    """It is swept later."""
    done = submit_under_strace("unlink,unlinkat:error=EIO:when=1")
    assert done.returncode == 0, done
    assert done.stdout.strip() in Queue(home).tickets.ids("pending")
    [left] = home.queue.tmp.glob(".*.tmp")
    os.utime(left, (0, 0))
    repair.repair(Queue(home))
    assert not left.exists()


@needs_strace
@pytest.mark.parametrize(("call", "when"), [*CALLS, ("unlink,unlinkat", 1)])
def test_an_id_that_was_printed_survives_a_kill(home: Home, submit_under_strace: Any, call: str, when: int) -> None:
    done = submit_under_strace(f"{call}:signal=KILL:when={when}")
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    queue = Queue(home)
    waiting = queue.tickets.ids("pending")
    assert set(done.stdout.split()) <= set(waiting)
    assert all(queue.tickets.read("pending", job_id) for job_id in waiting)
    assert queue.tickets.quarantined() == []


def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(small_disk: Path) -> None:
    queue = Queue(Home(small_disk))
    (small_disk / "ballast").write_bytes(b"x" * 100_000)
    ids: list[str] = []
    with pytest.raises(QueueError, match="nothing was submitted: No space left on device"):
        ids.extend(queue.submit(quick_spec()) for _ in itertools.count())
    assert sorted(queue.tickets.ids("pending")) == sorted(ids)
    assert ids
    with pytest.raises(OSError, match="No space left"):
        queue.claim("worker")
    assert sorted(queue.tickets.ids("pending")) == sorted(ids)
    (small_disk / "ballast").unlink()
    found = Queue(queue.home).claim("worker")
    assert found is not None
    assert found.id == ids[0]


def test_an_end_that_finds_no_room_is_recorded_later(small_disk: Path) -> None:
    queue = Queue(Home(small_disk))
    queue.submit(quick_spec())
    claimed = claim(queue)
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"x" * 4096):
            pass
    with pytest.raises(OSError, match="No space left"):
        queue.settle(claimed, Result(1, "succeeded", "because"))
    assert where(queue, claimed.id) == "running"
    assert not queue.paths.end(claimed.id).exists()
    (small_disk / "ballast").unlink()
    assert settle(queue, claimed, "succeeded") == "done"


# Claiming


def test_the_highest_priority_comes_first_then_the_oldest(queue: Queue) -> None:
    priorities = [0, 5, -3, 5, 0, 1000]
    ids = queue.submit_all(quick_spec(f"j{i}", resources={"priority": p}) for i, p in enumerate(priorities))
    claimed = [claim(queue).id for _ in ids]
    assert claimed == [ids[i] for i in (5, 1, 3, 0, 4, 2)]
    assert queue.claim("worker") is None


def test_a_claimed_job_is_running_and_nobody_elses(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    claimed = claim(queue, "first")
    assert (claimed.id, claimed.attempts.number, where(queue, job_id)) == (job_id, 1, "running")
    assert Lease.is_held(queue.paths.lease(job_id))
    assert Queue(queue.home).claim("second") is None
    assert queue.attempts(job_id).entries[0]["worker"] == "first"


def claim_everything(root: Path, worker: str) -> None:
    queue = Queue(Home(root))
    with (root / f"claimed-by-{worker}").open("w") as file:
        while not is_drained(queue):
            claimed = queue.claim(worker)
            if claimed is not None:
                file.write(f"{claimed.id}\n")
                queue.settle(claimed, Result(1, "succeeded", f"by {worker}"))
                claimed.lease.release()


def test_eight_workers_claim_each_of_hundreds_of_jobs_exactly_once(queue: Queue) -> None:
    ids = queue.submit_all([quick_spec()] * 400)
    names = [str(number) for number in range(NUM_WORKERS)]
    workers = [faults.fork.Process(target=claim_everything, args=(queue.home.root, name)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * NUM_WORKERS
    claimed = {name: (queue.home.root / f"claimed-by-{name}").read_text().split() for name in names}
    assert sorted(job_id for ids_of_one in claimed.values() for job_id in ids_of_one) == sorted(ids)
    assert sorted(queue.tickets.ids("done")) == sorted(ids)
    for name, ids_of_one in claimed.items():
        for job_id in ids_of_one:
            end = End.read(queue.paths.end(job_id))
            assert end is not None
            assert end.why == f"by {name}"
            assert queue.attempts(job_id).number == 1
    assert list(queue.paths.leases.iterdir()) == []


def claim_and_tell(root: Path, _: Any) -> str | None:
    claimed = Queue(Home(root)).claim("victim")
    return None if claimed is None else claimed.id


@pytest.mark.parametrize("fault", ["one EIO", "full disk"])
def test_a_claim_refused_by_the_disk_at_any_call_leaves_the_job_waiting(homes: Any, fault: faults.Fault) -> None:
    def one_job() -> tuple[Path, str]:
        root, _ = homes()
        return root, Queue(Home(root)).submit(quick_spec())

    for root, job_id, outcome in faults.at_each_call(claim_and_tell, fault, one_job):
        queue = Queue(Home(root))
        if outcome.value is None:
            assert outcome.error is None or isinstance(outcome.error, OSError)
            assert where(queue, job_id) == "pending"
            found = claim(queue)
            assert found.id == job_id
            assert found.attempts.retries_used == 0
        else:
            assert where(queue, job_id) == "running"
        assert queue.tickets.quarantined() == []


def test_a_job_that_the_disk_refuses_does_not_hold_up_the_others(queue: Queue) -> None:
    bad, good = queue.submit_all([quick_spec("bad"), quick_spec("good")])
    queue.paths.lease(bad).mkdir()
    with pytest.raises(IsADirectoryError):
        queue.claim("worker")
    assert claim(queue).id == good


@pytest.mark.parametrize("make", [lambda path: path.touch(), os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_a_foreign_file_in_the_place_of_a_jobs_folder_goes_to_quarantine(queue: Queue, make: Any) -> None:
    job_id = queue.submit(quick_spec())
    make(queue.paths.jobs / job_id)
    assert settle(queue, claim(queue), "succeeded") == "done"
    assert queue.tickets.quarantined() == [f"{queue.paths.jobs / job_id}: it is not a folder"]


def test_what_lies_in_the_way_on_another_volume_is_put_aside_there(home: Home, small_disk: Path) -> None:
    """With containers, runs and queue are two volumes."""
    home.root.mkdir(parents=True, exist_ok=True)
    home.runs.symlink_to(small_disk)
    queue = Queue(home)
    job_id = queue.submit(quick_spec())
    home.run(job_id).root.write_text("mine")
    queue.records.make_way_for_run(job_id)
    assert not home.run(job_id).root.exists()
    [line] = queue.tickets.quarantined()
    [aside] = small_disk.iterdir()
    assert aside.read_text() == "mine"
    at = home.run(job_id).root
    assert line == f"{at}: it is not a folder; it is on another volume, and is called {aside.name} there now"
    assert settle(queue, claim(queue), "succeeded") == "done"


def test_foreign_files_in_control_and_leases_are_harmless(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    os.mkfifo(queue.paths.wait(job_id))
    queue.paths.cancel_request(job_id).mkdir()
    (queue.paths.control / "folder.wait").mkdir()
    (queue.paths.control / "x.cancel").write_bytes(b"\xff")
    (queue.paths.leases / "notes").touch()
    os.mkfifo(queue.paths.leases / ".worker-pipe")
    (queue.paths.leases / ".worker-link").symlink_to(".worker-link")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(queue.paths.leases / ".worker-socket"))
    repair.repair(queue)
    assert queue.live_workers() == []
    claimed = claim(queue)
    assert claimed.id == job_id
    assert settle(queue, claimed, "lost") == "pending"


CLAIM_ALL = """
import sys
from pathlib import Path
from pipeline.home.paths import Home
from pipeline.queue.job_queue import Queue
queue = Queue(Home(Path(sys.argv[1])))
while claim := queue.claim("worker"):
    print(claim.id)
"""


def test_a_wait_that_cannot_be_read_holds_its_own_job_alone(queue: Queue) -> None:
    bad, good = queue.submit_all([quick_spec("bad", resources={"priority": 1}), quick_spec("good")])
    for path in (queue.paths.wait(bad), queue.paths.wait("nobody")):
        path.write_text('{"until": 0}')
        path.chmod(0)
    command = without_root_s([sys.executable, "-c", CLAIM_ALL, str(queue.home.root)])
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == f"{good}\n"
    queue.paths.wait(bad).chmod(0o644)
    assert claim(queue).id == bad


@pytest.mark.parametrize("outcome", ["succeeded", "interrupted", "lost"])
def test_folders_where_a_jobs_files_go_keep_no_attempt_from_being_settled(queue: Queue, outcome: Any) -> None:
    job_id = queue.submit(quick_spec())
    claimed = claim(queue)
    queue.paths.attempts(job_id).unlink()
    for path in (queue.paths.attempts, queue.paths.end, queue.paths.cancel_request, queue.paths.wait):
        (path(job_id) / "inside").mkdir(parents=True)
    assert settle(queue, claimed, outcome) == ("done" if outcome == "succeeded" else "pending")
    assert [entry["outcome"] for entry in queue.attempts(job_id).entries] == [outcome]


def test_a_ticket_that_this_version_does_not_take_ends_as_invalid(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    path = queue.paths.ticket("pending", job_id)
    ticket = json.loads(path.read_text())
    ticket["spec"]["model"] = {"name": "of the future"}
    path.write_text(json.dumps(ticket))
    ended = queue.claim("worker")
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    assert ended == Ended(job_id, end), "whoever claims is told, to say so"
    assert end.outcome == "invalid"
    assert "this version of the program does not take its spec" in end.why
    assert where(queue, job_id) == "failed"


@pytest.mark.parametrize("depth", [50, 200, 500, 900, 5000])
def test_a_deeply_nested_spec_ends_or_goes_to_quarantine(queue: Queue, depth: int) -> None:
    good = queue.submit(quick_spec("good"))
    job_id = queue.submit(quick_spec(resources={"priority": 9}))
    path = queue.paths.ticket("pending", job_id)
    ticket = json.loads(path.read_text())
    ticket["spec"]["data"] = "NESTED"
    path.write_text(json.dumps(ticket).replace('"NESTED"', "[" * depth + "]" * depth))
    ended = queue.claim("worker")
    if ended is not None and ended.id == job_id:
        assert isinstance(ended, Ended)
        assert ended.end.outcome == "invalid"
        assert claim(queue).id == good
    repair.repair(queue)
    assert not queue.paths.ticket("pending", job_id).exists()


def test_a_ticket_of_an_earlier_version_with_fewer_fields_runs_with_the_defaults(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    path = queue.paths.ticket("pending", job_id)
    ticket = json.loads(path.read_text())
    del ticket["spec"]["resources"]
    path.write_text(json.dumps(ticket))
    assert settle(queue, claim(queue), "lost") == "pending"


# Ending and queueing again


@pytest.mark.parametrize("outcome", list(FOLDER_OF))
def test_an_end_is_recorded_and_the_ticket_follows(queue: Queue, outcome: Any) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0, "priority": 3}))
    claimed = claim(queue)
    result = Result(1, outcome, "because", 2, 3, 40, {"test/accuracy": 0.5})
    end = queue.settle(claimed, result)
    assert end is not None
    assert (end.outcome, where(queue, job_id)) == (outcome, FOLDER_OF[outcome])
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    assert (end.outcome, end.why, end.epoch, end.step, end.metrics) == (outcome, "because", 2, 40, result.metrics)
    assert (end.id, end.name, end.priority) == (job_id, "quick", 3)
    assert end.submitted_at <= (end.started_at or "") <= (end.finished_at or "")
    assert queue.attempts(job_id).entries[0]["outcome"] == outcome


def end_it(root: Path, ticket: Ticket, outcome: Any, barrier: Any) -> None:
    """Not as a worker does: without the lease, and all at the same time."""
    queue = Queue(Home(root))
    barrier.wait()
    queue.end(Claim(ticket, Lease(Path("/dev/null"), 0), Attempts([{}])), Result(1, outcome, f"{os.getpid()}"))


def test_of_many_ends_at_once_the_first_stands_and_the_ticket_follows_it(queue: Queue) -> None:
    for _ in range(5):
        queue.submit(quick_spec())
        ticket = claim(queue).ticket
        job_id, outcomes = ticket.id, [*FOLDER_OF, "succeeded", "failed"]
        barrier = faults.fork.Barrier(len(outcomes))
        arguments = [(queue.home.root, ticket, outcome, barrier) for outcome in outcomes]
        enders = [faults.fork.Process(target=end_it, args=given) for given in arguments]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
        assert [ender.exitcode for ender in enders] == [0] * len(outcomes)
        end = End.read(queue.paths.end(job_id))
        assert end is not None
        assert end.why in {str(ender.pid) for ender in enders}
        assert where(queue, job_id) == FOLDER_OF[end.outcome]


def test_an_end_that_comes_right_after_a_look_for_one_is_not_taken_for_damaged(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queue.submit(quick_spec())
    first, second = claim(queue), Result(1, "failed", "second")
    read, reads = End.read, []

    def read_just_before_the_first_end(path: Path) -> End | None:
        reads.append(path)
        end = read(path)
        if len(reads) == 1:
            queue.end(first, Result(1, "succeeded", "first"))
        return end

    monkeypatch.setattr(End, "read", read_just_before_the_first_end)
    assert queue.end(first, second).end.why == "first"
    assert where(queue, job_id) == "done"
    end = read(queue.paths.end(job_id))
    assert end is not None
    assert end.why == "first"
    assert not list(queue.paths.quarantine.iterdir())


def test_a_second_end_changes_nothing(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    claimed = claim(queue)
    first = queue.settle(claimed, Result(1, "succeeded", "first"))
    before = queue.paths.end(job_id).read_bytes()
    assert queue.settle(claimed, Result(1, "failed", "second")) == first, "the first stands"
    assert queue.paths.end(job_id).read_bytes() == before


def test_an_interrupted_attempt_goes_back_and_uses_no_retry(queue: Queue) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    for number in range(1, 6):
        claimed = claim(queue)
        assert claimed.attempts.number == number
        assert settle(queue, claimed, "interrupted") == "pending"
    attempts = queue.attempts(job_id)
    assert attempts.retries_used == 0
    assert [entry["outcome"] for entry in attempts.entries] == ["interrupted"] * 5


def test_retries_run_out(queue: Queue) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 2}))
    states = []
    for _ in range(3):
        queue.paths.wait(job_id).unlink(missing_ok=True)
        states.append(settle(queue, claim(queue), "lost"))
    assert states == ["pending", "pending", "failed"]
    assert queue.attempts(job_id).retries_used == 2


@pytest.mark.parametrize(("retry_on", "state"), [(["lost"], "failed"), (["lost", "failed"], "pending")])
def test_a_failure_is_tried_again_only_where_the_job_file_asks_for_it(
    queue: Queue, retry_on: list[str], state: str
) -> None:
    queue.submit(quick_spec(resources={"retry_on": retry_on}))
    assert settle(queue, claim(queue), "failed") == state


def until(queue: Queue, job_id: str) -> float:
    record = durable.read_json(queue.paths.wait(job_id))
    assert record is not None
    return float(record["until"])


def test_a_retry_waits_longer_each_time_while_others_run(queue: Queue) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 9}))
    delays = []
    for number in range(9):
        before = time.time()
        settle(queue, claim(queue), "lost")
        delays.append(round(until(queue, job_id) - before))
        if number == 8:
            break
        queue.paths.wait(job_id).unlink()
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert queue.claim("worker") is None
    other = queue.submit(quick_spec())
    assert claim(queue).id == other
    assert not is_drained(queue), "a retry that waits for its time counts"


def test_a_retry_whose_time_has_come_is_claimed_by_itself(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    settle(queue, claim(queue), "lost")
    again = wait_until(lambda: queue.claim("worker"), "the retry's time to come")
    assert (again.id, again.attempts.number, again.attempts.retries_used) == (job_id, 2, 1)
    assert not queue.paths.wait(job_id).exists()


@pytest.mark.parametrize("value", [4e9, 1e400, 10**400, "soon", None, True])
def test_a_clock_set_back_or_a_damaged_wait_holds_no_job(queue: Queue, value: Any) -> None:
    job_id = queue.submit(quick_spec())
    queue.paths.wait(job_id).write_text(json.dumps({"until": value}))
    assert claim(queue).id == job_id


def test_a_wait_is_never_longer_than_twice_the_longest_back_off(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    longest = 2 * back_off.BACK_OFF_S[-1]
    queue.paths.wait(job_id).write_text(json.dumps({"until": time.time() + longest - 5}))
    assert queue.claim("worker") is None
    queue.paths.wait(job_id).write_text(json.dumps({"until": time.time() + longest + 5}))
    assert claim(queue).id == job_id


def test_a_retry_of_a_job_that_is_being_cancelled_is_cancelled_instead(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    claimed = claim(queue)
    assert repair.cancel(queue, job_id) == "stopping"
    assert settle(queue, claimed, "lost") == where(queue, job_id) == "cancelled"
    assert not queue.paths.cancel_request(job_id).exists()


def test_a_success_stands_although_somebody_asked_to_cancel(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    claimed = claim(queue)
    repair.cancel(queue, job_id)
    assert settle(queue, claimed, "succeeded") == where(queue, job_id) == "done"
    assert not queue.paths.cancel_request(job_id).exists()


# Looking


def test_a_queue_is_drained_when_nothing_waits_and_every_running_job_has_a_worker(queue: Queue) -> None:
    assert is_drained(queue)
    queue.submit(quick_spec())
    assert not is_drained(queue)
    lease = Lease.acquire(queue.paths.worker_lease("worker"))
    assert lease is not None
    claimed = claim(queue, "worker")
    assert is_drained(queue)
    lease.release()
    assert not is_drained(queue), "its worker is dead: the job will have to go on elsewhere"
    settle(queue, claimed, "succeeded")
    assert is_drained(queue)


def test_a_job_that_goes_back_between_two_looks_is_not_overlooked(queue: Queue) -> None:
    """It is queued again just when one of the folders was listed and the other was not yet."""
    job_id = queue.submit(quick_spec())
    claimed = claim(queue)
    listed: list[str] = []

    def requeue_at_the_second_look(event: str, arguments: tuple[object, ...]) -> None:
        name = Path(str(arguments[0])).name if event == "os.listdir" and arguments[0] else ""
        if name in ("pending", "running") and len(listed) < 2:
            listed.append(name)
            if len(listed) == 2:
                queue.tickets.move(job_id, "running", "pending")

    sys.addaudithook(requeue_at_the_second_look)
    assert not is_drained(queue)
    assert len(listed) == 2
    claimed.lease.release()


def test_what_a_killed_worker_was_writing_of_a_job_goes_with_the_next_claim(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    settle(queue, claim(queue), "interrupted")
    left = queue.paths.job(job_id) / ".attempts.json.123.abcd.tmp"
    left.write_text("{")
    claimed = claim(queue)
    assert not left.exists()
    left.write_text("{")
    claimed.lease.release()
    repair.repair(queue)
    assert not left.exists(), "nor is it left by a repair"


def test_live_workers_are_those_who_hold_a_lease(queue: Queue) -> None:
    queue.paths.worker_lease("dead").touch()
    lease = Lease.acquire(queue.paths.worker_lease("alive"))
    assert lease is not None
    assert queue.live_workers() == ["alive"]
    repair.repair(queue)
    assert [p.name for p in queue.worker_leases()] == [".worker-alive"]
