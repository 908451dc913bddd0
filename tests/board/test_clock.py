"""A clock that is set back between the attempts of a job hides nothing of its curves."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboards import Board, free_port
from hypothesis import given
from hypothesis import strategies as st
from quick import quick_spec, wait_until

from pipeline.board import event_file, tags
from pipeline.board.events import read_scalars
from pipeline.board.writer import Board as Writer
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Progress
from pipeline.jobfile import frozen

DAY_S = 86_400
EPOCHS, STEPS = 4, 92
MEASURED = (tags.IMAGES_PER_SECOND, tags.DEVICE_MEMORY)

# Python's clock: libfaketime breaks `clock_nanosleep`.
ATTEMPT = """
import sys, time
real, ahead_s = time.time, float(sys.argv.pop(1))
time.time = lambda: real() + ahead_s
from pipeline.training import attempt
sys.exit(attempt.main())
"""

Curve = list[tuple[int, float]]


def start(home: Home, job_id: str, number: int, *, ahead_s: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-c", ATTEMPT, str(ahead_s), str(home.root), job_id, str(number)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def run_until(home: Home, job_id: str, number: int, step: int, sent: signal.Signals, *, ahead_s: float) -> None:
    """Run an attempt up to a step, and ask it to stop or kill it there."""
    process = start(home, job_id, number, ahead_s=ahead_s)

    def is_there() -> bool:
        progress = Progress.glance(home.run(job_id).progress)
        return progress is not None and progress.attempt == number and progress.step >= step

    wait_until(is_there, f"step {step}")
    process.send_signal(sent)
    process.wait(timeout=120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """With a job that ran through, and one in three attempts, each of them a day before the one before."""
    home = Home(tmp_path_factory.mktemp("clock"))
    for job_id in ("whole", "back"):
        frozen.save(home.run(job_id), quick_spec(epochs=EPOCHS, log={"every": 5}))
    assert start(home, "whole", 1, ahead_s=0).wait(timeout=300) == 0
    run_until(home, "back", 1, 30, signal.SIGTERM, ahead_s=0)
    run_until(home, "back", 2, 60, signal.SIGKILL, ahead_s=-DAY_S)
    assert start(home, "back", 3, ahead_s=-2 * DAY_S).wait(timeout=300) == 0
    return home


@contextlib.contextmanager
def serving(folder: Path, *, load_fast: str) -> Iterator[Board]:
    port = free_port()
    command = [sys.executable, "-P", "-m", "pipeline.board.tensorboard_main", "--logdir", str(folder)]
    command += ["--port", str(port), "--load_fast", load_fast]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Board(port)
        finally:
            process.terminate()


def curves_of(board: Board, job_id: str) -> dict[str, Curve]:
    """What TensorBoard shows of a run once it has read all of it."""

    def is_read() -> bool:
        with contextlib.suppress(OSError):
            latest = board.get("scalars/scalars", run=job_id, tag=tags.BEST_ACCURACY)[-1]
            return bool(latest[1] == STEPS)
        return False

    wait_until(is_read, "TensorBoard to have read the run")
    found = board.get("scalars/tags")[job_id]
    curves = {tag: board.get("scalars/scalars", run=job_id, tag=tag) for tag in found if tag not in MEASURED}
    return {tag: [(step, value) for _, step, value in points] for tag, points in curves.items()}


def test_everybody_sees_the_whole_curve(home: Home, pipeline: Callable[..., Any]) -> None:
    """TensorBoard by either of its loaders, and whoever exports it."""
    for load_fast in ("true", "false"):
        with serving(home.runs, load_fast=load_fast) as board:
            back, whole = (curves_of(board, job_id) for job_id in ("back", "whole"))
        assert [step for step, _ in whole[tags.TRAIN_LOSS]] == [*range(5, STEPS, 5)]
        assert back == whole, f"--load_fast={load_fast}"
    done = pipeline("export", "back", "whole", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [row for row in csv.DictReader(io.StringIO(done.stdout)) if row["tag"] not in MEASURED]
    exported = [[(r["tag"], r["step"], r["value"]) for r in rows if r["run"] == job_id] for job_id in ("back", "whole")]
    assert exported[0] == exported[1]
    files = home.run("back").events()
    times = [int(path.name.split(".")[3]) for path in files]
    assert [event_file.attempt_number(path) for path in files] == [1, 2, 3]
    assert times == [times[0], times[0] + 1, times[0] + 2]


@pytest.mark.parametrize("name", ["9999999999.host.1.0", "4102444800.z.1.0.7", "99999999999999", "9" * 99])
def test_a_file_from_the_future_sorts_before_the_next_one(name: str, tmp_path: Path) -> None:
    (tmp_path / f"events.out.tfevents.{name}").touch()
    for number in range(12):
        with Writer(tmp_path, first_step=number) as board:
            board.scalars(number, {"a": number})
        assert sorted(path.name for path in tmp_path.iterdir())[-1] == board.file.name
    assert [point.step for point in read_scalars(tmp_path)["a"]] == list(range(12))


@pytest.mark.parametrize(
    "name",
    ["", "x", "1" * 230, f"1.{'9' * 220}", "1.\N{ARABIC-INDIC DIGIT SEVEN}", "²", "1764000000.h.1.0.²", "\udce9.3"],
)
def test_a_file_with_a_name_that_is_none_of_ours_stops_nothing(name: str, tmp_path: Path) -> None:
    foreign = os.fsencode(tmp_path) + f"/events.out.tfevents.{name}".encode("utf-8", "surrogateescape")
    os.close(os.open(foreign, os.O_CREAT))
    for number in range(2):
        with Writer(tmp_path, first_step=number) as board:
            board.scalars(number, {"a": number})
    assert [point.step for point in read_scalars(tmp_path)["a"]] == [0, 1]


@given(st.lists(st.from_regex(r"[0-9]{1,12}(\.[a-z]\.1\.0\.[0-9])?", fullmatch=True)), st.integers(0, 10**11))
def test_the_next_time_sorts_after_all_that_are_taken(taken: list[str], now: int) -> None:
    names = [f"events.out.tfevents.{text}" for text in taken]
    for _ in range(3):
        time = event_file.time_after(names, now)
        assert re.fullmatch("[0-9]+", time)
        name = f"events.out.tfevents.{time}.a.1.0.1"
        assert all(name > other for other in names)
        names.append(name)


def test_a_file_s_name_is_durable_before_anything_is_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no checkpoint can be there after a power cut without the file that has its curve."""
    synced: list[tuple[str, int]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{fd}").readlink()), sum(path.stat().st_size for path in run.events())))
        real(fd)

    run = RunPaths(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    with Writer(tmp_path, first_step=0) as board:
        assert synced[-1] == (str(tmp_path), 0)
        assert run.events() == [board.file]
        synced.clear()
        board.scalars(1, {"a": 1.0})
        board.flush()
    assert synced == [(str(board.file), board.file.stat().st_size)]
