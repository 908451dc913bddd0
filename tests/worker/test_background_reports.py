"""The worker has a page written of every job that ends, in the background, and it never changes how the job ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quick import quick_spec, wait_until
from worker_processes import leave_dead

from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.home.records import End
from pipeline.queue import repair
from pipeline.queue.job_queue import Queue

# What runs in the place of training is told by the job's name.
CHILDREN = """
from pipeline.cli import main
from pipeline.worker.executors import local
scripts = {
    "failed": "exit 7",
    "lost": "kill -9 $$",
    "late": "sleep 600",
    "cancelled": "sleep 600",
    "again": "kill -TERM $PPID; sleep 600",
    "folder": "mkdir $(echo runs/*)/report.html; exit 7",
}
local.LocalExecutor.command = lambda self, claim, alive_fd: ["sh", "-c", scripts[claim.ticket.name]]
main.main()
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def queue(home: Home) -> Queue:
    queue = Queue(home)
    queue.create()
    return queue


@pytest.fixture
def start(home: Home, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker in the home's folder, with children that do not train. After the test it is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILDREN, "--home", str(home.root), "worker", *arguments]
        with (tmp_path / "output").open("wb") as output:
            options = {"cwd": home.root, "env": {**os.environ, **environment}}
            started.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options))  # type: ignore[call-overload]
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def submit(queue: Queue, name: str, **resources: object) -> str:
    return queue.submit(quick_spec(name, resources={"retries": 0, **resources}))


def test_every_end_of_a_job_that_has_a_run_has_a_page(queue: Queue, home: Home, start: Start) -> None:
    """Failed, lost, timed out; cancelled while it ran. A drain waits for the last page."""
    cancelled = submit(queue, "cancelled", priority=1)
    jobs = [submit(queue, "failed"), submit(queue, "lost"), submit(queue, "late", timeout=1)]
    worker = start("--drain")
    wait_until(lambda: queue.tickets.state(cancelled) == "running" and home.run(cancelled).log(1).exists(), "its start")
    repair.cancel(queue, cancelled)
    assert worker.wait() == 1
    outcomes = {}
    for job_id in (cancelled, *jobs):
        end = End.read(queue.paths.end(job_id))
        assert end is not None
        assert end.why in home.run(job_id).report.read_text().replace("&#39;", "'")
        outcomes[end.name] = end.outcome
    assert outcomes == {"cancelled": "cancelled", "failed": "failed", "lost": "lost", "late": "timed_out"}


def test_a_job_that_its_worker_left_dead_has_a_page_when_another_one_ends_it(
    queue: Queue, home: Home, start: Start
) -> None:
    job_id = submit(queue, "lost")
    leave_dead(queue, job_id)
    assert start("--drain").wait() == 1, "a job did not succeed, and nobody else says so"
    assert "was lost: its worker was killed" in home.run(job_id).report.read_text()


def test_an_attempt_that_is_queued_again_has_no_page_yet(queue: Queue, home: Home, start: Start) -> None:
    job_id = submit(queue, "again")
    assert start().wait() == 0
    assert queue.tickets.state(job_id) == "pending"
    assert not home.run(job_id).report.exists()


def test_a_page_that_cannot_be_written_is_said_and_changes_no_end(
    queue: Queue, home: Home, start: Start, tmp_path: Path
) -> None:
    job_id = submit(queue, "folder")
    assert start("--drain").wait() == 1
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    assert (end.outcome, queue.tickets.state(job_id)) == ("failed", "failed")
    [line] = [line for line in (tmp_path / "output").read_text().splitlines() if "report" in line]
    assert line.startswith(f"worker: {job_id}: its report was not written: {home.run(job_id).report}: is a folder")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe that processes of reports, with its folder in PYTHONPATH, wait at before they begin."""
    os.mkfifo(tmp_path / "gate")
    code = f"import sys\nif 'pipeline.results.report' in sys.orig_argv:\n    open({str(tmp_path / 'gate')!r}).read()\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    return tmp_path / "gate"


def writers(job_id: str) -> list[int]:
    """The processes that write the job's page."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"pipeline.results.report" in words and job_id.encode() in words:
            found.append(int(entry.parent.name))
    return found


def test_a_page_takes_neither_the_lease_nor_the_slot_and_comes_one_at_a_time(
    queue: Queue, home: Home, start: Start, gate: Path
) -> None:
    first, second = submit(queue, "failed", priority=1), submit(queue, "lost")
    worker = start("--drain", PYTHONPATH=str(gate.parent))
    wait_until(lambda: queue.paths.end(second).exists(), "the second job's end, beside the first one's page")
    [writer] = wait_until(lambda: writers(first), "the first page's process")
    assert writers(second) == []
    wait_until(lambda: not Lease.is_held(queue.paths.lease(second)), "the lease to be let go")
    assert not Lease.is_held(queue.paths.lease(first))
    opened = [str(path.readlink()) for path in Path(f"/proc/{writer}/fd").iterdir()]
    assert [name for name in opened if "/leases/" in name] == []
    assert not home.run(first).report.exists()
    gate.write_text("go")
    wait_until(lambda: writers(second), "the second page's process")
    gate.write_text("go")
    assert worker.wait() == 1
    assert home.run(first).report.exists()
    assert home.run(second).report.exists()


def test_a_stop_waits_for_the_page_and_a_second_one_does_not(
    queue: Queue, home: Home, start: Start, gate: Path, tmp_path: Path
) -> None:
    job_id = submit(queue, "failed")
    worker = start(PYTHONPATH=str(gate.parent))
    [writer] = wait_until(lambda: writers(job_id), "the page's process")
    worker.send_signal(signal.SIGINT)
    wait_until(lambda: not queue.live_workers(), "the worker to be done with the queue")
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=20) == 0
    assert not Path(f"/proc/{writer}").exists()
    assert f"no longer waits for the report of {job_id}" in (tmp_path / "output").read_text()
    assert not home.run(job_id).report.exists()
    assert queue.tickets.state(job_id) == "failed"
