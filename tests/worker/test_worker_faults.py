"""What the system refuses a worker: it says so, tries again, and neither ends nor hangs for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quick import quick_spec, wait_until

from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.home.records import End
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue

WORKER = """
import errno, os, sys
from pathlib import Path
from pipeline.cli import main
from pipeline.worker import worker
from pipeline.worker.executors import local

HOME = Path(sys.argv[2])
COMMAND = {command!r}
if COMMAND:
    command_of = lambda claim: COMMAND.replace("RUN", str(HOME / "runs" / claim.id))
    local.LocalExecutor.command = lambda self, claim, alive_fd: ["sh", "-c", command_of(claim)]
{faults}
main.main()
"""
ONCE = """
refused = set()
def refuse_once(event, arguments):
    if event in ("os.listdir", "os.scandir") and (HOME / "armed").exists():
        folder = os.path.basename(str(arguments[0]))
        if folder in {folders!r} and folder not in refused:
            refused.add(folder)
            raise OSError(errno.{error}, os.strerror(errno.{error}), str(arguments[0]))
sys.addaudithook(refuse_once)
"""
ALWAYS = """
def refuse(event, arguments):
    if event == "open" and str(arguments[0]).endswith({end!r}):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(arguments[0]))
sys.addaudithook(refuse)
"""
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def queue(home: Home) -> Queue:
    queue = Queue(home)
    queue.create()
    return queue


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def start(output: Path) -> Iterator[Start]:
    """Starts a worker, after some `faults`; its attempts run a shell's command instead of training, if one is given."""
    started: list[subprocess.Popen[bytes]] = []

    def run(home: Home, *arguments: str, command: str = "", faults: str = "") -> subprocess.Popen[bytes]:
        code = WORKER.format(command=command, faults=faults)
        with output.open("wb") as file:
            words = [sys.executable, "-c", code, "--home", str(home.root), "worker", *arguments]
            started.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def end_of(queue: Queue, job_id: str) -> End:
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    return end


# A run folder that is removed


def test_a_run_that_is_removed_under_its_job_does_not_hold_the_slot(queue: Queue, start: Start) -> None:
    gone, good = queue.submit_all([quick_spec("gone", resources={"retries": 0}), quick_spec("good")])
    command = "case RUN in */gone-*) rm -rf RUN; exit 3;; esac; echo '{}' > RUN/seen; exit 4"
    assert start(queue.home, "--drain", command=command).wait(timeout=60) == 1
    assert end_of(queue, gone).why == "its process left with exit code 3 and no result; see the log"
    assert end_of(queue, good).why == "its process left with exit code 4 and no result; see the log"
    assert not queue.home.run(gone).root.exists()
    assert not Lease.is_held(queue.paths.lease(gone))


def test_a_training_job_whose_run_is_removed_is_lost_and_begins_anew(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(epochs=40, resources={"retries": 1}))
    worker = start(queue.home, "--drain")
    run = queue.home.run(job_id)
    wait_until(run.last.exists, "its first checkpoint")
    shutil.rmtree(run.root, ignore_errors=True)
    assert worker.wait(timeout=120) == 0
    assert [entry["outcome"] for entry in queue.attempts(job_id).entries] == ["lost", "succeeded"]
    assert "was removed" in queue.attempts(job_id).entries[0]["why"]
    assert end_of(queue, job_id).outcome == "succeeded"


# A full disk


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return ballast
    raise AssertionError("the disk has no end")


def test_a_disk_that_a_job_finds_full_uses_no_retry_holds_the_queue_and_goes_on_by_itself(
    small_disk: Path, start: Start, output: Path
) -> None:
    queue = Queue(Home(small_disk))
    first, second = queue.submit_all([quick_spec("first", resources={"retries": 0}), quick_spec("second")])
    command = f"""
    if [ -e {output.parent}/room ]; then exit 4; fi
    cat /dev/zero > {small_disk}/ballast; exit 75
    """
    worker = start(queue.home, "--drain", command=command)
    wait_until(lambda: "no job is started until there is more" in output.read_text(), "the worker to say so")
    (output.parent / "room").touch()
    (small_disk / "ballast").unlink()
    assert worker.wait(timeout=120) == 1
    said = output.read_text()
    assert said.count("no room on the disk") == 1
    assert said.count("there is room on the disk again") == 1
    assert "Traceback" not in said
    entries = queue.attempts(first).entries
    assert [entry["outcome"] for entry in entries] == ["interrupted", "failed"]
    assert entries[0]["lacked_room"]
    assert queue.attempts(first).retries_used == 0
    assert [entry["outcome"] for entry in queue.attempts(second).entries] == ["failed"], "the queue behind it waited"


@pytest.mark.parametrize("requests", [1, 2])
def test_a_worker_that_is_asked_to_leave_does_although_nothing_can_be_recorded(
    small_disk: Path, start: Start, output: Path, requests: int
) -> None:
    queue = Queue(Home(small_disk))
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    faults = "worker.RECORD_S = worker.GRACE_S = 1.0" if requests == 1 else ""
    worker = start(queue.home, command="trap '' TERM; touch RUN/here; while true; do sleep 1; done", faults=faults)
    wait_until((queue.home.run(job_id).root / "here").exists, "the attempt")
    ballast = fill(small_disk)
    worker.send_signal(signal.SIGTERM)
    if requests == 2:
        wait_until(lambda: "stopping: running jobs are saved" in output.read_text(), "the first to be seen")
        worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=30) in (0, 1)
    assert queue.tickets.state(job_id) == "running"
    assert not Lease.is_held(queue.paths.lease(job_id)), "nothing of it is left"
    ballast.unlink()
    assert start(queue.home, "--drain", command="exit 4").wait(timeout=60) == 1
    assert queue.attempts(job_id).entries[0]["outcome"] == "lost"


def test_signals_in_quick_succession_lose_no_job(queue: Queue, start: Start) -> None:
    """Somebody presses Ctrl-C three times; a terminal that closes sends several."""
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    worker = start(queue.home, command="trap '' TERM; touch RUN/here; while true; do sleep 1; done")
    wait_until((queue.home.run(job_id).root / "here").exists, "the attempt")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        worker.send_signal(number)
        wait_until(lambda: not pending_signals(worker.pid), "the signal to be taken")
    assert worker.wait(timeout=30) == 0
    assert queue.tickets.state(job_id) == "pending"
    assert [entry["outcome"] for entry in queue.attempts(job_id).entries] == ["interrupted"]


def pending_signals(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd")))


# Single calls that fail


@pytest.mark.parametrize("error", ["EMFILE", "EIO", "EACCES"])
def test_a_folder_that_cannot_be_listed_once_is_a_complaint(
    queue: Queue, start: Start, output: Path, error: str
) -> None:
    """At the start, when everything is repaired, and beside a job that runs."""
    folders = ("leases", "pending", "tmp", "control", "running")
    faults = ONCE.format(folders=folders, error=error)
    (queue.home.root / "armed").touch()
    first = queue.submit(quick_spec("first", resources={"retries": 0}))
    command = f"rm -f {queue.home.root}/armed; sleep 1; touch {queue.home.root}/armed; sleep 2; exit 4"
    rearmed = faults + f"\nif not {error == 'EIO'}: refused.update(('leases', 'tmp'))\n"
    assert start(queue.home, "--drain", command=command, faults=rearmed).wait(timeout=120) == 1
    said = output.read_text()
    assert "Traceback" not in said
    assert f"does not work right now: {os.strerror(getattr(__import__('errno'), error))}" in said
    assert end_of(queue, first).outcome == "failed"
    assert len(queue.attempts(first).entries) == 1


@pytest.mark.parametrize("end", ["attempts.json", "progress.json", "result.json"])
def test_a_record_that_cannot_be_read_is_said_in_its_row_and_the_rest_is_shown(queue: Queue, end: str) -> None:
    bad, good = queue.submit_all([quick_spec("bad"), quick_spec("good", resources={"priority": -5})])
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    queue.home.run(bad).root.mkdir(parents=True)
    queue.home.run(bad).progress.write_text("{}")
    code = WORKER.format(command="", faults=ALWAYS.format(end=f"{bad}/{end}"))
    for arguments in (["status", "--json"], ["show", bad, "--json"], ["status"]):
        words = [sys.executable, "-c", code, "--home", str(queue.home.root), *arguments]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert good in done.stdout or arguments[0] == "show"
        if end != "result.json":  # a job that runs has none
            assert "a record cannot be read now: Permission denied" in done.stdout
    view = json.loads(
        subprocess.run(
            [sys.executable, "-c", code, "--home", str(queue.home.root), "show", bad, "--json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert (view["id"], view["state"], view["name"]) == (bad, "running", "bad")
    claim.lease.release()


def test_a_wait_that_cannot_be_read_is_said_in_the_row_of_its_job(queue: Queue) -> None:
    """No worker takes the job as long as that is so."""
    job_id = queue.submit(quick_spec())
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    queue.requeue(claim, delay_s=1)
    claim.lease.release()
    code = WORKER.format(command="", faults=ALWAYS.format(end=f"{job_id}.wait"))
    words = [sys.executable, "-c", code, "--home", str(queue.home.root), "status"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert f"a record cannot be read now: Permission denied: {queue.paths.wait(job_id)}" in done.stdout


@pytest.mark.parametrize("end", ["attempts.json", "result.json"])
def test_an_unreadable_record_does_not_keep_a_drain_from_leaving(
    queue: Queue, start: Start, output: Path, end: str
) -> None:
    """The job of a dead worker, whose record is closed to this one; and a job that is fine."""
    bad = queue.submit(quick_spec("bad", resources={"priority": 5}))
    claim = queue.claim("gone")
    assert isinstance(claim, Claim)
    queue.home.run(bad).root.mkdir(parents=True)
    queue.home.run(bad).result.write_text("{}")
    claim.lease.release()
    good = queue.submit(quick_spec("good"))
    worker = start(queue.home, "--drain", command="exit 4", faults=ALWAYS.format(end=f"{bad}/{end}"))
    assert worker.wait(timeout=60) == 1
    assert end_of(queue, good).outcome == "failed"
    said = output.read_text()
    assert f"{bad}: its worker died, and it cannot be queued again now: Permission denied" in said
    assert said.count("cannot be queued again now") == 1, "once a minute"


@pytest.mark.parametrize("kind", ["its attempts", "its lease", "the lease of a worker"])
def test_a_waiting_job_that_cannot_be_claimed_is_said_and_not_waited_for(
    queue: Queue, start: Start, output: Path, kind: str
) -> None:
    bad = queue.submit(quick_spec("bad", resources={"priority": 5}))
    good = queue.submit(quick_spec("good"))
    end = "no such file"
    if kind == "its attempts":
        claim = queue.claim("somebody")
        assert isinstance(claim, Claim)
        queue.requeue(claim)
        claim.lease.release()
        end = f"{bad}/attempts.json"
    elif kind == "its lease":
        queue.paths.lease(bad).mkdir()
    else:
        queue.paths.worker_lease("somebody-1234").touch()
        end = ".worker-somebody-1234"
    faults = f"from pipeline.queue import refusals\nrefusals.PASS_OVER_S = 0.5\n{ALWAYS.format(end=end)}"
    assert start(queue.home, "--drain", command="exit 4", faults=faults).wait(timeout=60) == 1
    assert end_of(queue, good).outcome == "failed"
    is_left = kind != "the lease of a worker"
    assert (f"{bad}: is not waited for" in output.read_text()) == is_left
    assert queue.tickets.state(bad) == ("pending" if is_left else "failed")


def test_many_jobs_that_cannot_be_claimed_hold_up_no_other(queue: Queue, start: Start, output: Path) -> None:
    """More of them than a worker passes over in the time after which it tries the first one again."""
    bad = queue.submit_all([quick_spec("bad", resources={"priority": 5})] * 200)
    for job_id in bad:
        queue.paths.lease(job_id).mkdir()
    good = queue.submit(quick_spec("good"))
    start(queue.home, command="exit 4", faults="from pipeline.queue import refusals\nrefusals.PASS_OVER_S = 3.0")
    wait_until(lambda: queue.tickets.state(good) == "failed", "the one that can be claimed", deadline_s=60)
    assert f"{bad[0]}" in output.read_text()


def test_a_result_that_cannot_be_read_for_a_while_still_counts(queue: Queue, start: Start, output: Path) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    faults = f"""
worker.RECORD_S = 0.5
begun = time.monotonic()
def refuse(event, arguments):
    if event == "open" and str(arguments[0]).endswith("runs/{job_id}/result.json") and not (HOME / "readable").exists():
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))
sys.addaudithook(refuse)
"""
    left = '{"attempt": 1, "outcome": "succeeded", "why": "its own word"}'
    command = f"echo '{left}' > RUN/result.json; exit 0"
    worker = start(queue.home, "--drain", command=command, faults="import time\n" + faults)
    wait_until(lambda: "how it ended cannot be read now" in output.read_text(), "the worker to say so")
    (queue.home.root / "readable").touch()
    assert worker.wait(timeout=60) == 0
    assert (end_of(queue, job_id).outcome, end_of(queue, job_id).why) == ("succeeded", "its own word")


def test_what_a_killed_attempt_was_writing_goes_when_its_job_ends(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    command = "mkdir RUN/checkpoints; touch RUN/.manifest.json.1.ab.tmp RUN/checkpoints/.last.pt.1.ab.tmp; kill -9 $$"
    assert start(queue.home, "--drain", command=command).wait(timeout=60) == 1
    assert end_of(queue, job_id).outcome == "lost"
    assert list(queue.home.run(job_id).root.rglob(".*.tmp")) == []


def test_figures_that_cannot_be_read_hold_up_nothing(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 1}))
    claim = queue.claim("gone")
    assert isinstance(claim, Claim)
    queue.home.run(job_id).root.mkdir(parents=True)
    queue.home.run(job_id).progress.write_text("{}")
    claim.lease.release()
    faults = ALWAYS.format(end=f"{job_id}/progress.json")
    assert start(queue.home, "--drain", command="exit 4", faults=faults).wait(timeout=60) == 1
    assert [entry["outcome"] for entry in queue.attempts(job_id).entries] == ["lost", "failed"]


def test_complaints_name_no_temporary_file_so_that_each_comes_once(
    small_disk: Path, start: Start, output: Path
) -> None:
    """A record that cannot be written, many turns long; the one on the disk has another temporary name each time."""
    queue = Queue(Home(small_disk))
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    faults = """
from pipeline.queue import refusals
def refuse(event, arguments):
    if event == "open" and "attempts.json" in str(arguments[0]) and str(arguments[0]).endswith(".tmp"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))
sys.addaudithook(refuse)
refusals.PASS_OVER_S = 0.0  # tried again with each turn
"""
    worker = start(queue.home, command="exit 4", faults=faults)
    wait_until(lambda: "does not work right now" in output.read_text(), "the complaint")
    moments = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > moments, "fifteen turns of the loop")
    worker.terminate()
    assert worker.wait(timeout=30) == 0
    lines = [line for line in output.read_text().splitlines() if "Read-only file system" in line]
    assert lines == [
        f"worker: the queue: does not work right now: Read-only file system: {queue.paths.attempts(job_id)}"
    ]


# Ends that are told


def test_a_job_that_ends_while_it_is_claimed_is_told_and_counted(queue: Queue, start: Start, output: Path) -> None:
    job_id = queue.submit(quick_spec())
    path = queue.paths.ticket("pending", job_id)
    ticket = json.loads(path.read_text())
    ticket["spec"]["model"] = {"name": "of the future"}
    path.write_text(json.dumps(ticket))
    queue.home.run(job_id).root.mkdir(parents=True)  # of an earlier attempt
    assert start(queue.home, "--drain", command="exit 4").wait(timeout=60) == 1
    end = end_of(queue, job_id)
    assert f"worker: {job_id}: invalid: {end.why}" in output.read_text()
    assert "does not take its spec" in queue.home.run(job_id).report.read_text()


def test_a_job_that_a_dead_worker_left_is_told_and_counted_by_who_ends_it(
    queue: Queue, start: Start, output: Path
) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    claim = queue.claim("gone")
    assert isinstance(claim, Claim)
    claim.lease.release()
    assert start(queue.home, "--drain", command="exit 4").wait(timeout=60) == 1
    assert f"worker: {job_id}: its worker died; lost: attempt 1 was lost" in output.read_text()


def test_a_result_that_an_attempt_left_is_never_touched_by_its_worker(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    left = '{"attempt": 1, "outcome": "failed", "why": "its own word", "step": 3}'
    assert start(queue.home, "--drain", command=f"echo '{left}' > RUN/result.json; exit 1").wait(timeout=60) == 1
    assert queue.home.run(job_id).result.read_text() == left + "\n"
    assert end_of(queue, job_id).why == "its own word"
    other = queue.submit(quick_spec("other", resources={"retries": 0}))
    assert start(queue.home, "--drain", command="kill -9 $$").wait(timeout=60) == 1
    assert end_of(queue, other).outcome == "lost"
    assert not queue.home.run(other).result.exists()


# What a job leaves where its records go


def test_a_job_that_puts_folders_where_its_records_go_is_ended_all_the_same(queue: Queue, start: Start) -> None:
    vandal, good = queue.submit_all([quick_spec("vandal", resources={"retries": 0}), quick_spec("good")])
    records, request = queue.paths.job(vandal), queue.paths.cancel_request(vandal)
    folders = f"{records}/result.json {records}/attempts.json {request} RUN/result.json"
    command = f"case RUN in */vandal-*) rm {records}/attempts.json; mkdir -p {folders};; esac; exit 3"
    assert start(queue.home, "--drain", command=command).wait(timeout=60) == 1
    why = "its process left with exit code 3 and no result; see the log"
    assert [end_of(queue, job_id).why for job_id in (vandal, good)] == [why, why]
    assert queue.tickets.ids("failed") == [vandal, good] or queue.tickets.ids("failed") == [good, vandal]


def test_a_run_that_is_no_folder_and_a_log_that_is_a_pipe_stop_no_attempt(queue: Queue, start: Start) -> None:
    first, second = queue.submit_all([quick_spec("first", resources={"retries": 0}), quick_spec("second")])
    queue.home.run(first).root.touch()
    queue.home.run(second).root.mkdir()
    os.mkfifo(queue.home.run(second).log(1))
    for path in (queue.home.run(second).spec, queue.home.run(second).progress, queue.home.run(second).result):
        path.mkdir()
    assert start(queue.home, "--drain", command="exit 3").wait(timeout=60) == 1
    assert [end_of(queue, job_id).attempt for job_id in (first, second)] == [1, 2]


def test_an_attempt_is_not_judged_by_the_result_of_an_earlier_one_with_its_number(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    run = queue.home.run(job_id)
    run.root.mkdir()
    run.result.write_text('{"attempt": 1, "outcome": "succeeded", "why": "an earlier word"}')
    assert start(queue.home, "--drain", command="test ! -e RUN/result.json && exit 5").wait(timeout=60) == 1
    assert end_of(queue, job_id).why == "its process left with exit code 5 and no result; see the log"


# An end that cannot be recorded

NO_END = """
def refuse(event, arguments):
    if event == "os.link" and "/jobs/first-" in str(arguments[1]):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(arguments[1]))
sys.addaudithook(refuse)
"""


def test_a_job_whose_end_cannot_be_recorded_gives_its_slot_to_others(queue: Queue, start: Start, output: Path) -> None:
    first, second = queue.submit_all([quick_spec("first", resources={"retries": 0}), quick_spec("second")])
    worker = start(queue.home, command="exit 6", faults=f"worker.RECORD_S = 1\n{NO_END}")
    wait_until(queue.paths.end(second).exists, "the end of the second job")
    assert queue.tickets.state(first) == "running"
    assert Lease.is_held(queue.paths.lease(first))
    worker.terminate()
    assert worker.wait(timeout=60) == 0
    assert f"{first}: how it ended cannot be recorded now" in output.read_text()
    assert start(queue.home, "--drain", command="exit 6").wait(timeout=60) == 1
    assert end_of(queue, first).outcome == "lost"


def test_a_drain_does_not_wait_for_ever_for_an_end_that_cannot_be_recorded(
    queue: Queue, start: Start, output: Path
) -> None:
    first, second = queue.submit_all([quick_spec("first", resources={"retries": 0}), quick_spec("second")])
    worker = start(queue.home, "--drain", command="exit 6", faults=f"worker.DRAIN_S = 1\n{NO_END}")
    assert worker.wait(timeout=60) == 1
    assert end_of(queue, second).outcome == "failed"
    assert f"{first}: how it ended cannot be recorded now; the next worker sees to it" in output.read_text()


def test_a_worker_that_inherits_an_ignored_sigchld_sees_its_attempts_end(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    ignoring = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    assert start(queue.home, "--drain", command="exit 7", faults=ignoring).wait(timeout=60) == 1
    assert end_of(queue, job_id).why == "its process left with exit code 7 and no result; see the log"


# What a job may take


def test_a_job_that_prints_without_end_keeps_a_small_log(queue: Queue, start: Start, output: Path) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    sizes = "attempt_log.LIMIT_BYTES, attempt_log.HEAD_BYTES, attempt_log.TAIL_BYTES = 2 << 20, 1 << 20, 128 << 10"
    faults = f"from pipeline.home import attempt_log\n{sizes}\n"
    command = "echo the beginning; yes a line | head -c 299999994; echo the end; exit 3"
    assert start(queue.home, "--drain", command=command, faults=faults).wait(timeout=120) == 1
    text = queue.home.run(job_id).log(1).read_text()
    assert len(text) <= 2 << 20
    assert text.startswith("the beginning\na line\n")
    assert text.endswith("a line\nthe end\n")
    assert "bytes were left out here: a log is kept to 2,097,152 ...\n" in text
    assert "the end" in output.read_text()


def test_a_job_that_takes_more_memory_than_it_may_is_ended(queue: Queue, start: Start) -> None:
    large, small = queue.submit_all([quick_spec(name, resources={"memory": "300MB"}) for name in ("large", "small")])
    eat = f"{sys.executable} -c 'import time; eaten = bytes(1) * 600_000_000; time.sleep(600)'"
    command = f"case RUN in */large-*) {eat};; esac; exit 3"
    assert start(queue.home, "--drain", command=command).wait(timeout=120) == 1
    end = end_of(queue, large)
    assert (end.outcome, end.attempt) == ("failed", 1)
    assert re.match(r"it took [3-6]\d\d MB of memory, more than resources.memory, 300 MB; a smaller", end.why)
    assert end_of(queue, small).why == "its process left with exit code 3 and no result; see the log"
