"""Workers as others see them, and how they are stopped: real ones, some of them stopped or killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from quick import quick_spec, wait_until
from worker_processes import Start, end_of, outcomes, queue, start, wait_for_training  # noqa: F401 - two are fixtures

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.queue import live_workers
from pipeline.queue.job_queue import Queue

EPOCHS = 30  # of 23 steps: some seconds
IN_A_HURRY = """
from pipeline.cli import main
from pipeline.queue import live_workers
live_workers.STILL_S = live_workers.LEAVE_S = live_workers.LAST_S = 1.0
main.main()
"""
Pipeline = Callable[..., subprocess.CompletedProcess[str]]


def names_of(queue: Queue, count: int) -> list[str]:
    """Until so many workers live; what they are called."""
    return wait_until(lambda: len(names := queue.live_workers()) == count and names, f"{count} workers")


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """It holds all that it holds, and does nothing."""
    process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "the process to stop")
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Health


def test_a_worker_that_works_is_healthy_and_named(queue: Queue, start: Start, pipeline: Pipeline) -> None:
    start("worker")
    (name,) = names_of(queue, 1)
    assert name.startswith(f"{live_workers.host_name()}-")
    done = pipeline("health")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}: works\n", "")


def test_without_a_worker_there_is_no_health(pipeline: Pipeline, home: Home) -> None:
    done = pipeline("health")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no worker runs on {live_workers.host_name()}" in done.stderr
    assert not home.root.exists()


def test_a_worker_of_another_host_says_nothing_about_this_one(queue: Queue) -> None:
    """Two containers on one queue: each asks for its own worker."""
    lease = Lease.acquire(queue.paths.worker_lease("elsewhere-12345678"))
    assert lease is not None
    assert queue.live_workers() == ["elsewhere-12345678"]
    with pytest.raises(QueueError, match=f"no worker runs on {live_workers.host_name()}"):
        live_workers.check_health(queue)
    lease.release()


def test_a_worker_that_does_nothing_is_not_healthy_until_it_goes_on(queue: Queue, start: Start, tmp_path: Path) -> None:
    process = start("worker")
    (name,) = names_of(queue, 1)
    assert live_workers.check_health(queue) == name
    with stopped(process):
        assert start("health", code=IN_A_HURRY).wait() == 1
        assert f"{name}: holds its lease, but did nothing for 1 s" in (tmp_path / "output-1").read_text()
        start("worker")
        (other,) = set(names_of(queue, 2)) - {name}
        assert live_workers.check_health(queue) == other, "it is enough that one works"
    process.terminate()
    assert process.wait() == 0


def test_a_host_s_name_becomes_a_file_s_name(monkeypatch: pytest.MonkeyPatch, queue: Queue) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: f"../ünï {'x' * 300}")
    name = live_workers.new_name()
    lease = Lease.acquire(queue.paths.worker_lease(name))
    assert lease is not None
    assert queue.live_workers() == [name]
    assert left_in(queue.paths.leases) == [f".worker-{name}"]
    lease.release()


# Down


def test_down_without_a_worker_says_so(pipeline: Pipeline, home: Home) -> None:
    done = pipeline("down")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"no worker is running in {home.root}" in done.stderr
    assert not home.root.exists()


def test_down_makes_all_workers_leave_and_leaves_nothing(queue: Queue, start: Start, pipeline: Pipeline) -> None:
    processes = [start("worker"), start("worker")]
    names = names_of(queue, 2)
    done = pipeline("down")
    assert queue.live_workers() == []
    assert left_in(queue.paths.leases) == left_in(queue.paths.control) == []
    assert (done.returncode, done.stdout) == (0, "")
    assert f"waiting for {names[0]}, {names[1]}" in done.stderr
    assert [process.wait(timeout=30) for process in processes] == [0, 0]


def test_down_has_running_jobs_saved_and_queued_again(queue: Queue, start: Start, pipeline: Pipeline) -> None:
    """When it returns, that is on record; the next worker goes on and knows nothing of the request."""
    job_id = queue.submit(quick_spec(epochs=EPOCHS, resources={"retries": 0}))
    process = start("worker")
    child = wait_for_training(queue.home, job_id)
    assert pipeline("down").returncode == 0
    assert queue.tickets.state(job_id) == "pending"
    assert outcomes(queue, job_id) == ["interrupted"]
    assert queue.attempts(job_id).retries_used == 0
    assert not Path(f"/proc/{child}").exists()
    assert left_in(queue.paths.leases) == left_in(queue.paths.control) == []
    assert process.wait(timeout=30) == 0

    result = Result.read(queue.home.run(job_id).result)
    assert result is not None
    assert f"step {result.step} is saved" in result.why
    assert start("worker", "--drain").wait() == 0
    assert f"resumed at step {result.step} " in queue.home.run(job_id).log(2).read_text()
    assert outcomes(queue, job_id) == ["interrupted", "succeeded"]


def test_tensorboard_s_port_is_free_when_down_returns(queue: Queue, start: Start, pipeline: Pipeline) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    process = start("up", "--port", str(port))
    wait_until(lambda: answers(port), "TensorBoard")
    names_of(queue, 1)
    with slow_to_leave(tensorboard_of(process)):
        assert pipeline("down").returncode == 0
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
    assert process.wait(timeout=30) == 0


def tensorboard_of(up: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
    (found,) = (
        pid for pid in children if b"pipeline.board.tensorboard_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return int(found)


@contextmanager
def slow_to_leave(pid: int) -> Iterator[None]:
    """A process that SIGTERM does not end, and SIGKILL does; it is gone after this."""
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)


def answers(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/data/environment", timeout=10):
            return True
    except OSError:
        return False


def test_down_does_not_wait_for_ever_and_what_it_asked_for_still_happens(
    queue: Queue, start: Start, tmp_path: Path
) -> None:
    process = start("worker")
    (name,) = names_of(queue, 1)
    with stopped(process):
        assert start("down", code=IN_A_HURRY).wait() == 1
        assert f"{name}: still there after 1 s" in (tmp_path / "output-1").read_text()
        assert queue.live_workers() == [name]
    assert process.wait(timeout=30) == 0
    assert left_in(queue.paths.leases) == left_in(queue.paths.control) == []


def test_what_a_worker_was_asked_that_is_killed_is_forgotten(queue: Queue, start: Start) -> None:
    process = start("worker")
    (name,) = names_of(queue, 1)
    with stopped(process):
        down = start(
            "down",
            code="from pipeline.cli import main; from pipeline.queue import live_workers as workers; "
            "workers.LAST_S = 1.0; main.main()",
        )
        wait_until(queue.paths.stop_request(name).exists, "the request")
        process.kill()
        process.wait()
    assert down.wait() == 0
    assert left_in(queue.paths.control) == []


def test_a_request_that_nobody_could_answer_harms_no_other_worker(queue: Queue, start: Start) -> None:
    """Whoever asked was killed as well."""
    durable.replace_json(queue.paths.stop_request(f"{live_workers.host_name()}-12345678"), {})
    assert queue.live_workers() == []
    job_id = queue.submit(quick_spec())
    assert start("worker", "--drain").wait() == 0
    assert end_of(queue, job_id).outcome == "succeeded"


def test_workers_that_cannot_be_asked_are_an_error_that_names_the_folder(queue: Queue) -> None:
    lease = Lease.acquire(queue.paths.worker_lease("elsewhere-12345678"))
    assert lease is not None
    queue.paths.control.rmdir()
    queue.paths.control.touch()
    with pytest.raises(QueueError, match=r"/control: workers cannot be asked to stop: Not a directory"):
        live_workers.ask_to_leave(queue)
    lease.release()
