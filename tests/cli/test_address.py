"""Where TensorBoard is: its address while it answers, and how to start it else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline, submitted
from quick import wait_until

from pipeline.home import board_addresses
from pipeline.home.paths import Home
from pipeline.queue import repair
from pipeline.queue.job_queue import Queue


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextmanager
def running_up(home: Home, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`up`, from when it says where TensorBoard is."""
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "up", "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if "TensorBoard" in line)
            assert "TensorBoard: http" in said
            yield process
        finally:
            process.kill()


def shown(pipeline: Pipeline, **environment: str) -> str:
    done = pipeline("show", "latest", env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    return facts["TensorBoard"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_show_gives_the_address_while_up_runs_and_how_to_start_it_else(
    pipeline: Pipeline, job_file: JobFile, home: Home, host: str
) -> None:
    submitted(pipeline, job_file("resources: {device: 'cuda:99'}\n"))
    start = f"--home {home.root} up, then open http://localhost:6006"
    assert shown(pipeline).endswith(start)
    port = free_port()
    with running_up(home, port, "--host", host) as process:
        assert shown(pipeline) == f"http://localhost:{port}"
        assert list(home.queue.leases.glob(".tensorboard-*"))
        process.terminate()
        assert process.wait(timeout=90) == 0
    assert list(home.queue.leases.glob(".tensorboard-*")) == []
    assert shown(pipeline).endswith(start)


def test_what_a_killed_up_has_left_is_not_believed_and_is_cleared_away(
    pipeline: Pipeline, job_file: JobFile, home: Home
) -> None:
    with running_up(home, free_port()) as process:
        assert board_addresses.answering(home.queue)
        process.kill()
        process.wait()
    submitted(pipeline, job_file())
    assert list(home.queue.leases.glob(".tensorboard-*"))
    assert "up, then open http://localhost:6006" in shown(pipeline)
    repair.repair(Queue(home))
    assert list(home.queue.leases.glob(".tensorboard-*")) == []


def test_repair_leaves_the_address_of_one_that_runs(home: Home) -> None:
    queue = Queue(home)
    queue.create()
    lease = board_addresses.hold(home.queue, "http://localhost:6007")
    repair.repair(queue)
    assert board_addresses.answering(home.queue) == ["http://localhost:6007"]
    assert queue.live_workers() == [], "it is no worker"
    lease.release()
    assert board_addresses.answering(home.queue) == []


def test_each_of_several_addresses_is_given_once_and_foreign_files_are_none(
    pipeline: Pipeline, job_file: JobFile, home: Home
) -> None:
    submitted(pipeline, job_file())
    with ExitStack() as held:
        for port in (6009, 6007, 6007):
            held.callback(board_addresses.hold(home.queue, f"http://localhost:{port}").release)
        for content in ("", "no address", "http://a\nb", "http://" + "x" * 2000):
            held.callback(board_addresses.hold(home.queue, content).release)
        home.queue.board_lease("folder").mkdir()
        home.queue.board_lease("free").write_text("http://localhost:1")
        assert shown(pipeline) == "http://localhost:6007, http://localhost:6009"


def test_in_a_container_it_is_where_whoever_has_started_them_says(pipeline: Pipeline, job_file: JobFile) -> None:
    submitted(pipeline, job_file())
    once_up = {"PIPELINE_TENSORBOARD_URL": "http://localhost:7007"}
    assert shown(pipeline, **once_up) == "make up, then open http://localhost:7007"
    assert shown(pipeline, PIPELINE_TENSORBOARD_AT="", **once_up) == "make up, then open http://localhost:7007"
    assert shown(pipeline, PIPELINE_TENSORBOARD_AT="http://127.0.0.1:7008", **once_up) == "http://127.0.0.1:7008"


def test_up_on_a_taken_port_starts_and_leaves_nothing(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = pipeline("up", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first == f"error: port {port} is in use, perhaps by another `up`, and nothing was started"
    other = int(second.rpartition("PORT=")[2].rstrip("`"))
    assert second == f"  stop that, or choose another port: `pipeline up --port {other}`, `make up PORT={other}`"
    assert other != port
    assert not home.root.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_second_up_of_a_home_on_the_same_port_leaves_the_first_alone(pipeline: Pipeline, home: Home) -> None:
    port = free_port()
    with running_up(home, port) as process:
        before = sorted(home.queue.leases.iterdir())
        wait_until(Queue(home).live_workers, "its worker")
        assert pipeline("up", "--port", str(port)).returncode == 1
        assert process.poll() is None
        assert len(Queue(home).live_workers()) == 1
        assert set(before) <= set(home.queue.leases.iterdir())
        assert board_addresses.answering(home.queue) == [f"http://localhost:{port}"]
