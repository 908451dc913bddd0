"""The worker's orders to an attempt by a file of its run: to stop, and that another attempt has its place."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quick import quick_spec, wait_until

from pipeline.home import durable, epoch_record
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Order, Progress, Result
from pipeline.home.temporaries import remove_temporaries
from pipeline.jobfile import frozen
from pipeline.training import checkpoint

JOB = "job-20260101T000000000000Z-abcdef"
Attempt = Callable[[int], subprocess.Popen[bytes]]


@pytest.fixture
def run(home: Home) -> RunPaths:
    run = home.run(JOB)
    run.root.mkdir(parents=True)
    return run


@pytest.fixture
def attempt(home: Home, run: RunPaths) -> Iterator[Attempt]:
    """Starts an attempt as a cluster does: nobody waits for it, and no worker need live."""
    started: list[subprocess.Popen[bytes]] = []

    def start(number: int) -> subprocess.Popen[bytes]:
        durable.replace_json(run.order, Order(number).to_json())
        command = [sys.executable, "-P", "-m", "pipeline.training.attempt", str(home.root), JOB, str(number)]
        with run.log(number).open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def is_at(run: RunPaths, number: int, *, epoch: int) -> bool:
    progress = Progress.read(run.progress)
    return progress is not None and progress.attempt == number and progress.epoch >= epoch


def digests(run: RunPaths) -> dict[str, str]:
    """Of each file of the run but logs and events, which bear the attempt's number or are its own."""
    own = ("attempt-", "events.")
    paths = [path for path in run.root.rglob("*") if path.is_file() and not path.name.startswith(own)]
    return {str(path.relative_to(run.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_an_attempt_that_stood_still_while_another_took_its_place_changes_nothing(
    run: RunPaths, attempt: Attempt
) -> None:
    frozen.save(run, quick_spec(epochs=400, train={"checkpoint_every": 1}))
    first = attempt(1)
    wait_until(lambda: is_at(run, 1, epoch=3) and run.last.exists(), "the first attempt to train")
    os.kill(first.pid, signal.SIGSTOP)
    second = attempt(2)
    wait_until(lambda: is_at(run, 2, epoch=6), "the second attempt to go on")
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait() == 1
    step = checkpoint.saved_step(run)
    before = digests(run)
    os.kill(first.pid, signal.SIGCONT)
    first.wait()
    assert digests(run) == before
    result = Result.read(run.result)
    assert result is not None
    assert (result.attempt, result.outcome, result.step) == (2, "interrupted", step)
    assert (
        run.log(1)
        .read_text()
        .endswith("another process has this attempt's place, or it was to stop before it began; nothing is saved\n")
    )


def test_an_attempt_that_comes_too_late_does_not_begin(run: RunPaths, attempt: Attempt) -> None:
    frozen.save(run, quick_spec())
    durable.replace_json(run.result, Result(2, "succeeded", "done").to_json())
    late = attempt(1)
    durable.replace_json(run.order, Order(2).to_json())
    before = digests(run)
    late.wait()
    assert digests(run) == before


def test_an_attempt_stops_where_the_file_says_so(run: RunPaths, attempt: Attempt) -> None:
    frozen.save(run, quick_spec(epochs=400))
    process = attempt(1)
    wait_until(lambda: is_at(run, 1, epoch=2), "the attempt to train")
    durable.replace_json(run.order, Order(1, stop=True).to_json())
    assert process.wait() == 1
    result = Result.read(run.result)
    assert result is not None
    assert (result.outcome, result.why) == ("interrupted", f"asked to stop; step {result.step} is saved")
    assert checkpoint.saved_step(run) == result.step > 0


def test_a_second_signal_does_not_keep_an_attempt_without_worker_from_saving(run: RunPaths, attempt: Attempt) -> None:
    """Slurm sends SIGTERM ahead of its time limit, and once more at it."""
    frozen.save(run, quick_spec(epochs=400))
    process = attempt(1)
    wait_until(lambda: is_at(run, 1, epoch=2), "the attempt to train")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
    process.wait()
    result = Result.read(run.result)
    assert result is not None
    assert result.outcome == "interrupted"


@pytest.fixture
def replaced_meanwhile(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between this process's question and its rename, another attempt begins: it removes temporary files first."""
    monkeypatch.setattr(durable, "ask_first", lambda: remove_temporaries(run))


@pytest.mark.usefixtures("replaced_meanwhile")
def test_what_was_asked_for_just_before_another_attempt_began_is_not_renamed(run: RunPaths) -> None:
    run.checkpoints.mkdir()
    run.result.write_text("of another attempt")
    with pytest.raises(FileNotFoundError):
        Result(1, "succeeded", "late").write(run.result)
    with pytest.raises(FileNotFoundError):
        checkpoint.save(run, {"position": {"step": 1}}, is_best=True)
    assert run.result.read_text() == "of another attempt"
    assert list(run.checkpoints.iterdir()) == []


def test_a_line_that_a_replaced_attempt_adds_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    for attempt, loss in ((1, 1.0), (2, 2.0), (1, 3.0)):
        epoch_record.append(path, epoch=1, step=10, metrics={"loss": loss}, attempt=attempt)
    assert epoch_record.read(path) == {1: {"loss": 2.0}}
