"""`pipeline run`: a job without a worker, which is listed, stopped, taken up and removed as every job is."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from worker_processes import Start, start  # noqa: F401

from pipeline.home.paths import Home
from pipeline.home.records import Attempts, Progress
from pipeline.queue import repair, views
from pipeline.queue.drained import is_drained
from pipeline.queue.job_queue import Queue

Pipeline = Callable[..., subprocess.CompletedProcess[str]]

TEXT = """\
name: fore
model: {name: cnn_bn}
data: {name: digits, batch_size: 64}
train: {epochs: EPOCHS, deterministic: true, checkpoint_every: 1s}
log: {every: 10, histograms: false, images: false, graph: false, figures: false, pr_curves: false, embeddings: false}
resources: {device: cpu}
"""
LONG = 100_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path, 1)


def write(folder: Path, epochs: int) -> Path:
    path = folder / f"fore{epochs}.yaml"
    path.write_text(TEXT.replace("EPOCHS", str(epochs)))
    return path


@contextmanager
def foreground(home: Home, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A run that is in its second epoch or later."""
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "run", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "epoch" in line and "test accuracy" in line:
                    break
            yield process
        finally:
            process.kill()


def rest(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read()


def test_a_run_is_a_job_like_any_other(pipeline: Pipeline, home: Home, file: Path) -> None:
    done = pipeline("run", file)
    assert done.returncode == 0, done.stderr
    (job,) = json.loads(pipeline("status", "--json").stdout)
    assert (job["id"], job["state"], job["outcome"], job["epoch"]) == ("fore-0001", "done", "succeeded", 1)
    assert "test accuracy" in pipeline("show", "latest").stdout
    assert "attempt 1 begins" in pipeline("logs", "fore").stdout
    assert repair.repair(Queue(home)) == []


def test_one_that_runs_is_listed_and_no_worker_waits_for_it_or_takes_it(
    pipeline: Pipeline, home: Home, tmp_path: Path
) -> None:
    with foreground(home, write(tmp_path, LONG)) as process:
        view = views.find(Queue(home), "latest")
        assert (view.state, view.why, view.where) == ("running", "training, in the foreground", "")
        drained = pipeline("worker", "--drain")
        assert (drained.returncode, drained.stdout) == (0, "")
        assert "is running" in pipeline("rm", "latest").stderr
        assert "is running" in pipeline("run", "--resume", "latest").stderr
        process.send_signal(signal.SIGINT)
        said = rest(process)
    assert process.returncode == 1
    assert "interrupted: asked to stop; step" in said
    assert "to go on: pipeline run --resume fore-0001" in said
    view = views.find(Queue(home), "latest")
    assert (view.state, view.outcome) == ("cancelled", "cancelled")
    assert home.run(view.id).last.exists()


def test_one_that_was_stopped_is_taken_up_here_or_in_the_queue(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    queue = Queue(home)
    with foreground(home, write(tmp_path, LONG)) as process:
        process.send_signal(signal.SIGTERM)
        rest(process)
    with foreground(home, "--resume", "fore") as process:
        progress = Progress.read(home.run("fore-0001").progress)
        assert progress is not None
        assert progress.attempt == 2
        process.send_signal(signal.SIGHUP)  # its terminal is closed
        assert "attempt 2 resumed at step" in home.run("fore-0001").log(2).read_text() + rest(process)
    assert views.find(queue, "fore").outcome == "cancelled"
    assert pipeline("retry", "fore").returncode == 0
    assert views.find(queue, "fore").state == "pending"
    with foreground(home, "--resume", "fore") as process:
        assert pipeline("cancel", "fore").stdout == "fore-0001: its worker was asked to stop it\n"
        rest(process)
    view = views.find(queue, "fore")
    assert (view.state, view.attempt) == ("cancelled", 3)
    assert view.why.startswith("cancelled at step")


def test_asked_twice_it_does_not_wait(home: Home, tmp_path: Path) -> None:
    with foreground(home, write(tmp_path, LONG)) as process:
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # both are there when it goes on
        process.send_signal(signal.SIGCONT)
        rest(process)
    view = views.find(Queue(home), "fore")
    assert view.outcome in ("cancelled", None), "it is saved, or dead; never failed"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("nth", [1, 5, 9, 13, 17])
def test_a_full_disk_is_told_with_the_way_on(home: Home, file: Path, nth: int) -> None:
    Queue(home).create()
    run = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "run", str(file)]
    full = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject=fsync:error=ENOSPC:when={nth}+"]
    done = subprocess.run([*full, *run], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    has_begun = "fore-0001: begins in the foreground" in done.stderr
    ways = ("run --resume fore-0001`", "run --resume fore-0001,") if has_begun else ("nothing was", "No space left")
    assert any(way in done.stderr for way in ways), done.stderr
    repair.repair(Queue(home))
    assert Queue(home).tickets.ids("pending") == []


def test_one_that_waits_for_others_is_run_at_once(pipeline: Pipeline, home: Home, file: Path) -> None:
    queue = Queue(home)
    assert pipeline("submit", file, "--set", "name=first").returncode == 0
    assert pipeline("submit", file, "--set", "after=first").returncode == 0
    repair.cancel(queue, "first-0001")
    assert pipeline("run", "--resume", "fore").returncode == 0
    assert views.find(queue, "fore").outcome == "succeeded"


def test_one_that_was_killed_is_queued_by_nobody_but_a_person(home: Home, tmp_path: Path) -> None:
    queue = Queue(home)
    with foreground(home, write(tmp_path, LONG)) as process:
        process.kill()
        rest(process)
    view = views.find(queue, "fore")
    assert (view.state, view.why) == ("running", "its process died; `pipeline run --resume` goes on with it")
    assert not is_drained(queue), "a worker is to say how it ended"
    with foreground(home, "--resume", "fore") as process:
        process.kill()
        rest(process)
    (line,) = [repaired.line for repaired in repair.repair(queue)]
    assert "fore-0001: its process died; lost: attempt 2 was lost" in line
    assert views.find(queue, "fore").outcome == "lost"
    attempts = Attempts.read(queue.paths.attempts("fore-0001"))
    assert attempts is not None
    assert [entry.get("outcome") for entry in attempts.entries] == ["lost", "lost"]


def test_a_job_that_waits_is_run_at_once(pipeline: Pipeline, home: Home, file: Path) -> None:
    assert pipeline("submit", file).returncode == 0
    assert pipeline("run", "--resume", "fore").returncode == 0
    assert views.find(Queue(home), "fore").outcome == "succeeded"
    done = pipeline("run", "--resume", "fore")
    assert (done.returncode, "only a failed or cancelled job can be retried" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a job file, or --resume and the id of a job"),
        (("FILE", "--resume", "fore"), "give a job file, or --resume and the id of a job"),
        (("--resume", "fore", "--set", "train.epochs=3"), "--set changes nothing in a job that goes on"),
        (("--resume", "fore"), "there are no jobs here yet"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    pipeline: Pipeline, file: Path, home: Home, arguments: tuple[str, ...], message: str
) -> None:
    done = pipeline("run", *(str(file) if word == "FILE" else word for word in arguments))
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not home.runs.exists()


class _Listener(http.server.BaseHTTPRequestHandler):
    """Keeps what is sent to it."""

    told: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_its_end_is_told_as_that_of_any_job(pipeline: Pipeline, file: Path) -> None:
    pytest.importorskip("apprise")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {**os.environ, "PIPELINE_NOTIFY": f"json://127.0.0.1:{server.server_address[1]}/"}
        assert pipeline("run", file, env=environment).returncode == 0
        server.shutdown()
    assert [told["title"] for told in _Listener.told] == ["fore-0001 succeeded"]
