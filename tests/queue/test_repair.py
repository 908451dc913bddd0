"""Whatever a crash leaves between two calls of the system, the queue is whole again after the next start."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from quick import quick_spec

from pipeline.errors import QueueError, UsageError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import STATES, Home
from pipeline.home.records import FOLDER_OF, Attempts, End, Outcome, Result
from pipeline.queue import repair, views
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.job_queue import Queue

Given = tuple[Path, str]
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def queue_at(root: Path) -> Queue:
    queue = Queue(Home(root))
    queue.create()
    return queue


@pytest.fixture
def queue(home: Home) -> Queue:
    return queue_at(home.root)


def claim(queue: Queue) -> Claim:
    found = queue.claim("worker")
    assert isinstance(found, Claim)
    return found


def lines(done: list[repair.Repaired]) -> list[str]:
    return [repaired.line for repaired in done]


def attempt(queue: Queue, outcome: Outcome) -> str | None:
    """One attempt, as a worker and its child record it; the state after it, None where there was nothing to claim."""
    claimed = queue.claim("worker")
    if not isinstance(claimed, Claim):
        return None
    result = Result(claimed.attempts.number, outcome, f"{outcome}, as it was", step=10)
    durable.make_folder(queue.home.run(claimed.id).root)
    queue.home.run(claimed.id).log(claimed.attempts.number).touch()
    result.write(queue.home.run(claimed.id).result)
    queue.settle(claimed, result)
    claimed.lease.release()
    return queue.tickets.state(claimed.id)


def abandon(queue: Queue, job_id: str) -> None:
    """Leave a job as a worker does that is killed together with its child."""
    claimed = claim(queue)
    assert claimed.id == job_id
    os.close(claimed.lease.fd)


def check_is_whole(queue: Queue, job_id: str) -> str:
    """The job's state; one ticket, where its recorded end says, and nothing thrown away."""
    [state] = [state for state in STATES if queue.paths.ticket(state, job_id).exists()]
    end = End.read(queue.paths.end(job_id))
    assert state == ("pending" if end is None else FOLDER_OF[end.outcome])
    assert queue.tickets.read(state, job_id) is not None
    assert queue.tickets.quarantined() == []
    assert not Lease.is_held(queue.paths.lease(job_id))
    return state


# Each operation, killed before each of its calls: what lay there before it, and what may lie there after it


def waiting(queue: Queue) -> str:
    return queue.submit(quick_spec(resources={"retries": 1}))


def failed(queue: Queue) -> str:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    assert attempt(queue, "failed") == "failed"
    return job_id


def abandoned(queue: Queue) -> str:
    job_id = waiting(queue)
    abandon(queue, job_id)
    return job_id


def abandoned_with_a_result(queue: Queue) -> str:
    job_id = abandoned(queue)
    durable.make_folder(queue.home.run(job_id).root)
    Result(1, "succeeded", "trained").write(queue.home.run(job_id).result)
    return job_id


def waits_for_its_retry(queue: Queue) -> str:
    job_id = waiting(queue)
    assert attempt(queue, "lost") == "pending"
    return job_id


def do_claim(root: Path, job_id: str) -> None:  # noqa: ARG001
    queue_at(root).claim("victim")


def do_attempt(outcome: Outcome, root: Path, job_id: str) -> None:  # noqa: ARG001
    attempt(queue_at(root), outcome)


def do_cancel(root: Path, job_id: str) -> None:
    repair.cancel(queue_at(root), job_id)


def do_retry(root: Path, job_id: str) -> None:
    repair.retry(queue_at(root), job_id)


def do_repair(root: Path, job_id: str) -> None:  # noqa: ARG001
    repair.repair(queue_at(root))


Operation = Callable[[Path, str], None]
OPERATIONS: dict[str, tuple[Callable[[Queue], str], Operation, set[str]]] = {
    "claim": (waiting, do_claim, {"pending"}),
    "claim of a retry": (waits_for_its_retry, do_claim, {"pending"}),
    "success": (waiting, functools.partial(do_attempt, "succeeded"), {"pending", "done"}),
    "failure": (waiting, functools.partial(do_attempt, "failed"), {"pending", "failed"}),
    "interruption": (waiting, functools.partial(do_attempt, "interrupted"), {"pending"}),
    "loss": (waiting, functools.partial(do_attempt, "lost"), {"pending"}),
    "cancel of a waiting job": (waiting, do_cancel, {"pending", "cancelled"}),
    "cancel of a waiting retry": (waits_for_its_retry, do_cancel, {"pending", "cancelled"}),
    "cancel of an abandoned job": (abandoned, do_cancel, {"pending", "cancelled"}),
    "retry": (failed, do_retry, {"failed", "pending"}),
    "repair of an abandoned job": (abandoned, do_repair, {"pending"}),
    "repair of an end that nobody recorded": (abandoned_with_a_result, do_repair, {"done"}),
}


@pytest.fixture
def at_each_call(tmp_path: Path) -> Any:
    """Runs an operation with a fault at each of its calls, each time on a new home."""

    def run(name: str, fault: faults.Fault) -> Iterator[tuple[Queue, str, faults.Outcome]]:
        make, operation, _ = OPERATIONS[name]

        def prepare() -> Given:
            queue = queue_at(Path(tempfile.mkdtemp(dir=tmp_path)))
            return queue.home.root, make(queue)

        for root, job_id, outcome in faults.at_each_call(operation, fault, prepare):
            yield queue_at(root), job_id, outcome
            shutil.rmtree(root)

    return run


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_any_call_a_job_is_in_one_place_and_can_be_finished(name: str, at_each_call: Any) -> None:
    seen = set()
    for queue, job_id, _ in at_each_call(name, "kill"):
        repair.repair(queue)
        state = check_is_whole(queue, job_id)
        seen.add(state)
        assert repair.repair(queue) == [], "nothing is left to repair"
        finish(queue, job_id, state)
    assert seen == OPERATIONS[name][2]


@pytest.mark.parametrize("fault", ["one EIO", "full disk"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_refused_by_the_disk_at_any_call_a_job_is_in_one_place_and_can_be_finished(
    name: str, fault: faults.Fault, at_each_call: Any
) -> None:
    for queue, job_id, outcome in at_each_call(name, fault):
        if outcome.error is not None:
            assert isinstance(outcome.error, (OSError, QueueError)), outcome
            assert isinstance(outcome.error, QueueError) or "cancel" not in name
        repair.repair(queue)
        state = check_is_whole(queue, job_id)
        assert state in OPERATIONS[name][2]
        finish(queue, job_id, state)


def finish(queue: Queue, job_id: str, state: str) -> None:
    """Whatever state the job is in: it can be brought to a success, by attempts that are counted on."""
    assert len(queue.attempts(job_id).entries) <= 2
    if state in ("failed", "cancelled"):
        repair.retry(queue, job_id)
    if state != "done":
        before = queue.attempts(job_id).number
        queue.paths.wait(job_id).unlink(missing_ok=True)
        if queue.stop_request(job_id):
            ended = queue.claim("worker")
            assert isinstance(ended, Ended)
            assert ended.end.outcome == check_is_whole(queue, job_id) == "cancelled"
            repair.retry(queue, job_id)
        assert attempt(queue, "succeeded") == "done"
        assert queue.attempts(job_id).number == before + 1
    assert check_is_whole(queue, job_id) == "done"


def test_a_retry_that_is_killed_leaves_a_job_that_waits_or_has_its_end(at_each_call: Any) -> None:
    """No repair is needed before the job is one of the two: there may be no worker for days."""
    for queue, job_id, _ in at_each_call("retry", "kill"):
        assert queue.tickets.state(job_id) == "pending" or End.read(queue.paths.end(job_id)) is not None
        claimed = queue.claim("worker")
        assert (claimed is None) == (End.read(queue.paths.end(job_id)) is not None)
        assert queue.tickets.state(job_id) == ("running" if claimed else "failed")


def test_an_attempt_that_ended_is_not_run_again_after_a_kill_while_its_end_was_recorded(at_each_call: Any) -> None:
    for queue, job_id, _ in at_each_call("failure", "kill"):
        result = Result.read(queue.home.run(job_id).result)
        repair.repair(queue)
        assert check_is_whole(queue, job_id) == ("failed" if result else "pending")


# Repair


def test_a_job_whose_worker_and_child_died_is_tried_again(queue: Queue) -> None:
    job_id = abandoned(queue)
    assert lines(repair.repair(queue)) == [f"{job_id}: its worker died; now pending"]
    [entry] = queue.attempts(job_id).entries
    assert entry["outcome"] == "lost"
    assert queue.attempts(job_id).retries_used == 1
    assert entry["why"] == "attempt 1 was lost: its worker was killed, or the machine went down"
    assert not queue.home.run(job_id).result.exists(), "that is the attempt's own"


def test_a_job_whose_retries_have_run_out_is_lost(queue: Queue) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    abandon(queue, job_id)
    [repaired] = repair.repair(queue)
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    assert repaired == repair.Repaired(f"{job_id}: its worker died; lost: {end.why}", job_id, end)
    assert end.outcome == "lost"


def test_a_job_whose_child_still_lives_is_left_alone(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    claimed = claim(queue)
    assert repair.repair(queue_at(queue.home.root)) == []
    assert queue.tickets.state(job_id) == "running"
    claimed.lease.release()


def test_a_result_of_an_earlier_attempt_is_not_that_of_the_abandoned_one(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    assert attempt(queue, "interrupted") == "pending"
    abandon(queue, job_id)
    repair.repair(queue)
    assert [entry["outcome"] for entry in queue.attempts(job_id).entries] == ["interrupted", "lost"]


def test_tickets_put_into_the_wrong_folder_go_where_their_end_says(queue: Queue) -> None:
    """As after a restore from a backup that was taken while jobs ran."""
    ended, waits = failed(queue), waiting(queue)
    for state in ("pending", "done", "cancelled", "running"):
        ticket = queue.paths.ticket(queue.tickets.state(ended) or "", ended)
        ticket.rename(queue.paths.ticket(state, ended))
        queue.paths.ticket(queue.tickets.state(waits) or "", waits).rename(queue.paths.ticket(state, waits))
        repair.repair(queue)
        assert check_is_whole(queue, ended) == "failed"
        assert check_is_whole(queue, waits) == "pending"


@pytest.mark.parametrize("state", ["pending", "running", "failed"])
@pytest.mark.parametrize("content", [b"", b"{", b'{"outcome":"succeeded"}', b"\xff", b'{"attempt":1,"outcome":"?"}'])
def test_a_damaged_end_goes_to_quarantine_and_the_job_runs_again(queue: Queue, state: str, content: bytes) -> None:
    job_id = failed(queue)
    queue.paths.end(job_id).write_bytes(content)
    queue.tickets.move(job_id, "failed", state)
    repair.repair(queue)
    if state == "pending":  # nothing is wrong with where it lies; it is looked at when it is claimed
        queue.claim("worker")
        assert queue.tickets.state(job_id) == "running"
    else:
        assert queue.tickets.state(job_id) == "pending"
        assert attempt(queue, "succeeded") == "done"
    [line] = queue.tickets.quarantined()
    assert line == f"{queue.paths.end(job_id)}: it is not a job's end; the job counts as not ended"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"entries":5}',
        b'{"entries":[1,2]}',
        b'{"retries_used":"many"}',
        b'{"entries":[{"started_at":5}]}',
        b'{"retries_used":-9}',
        b'{"entries":[{"outcome":"?"}]}',
    ],
)
def test_damaged_attempts_go_to_quarantine_and_are_counted_by_their_logs(queue: Queue, content: bytes) -> None:
    job_id = queue.submit(quick_spec())
    for _ in range(3):
        attempt(queue, "interrupted")
    (queue.home.run(job_id).root / "attempt-of-mine.log").touch()
    queue.paths.attempts(job_id).write_bytes(content)
    claimed = claim(queue)
    assert claimed.attempts.number == 4
    assert queue.tickets.quarantined() == [
        f"{queue.paths.attempts(job_id)}: it is not a record of attempts; they are counted by their logs"
    ]
    claimed.lease.release()


def test_no_attempt_gets_the_number_of_one_that_has_left_a_log(queue: Queue) -> None:
    job_id = queue.submit(quick_spec())
    for _ in range(2):
        attempt(queue, "interrupted")
    queue.paths.attempts(job_id).unlink()
    queue.home.run(job_id).log(99999999).touch()  # which is nobody's
    claimed = claim(queue)
    assert claimed.attempts.number == 3
    assert [entry["outcome"] for entry in claimed.attempts.entries[:2]] == ["lost", "lost"]
    claimed.lease.release()


CLAIM = """
import sys
from pathlib import Path
from pipeline.home.paths import Home
from pipeline.queue.job_queue import Queue
try:
    print(Queue(Home(Path(sys.argv[1]))).claim("worker"))
except OSError as error:
    print(error.strerror)
"""


@needs_strace
@pytest.mark.parametrize(("error", "words"), [("EIO", "Input/output error"), ("EACCES", "Permission denied")])
def test_a_record_of_attempts_that_cannot_be_seen_now_is_not_begun_anew(queue: Queue, error: str, words: str) -> None:
    job_id = queue.submit(quick_spec())
    attempt(queue, "interrupted")
    shutil.rmtree(queue.home.run(job_id).root)  # with its logs, by which attempts are counted as well
    record = queue.paths.attempts(job_id).read_bytes()
    strace = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        queue.paths.attempts(job_id),
        "-e",
        f"inject=%file:error={error}",
    ]
    command = [*strace, sys.executable, "-c", CLAIM, queue.home.root]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"{words}\n"
    assert queue.tickets.state(job_id) == "pending"
    assert queue.paths.attempts(job_id).read_bytes() == record
    assert claim(queue).attempts.number == 2


def test_records_may_be_pipes_or_folders_and_nothing_stops(queue: Queue) -> None:
    job_id = abandoned(queue)
    queue.paths.attempts(job_id).unlink()
    os.mkfifo(queue.paths.attempts(job_id))
    queue.paths.end(job_id).mkdir()
    other = queue.submit(quick_spec("other"))
    repair.repair(queue)
    assert {claim(queue).id, claim(queue).id} == {job_id, other}
    assert len(queue.tickets.quarantined()) == 2


def test_a_job_that_cannot_be_repaired_now_does_not_stop_the_repair_of_others(queue: Queue) -> None:
    first, second = waiting(queue), waiting(queue)
    abandon(queue, first)
    abandon(queue, second)
    queue.paths.lease(first).unlink()
    queue.paths.lease(first).symlink_to("nowhere")  # which is never followed
    done = lines(repair.repair(queue))
    assert any(line.startswith(f"{first}: its worker died, and it cannot be queued again now") for line in done)
    assert f"{second}: its worker died; now pending" in done
    queue.paths.lease(first).unlink()
    assert lines(repair.repair(queue)) == [f"{first}: its worker died; now pending"]


def test_what_killed_processes_were_writing_is_removed_when_it_is_old(queue: Queue) -> None:
    for folder in (queue.paths.tmp, queue.paths.control, queue.paths.quarantine):
        for name, age_s in (("old", 2 * repair.OLD_TEMPORARY_S), ("new", 0)):
            path = folder / f".{name}.1.00ff.tmp"
            path.touch()
            os.utime(path, (path.stat().st_atime - age_s, path.stat().st_mtime - age_s))
    (queue.paths.tmp / ".folder.tmp").mkdir()
    repair.repair(queue)
    assert sorted(p.name for p in queue.paths.tmp.iterdir()) == [".folder.tmp", ".new.1.00ff.tmp"]
    assert [p.name for p in queue.paths.control.iterdir()] == [".new.1.00ff.tmp"]


# Cancelling and retrying


def test_cancelling_a_waiting_job_ends_it(queue: Queue) -> None:
    job_id = waiting(queue)
    assert repair.cancel(queue, job_id) == "cancelled"
    assert check_is_whole(queue, job_id) == "cancelled"
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    assert (end.outcome, end.why, end.attempt) == ("cancelled", "cancelled while it waited", 0)
    assert queue.claim("worker") is None


def test_cancelling_a_waiting_retry_keeps_the_figures_of_its_latest_attempt(queue: Queue) -> None:
    job_id = waits_for_its_retry(queue)
    assert repair.cancel(queue, job_id) == "cancelled"
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    assert (end.attempt, end.step, end.outcome) == (1, 10, "cancelled")


def test_cancelling_a_running_job_asks_its_worker(queue: Queue) -> None:
    job_id = waiting(queue)
    claimed = claim(queue)
    assert repair.cancel(queue, job_id) == "stopping"
    assert queue.stop_request(job_id)
    assert queue.tickets.state(job_id) == "running"
    end = queue.settle(claimed, Result(1, "cancelled", "cancelled at step 5"))
    assert end is not None
    assert queue.tickets.state(job_id) == end.outcome == "cancelled"
    claimed.lease.release()
    assert not queue.stop_request(job_id)


def test_cancelling_an_abandoned_job_ends_it(queue: Queue) -> None:
    job_id = abandoned(queue)
    assert repair.cancel(queue, job_id) == "cancelled"
    assert check_is_whole(queue, job_id) == "cancelled"


def test_an_abandoned_job_that_had_succeeded_cannot_be_cancelled(queue: Queue) -> None:
    job_id = abandoned_with_a_result(queue)
    with pytest.raises(QueueError, match=r"has ended already \(done\)"):
        repair.cancel(queue, job_id)
    assert check_is_whole(queue, job_id) == "done"
    assert not queue.stop_request(job_id)


@pytest.mark.parametrize("outcome", FOLDER_OF)
def test_an_ended_job_cannot_be_cancelled(queue: Queue, outcome: Any) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    state = attempt(queue, outcome)
    before = queue.paths.end(job_id).read_bytes()
    with pytest.raises(QueueError, match="has ended already"):
        repair.cancel(queue, job_id)
    assert check_is_whole(queue, job_id) == state
    assert queue.paths.end(job_id).read_bytes() == before
    assert not queue.stop_request(job_id)


def test_a_job_cancelled_while_it_is_claimed_is_cancelled_or_told_to_stop(queue: Queue) -> None:
    """Many times at once, from two threads; whoever is first, the job does not run on."""
    for _ in range(60):
        job_id = waiting(queue)
        claims: list[Claim | Ended | None] = []
        claimer = threading.Thread(target=lambda claims=claims: claims.append(queue_at(queue.home.root).claim("w")))
        claimer.start()
        answer = repair.cancel(queue, job_id)
        claimer.join()
        [claimed] = claims
        if isinstance(claimed, Claim):
            assert answer == "stopping"
            assert queue.stop_request(job_id)
            queue.settle(claimed, Result(1, "cancelled", "cancelled"))
            claimed.lease.release()
        elif queue.tickets.state(job_id) == "pending":  # each was in the other's way
            assert answer == "stopping"
            assert isinstance(queue.claim("w"), Ended)
        assert check_is_whole(queue, job_id) == "cancelled"


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "lost", "invalid", "cancelled"])
def test_a_job_that_did_not_succeed_can_be_retried_in_the_same_run(queue: Queue, outcome: Any) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 1}))
    while attempt(queue, outcome) == "pending":
        queue.paths.wait(job_id).unlink()
    number = queue.attempts(job_id).number
    end = queue.paths.end(job_id).read_bytes()
    repair.retry(queue, job_id)
    assert check_is_whole(queue, job_id) == "pending"
    assert queue.paths.end(job_id).with_name(f"result-{number}.json").read_bytes() == end, "the former end is kept"
    claimed = claim(queue)
    assert (claimed.attempts.number, claimed.attempts.retries_used) == (number + 1, 0)
    claimed.lease.release()


def test_a_cancel_that_came_just_after_the_end_does_not_cancel_the_retry(queue: Queue) -> None:
    job_id = failed(queue)
    durable.replace_json(queue.paths.cancel_request(job_id), {})
    repair.retry(queue, job_id)
    assert claim(queue).id == job_id


def test_a_cancel_cannot_come_back_after_a_retry_that_was_told(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it was removed is on stable storage before the job waits again: a power cut must not cancel it."""
    job_id = failed(queue)
    durable.replace_json(queue.paths.cancel_request(job_id), {})
    synced, fsync = [], os.fsync

    def record(fd: int) -> None:
        is_requested = queue.paths.cancel_request(job_id).exists()
        synced.append((Path(f"/proc/self/fd/{fd}").readlink(), is_requested, queue.tickets.state(job_id)))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    repair.retry(queue, job_id)
    assert (queue.paths.control, False, "failed") in synced


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("pending", "is pending; only a failed or cancelled job can be retried"),
        ("running", "is running"),
        ("done", "is done; .* submit its job file again for a new run"),
    ],
)
def test_only_a_failed_or_cancelled_job_can_be_retried(queue: Queue, state: str, message: str) -> None:
    job_id = waiting(queue)
    if state == "done":
        attempt(queue, "succeeded")
    claimed = claim(queue) if state == "running" else None
    with pytest.raises(QueueError, match=message):
        repair.retry(queue, job_id)
    assert queue.tickets.state(job_id) == state
    if claimed is not None:
        claimed.lease.release()


def test_an_attempt_left_open_by_a_crash_is_closed_by_a_retry(queue: Queue) -> None:
    job_id = failed(queue)
    record = durable.read_json(queue.paths.attempts(job_id)) or {}
    del record["entries"][0]["outcome"], record["entries"][0]["why"]
    queue.paths.attempts(job_id).write_text(json.dumps(record))
    repair.retry(queue, job_id)
    assert queue.attempts(job_id).entries[0]["outcome"] == "failed"


# Looking at jobs that move, and at tickets that are none


def test_a_torn_ticket_is_shown_as_an_error_and_not_waited_for(queue: Queue) -> None:
    job_id = waiting(queue)
    queue.paths.ticket("pending", job_id).write_bytes(b"{")
    with pytest.raises(UsageError, match=f"{job_id}: its ticket cannot be read"):
        views.find(queue, job_id)
    assert views.jobs(queue) == []


def test_a_job_that_goes_back_and_forth_is_never_missing_from_the_status(queue: Queue) -> None:
    job_id, stop = waiting(queue), threading.Event()

    def back_and_forth() -> None:
        while not stop.is_set():
            queue.paths.ticket("pending", job_id).rename(queue.paths.ticket("running", job_id))
            queue.paths.ticket("running", job_id).rename(queue.paths.ticket("pending", job_id))

    mover = threading.Thread(target=back_and_forth)
    mover.start()
    try:
        for _ in range(50):
            assert queue.tickets.find(job_id) == job_id
            assert len(views.jobs(queue)) <= 1
    finally:
        stop.set()
        mover.join()
    assert [view.id for view in views.jobs(queue)] == [job_id]


def test_attempts_are_counted_on_over_ends_and_retries(queue: Queue) -> None:
    job_id = failed(queue)
    for _ in range(3):
        repair.retry(queue, job_id)
        attempt(queue, "failed")
    attempts = Attempts.read(queue.paths.attempts(job_id))
    assert attempts is not None
    assert attempts.number == 4
    assert len(list((queue.paths.jobs / job_id).glob("result*.json"))) == 4
