"""Workers as processes, with training processes of their own, for tests that stop or kill them.

A test module that imports `queue` and `start` from here has these fixtures.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quick import wait_until

from pipeline.home.paths import Home
from pipeline.home.records import End, Progress
from pipeline.jobfile import frozen
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue


@pytest.fixture
def queue(home: Home) -> Queue:
    queue = Queue(home)
    queue.create()
    return queue


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(home: Home, tmp_path: Path) -> Iterator[Start]:
    """Starts `pipeline` with arguments; whatever of it still runs after the test is killed, children too."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, code: str = "from pipeline.cli import main; main.main()") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, "--home", str(home.root), *arguments]
        with (tmp_path / f"output-{len(started)}").open("wb") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
    for job_id in Queue(home).tickets.ids("running"):
        with contextlib.suppress(ProcessLookupError, AssertionError):
            os.kill(training_process(home, job_id), signal.SIGKILL)


def training_process(home: Home, job_id: str) -> int:
    """The id of the process that trains the job; by its command line, for the queue knows no process ids."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if b"pipeline.training.attempt" in words and str(home.root).encode() in words and job_id.encode() in words:
                found.append(int(entry.parent.name))
    assert len(found) <= 1, "a job runs twice at once"
    assert found, "the job does not run"
    return found[0]


def is_training(home: Home, job_id: str, *, attempt: int = 1, step: int = 1) -> bool:
    progress = Progress.read(home.run(job_id).progress)
    return progress is not None and progress.attempt == attempt and progress.step >= step


def wait_for_training(home: Home, job_id: str, *, attempt: int = 1, step: int = 10) -> int:
    """Until it has taken some steps; its process id."""
    what = f"attempt {attempt} to be at step {step}"
    wait_until(lambda: is_training(home, job_id, attempt=attempt, step=step), what)
    return training_process(home, job_id)


def end_of(queue: Queue, job_id: str) -> End:
    end = End.read(queue.paths.end(job_id))
    assert end is not None
    return end


def wait_for_end(queue: Queue, job_id: str) -> End:
    wait_until(lambda: queue.paths.end(job_id).exists(), "the job's end")
    wait_until(lambda: queue.tickets.state(job_id) not in ("pending", "running"), "its ticket to follow")
    return end_of(queue, job_id)


def outcomes(queue: Queue, job_id: str) -> list[str]:
    return [entry.get("outcome", "open") for entry in queue.attempts(job_id).entries]


def leave_dead(queue: Queue, job_id: str) -> None:
    """As a worker that was killed leaves a job: claimed, with its spec in its run, and nobody holds its lease."""
    claim = queue.claim("gone")
    assert isinstance(claim, Claim)
    assert claim.id == job_id
    assert claim.spec is not None
    frozen.save(queue.home.run(job_id), claim.spec)
    claim.lease.release()
