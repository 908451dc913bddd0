"""Runs with everything shown, and TensorBoard as a program asks it; all processes of a test session share the runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from quick import EVERYTHING_SHOWN, quick_spec, wait_until

from pipeline.board.tensorboard_process import TensorBoard
from pipeline.home.paths import Home
from pipeline.home.records import Progress
from pipeline.queue.job_queue import Queue

EPOCHS, VGG_EPOCHS, STEPS_OF_EPOCH, EVERY = 3, 8, 23, 5
STOP_AT, KILL_AT = 30, 100  # steps of the VGG job: amid its second and its fifth epoch, or soon after
LAST_STEP, VGG_LAST_STEP = EPOCHS * STEPS_OF_EPOCH, VGG_EPOCHS * STEPS_OF_EPOCH
VGG_FIGURES = [STEPS_OF_EPOCH * epoch for epoch in (1, 2, 4, 8)]  # as `auto` is

CNN = quick_spec("cnn", epochs=EPOCHS, log={"every": EVERY, **EVERYTHING_SHOWN})
VGG = quick_spec(
    "vgg",
    epochs=VGG_EPOCHS,
    model={"name": "vgg", "widths": [16, "M", 32, "M"], "batch_norm": True},
    data={"augment": [{"name": "crop", "padding": 1}]},
    train={"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "fused": True, "clip_grad_norm": 1.0},
    log={"every": EVERY, **EVERYTHING_SHOWN, "figures": "auto", "embeddings": "end"},
)


@dataclass(frozen=True)
class Runs:
    root: Path
    cnn: str
    vgg: str  # stopped, and killed, and gone on with

    @property
    def home(self) -> Home:
        return Home(self.root)

    @property
    def ids(self) -> tuple[str, str]:
        return self.cnn, self.vgg


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with (shared / "dashboards.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = shared / "dashboards.json"
        if not record.exists():
            record.write_text(json.dumps(asdict(train(Home(shared / "dashboards"))), default=str))
        made = json.loads(record.read_text())
        return Runs(**{**made, "root": Path(made["root"])})


@pytest.fixture(scope="module")
def board(runs: Runs) -> Iterator[Board]:
    """TensorBoard on these runs, once it has read all of them."""
    with serving(runs.home.runs) as board:
        wait_until(lambda: has_read(board, runs), "TensorBoard to have read all runs")
        yield board


def has_read(board: Board, runs: Runs) -> bool:
    texts = board.get("text/tags")
    return (
        all("job/report" in texts.get(run, []) for run in runs.ids)
        and board.get("plugins_listing", plugin=False)["projector"]["enabled"]
    )


def train(home: Home) -> Runs:
    """By real workers. Of the VGG job's, one is asked to stop, and the next is killed with its child."""
    queue = Queue(home)
    vgg, cnn = queue.submit(VGG), queue.submit(CNN)
    worker = start_worker(home)
    wait_until(lambda: reached(home, vgg, STOP_AT), f"step {STOP_AT}")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=120) == 0
    worker = start_worker(home)
    wait_until(lambda: reached(home, vgg, KILL_AT), f"step {KILL_AT}")
    for pid in [worker.pid, *children_of(worker)]:
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    assert start_worker(home).wait(timeout=300) == 0
    assert queue.attempts(vgg).number == 3, "it was stopped and killed in the midst of it"
    assert [queue.tickets.state(job_id) for job_id in (vgg, cnn)] == ["done", "done"]
    return Runs(home.root, cnn, vgg)


def start_worker(home: Home) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "worker", "--drain"]
    with (home.root / "workers.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def reached(home: Home, job_id: str, step: int) -> bool:
    progress = Progress.read(home.run(job_id).progress)
    return progress is not None and progress.step >= step


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Board]:
    tensorboard = TensorBoard(folder, port=free_port())
    try:
        tensorboard.wait_until_it_answers()
        yield Board(tensorboard.port)
    finally:
        tensorboard.stop()


@dataclass(frozen=True)
class Board:
    """TensorBoard over HTTP."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read(self, path: str, *, body: Any = None, plugin: bool = True, **query: str) -> bytes:
        """What `/data/plugin/...` answers, or `/data/...`; an answer with an error raises HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url}/data/{'plugin/' if plugin else ''}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            content: bytes = answer.read()
            return content

    def get(self, path: str, *, body: Any = None, plugin: bool = True, **query: str) -> Any:
        return json.loads(self.read(path, body=body, plugin=plugin, **query))
