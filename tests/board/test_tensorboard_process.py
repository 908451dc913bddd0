"""TensorBoard and the worker together: the real ones, asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.board.tensorboard_process import MAX_LOG_BYTES, RESTART_S, TensorBoard
from pipeline.errors import PipelineError
from pipeline.home.paths import Home
from pipeline.jobfile.spec import Spec
from pipeline.queue.job_queue import Queue

PIPELINE = [sys.executable, "-m", "pipeline.cli"]
DIGITS = {
    "name": "t",
    "model": {"name": "cnn_bn"},
    "data": {"name": "digits"},
    "train": {"epochs": 2},
    "log": {"every": 4},
}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def get(port: int, path: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


def wait_for(condition: Callable[[], object], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.2)


@contextmanager
def running_up(home: Home, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [*PIPELINE, "--home", str(home.root), "up", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        get(port, "/data/environment")
    except OSError:
        return False
    return True


def test_up_trains_what_is_queued_shows_it_and_stops_both_at_ctrl_c(home: Home) -> None:
    queue, port = Queue(home), free_port()
    job_id = queue.submit(Spec.model_validate_json(json.dumps(DIGITS)))
    with running_up(home, port) as process:
        wait_for(lambda: queue.tickets.state(job_id) == "done")
        wait_for(lambda: job_id in get(port, "/data/runs"))
        expected = {
            "train/loss",
            "train/accuracy",
            "train/epoch_loss",
            "train/epoch_accuracy",
            "train/learning_rate",
            "train/images_per_second",
            "test/loss",
            "test/accuracy",
            *(f"true_class_accuracy/{digit}" for digit in range(10)),
        }
        wait_for(lambda: expected <= set(get(port, "/data/plugin/scalars/tags").get(job_id, {})))
        query = urllib.parse.urlencode({"run": job_id, "tag": "train/loss"})

        def steps() -> list[int]:
            return [step for _, step, _ in get(port, f"/data/plugin/scalars/scalars?{query}")]

        wait_for(lambda: len(steps()) >= 6)  # it may have looked while they were written
        assert steps() == [4, 8, 12, 16, 20, 24]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=90) == 0  # it waits for the job's report
    assert not answers(port)


def test_tensorboard_does_not_outlive_an_up_that_is_killed(home: Home) -> None:
    if sys.platform != "linux":
        pytest.skip("needs Linux's parent death signal")
    port = free_port()
    with running_up(home, port) as process:
        wait_for(lambda: answers(port))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not answers(port), timeout_s=20)


def test_a_tensorboard_that_dies_is_started_again(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "runs", port=free_port())
    try:
        board.wait_until_it_answers()
        with board.log.open("ab") as log:
            log.write(b"why it died\n")
        board.process.kill()
        board.process.wait()
        board.keep_alive()
        assert board.process.poll() is not None, "it was started a moment ago"
        board.started_at -= RESTART_S
        board.keep_alive()
        board.wait_until_it_answers()
    finally:
        board.stop()
    lines = board.log.read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if f"TensorBoard starts at 127.0.0.1:{board.port}" in line]
    assert len(starts) == 2, "what the first one said is not erased"
    assert "why it died" in lines[starts[0] : starts[1]]


def test_a_log_that_has_become_long_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "tensorboard.log").write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    TensorBoard(tmp_path / "runs", port=free_port()).stop()
    assert (tmp_path / "tensorboard.log").stat().st_size < MAX_LOG_BYTES
    assert (tmp_path / "tensorboard.log.1").stat().st_size == MAX_LOG_BYTES + 1


def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PipelineError, match=f"port {port} is in use.*\n.*--port"):
            TensorBoard(tmp_path / "runs", port=port)


def test_of_two_that_are_started_at_once_on_a_port_one_is_told_so(tmp_path: Path) -> None:
    """Neither has the port when they look whether it is free; what the other answers is no answer of one's own."""
    port = free_port()
    boards = [TensorBoard(tmp_path / "runs", port=port) for _ in range(2)]
    refused = []
    try:
        for board in boards:
            try:
                board.wait_until_it_answers()
            except PipelineError as error:
                refused.append(str(error))
                assert board.process.poll() is not None
        assert [text.partition(",")[0] for text in refused] == [f"port {port} is in use"]
        assert answers(port)
    finally:
        for board in boards:
            board.stop()


def test_it_is_not_told_whom_a_worker_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are passwords in that, and everybody on the network may ask this process something."""
    monkeypatch.setenv("PIPELINE_NOTIFY", "mailto://somebody:secret@example.com")
    board = TensorBoard(tmp_path / "runs", port=free_port())
    try:
        environment = Path(f"/proc/{board.process.pid}/environ").read_bytes()
    finally:
        board.stop()
    assert b"PATH=" in environment
    assert b"secret" not in environment
