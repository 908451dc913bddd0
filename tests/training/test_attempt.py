"""One attempt: what it leaves behind, however it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Interrupted
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.jobfile import frozen, reading
from pipeline.jobfile.spec import Spec
from pipeline.stop import ASKED, WORKER_DIED, Stop, listen
from pipeline.training import attempt, manifest
from pipeline.training.attempt import Attempt, explain
from pipeline.wording import in_words


def make_spec(data: dict[str, Any] | None = None, **train: Any) -> Spec:
    value = {
        "name": "test",
        "description": "quotes ' \" and ünïcode: # no comment",
        "model": {"name": "cnn_bn"},
        "data": {"name": "digits", **(data or {})},
        "train": {"epochs": 1, **train},
        "log": {"every": 4},
    }
    return Spec.model_validate_json(json.dumps(value))


def attempt_of(home: Home, spec: Spec, stop: Stop | None = None, number: int = 1) -> tuple[Attempt, list[str]]:
    lines: list[str] = []
    frozen.save(home.run("job"), spec)
    return Attempt(home, "job", number, stop or Stop(), lines.append), lines


def test_a_success_leaves_result_manifest_events_and_both_checkpoints(home: Home) -> None:
    attempt, lines = attempt_of(home, make_spec())
    result = attempt.execute()
    folder = home.run("job")
    assert result.outcome == "succeeded"
    assert Result.read(folder.result) == result
    assert (result.epoch, result.epochs, result.step) == (1, 1, 12)
    assert {"train/loss", "test/loss", "test/accuracy", "test/best_accuracy"} <= set(result.metrics)
    assert folder.last.exists()
    assert folder.best.exists()
    assert list(folder.root.glob("events.out.tfevents.*"))
    assert any("epoch 1/1" in line for line in lines)


def test_the_manifest_says_what_a_repetition_would_need(home: Home) -> None:
    spec = make_spec()
    attempt_of(home, spec)[0].execute()
    written = json.loads(home.run("job").manifest.read_text())
    assert written["spec_sha256"] == manifest.spec_hash(spec)
    assert written["seed"] == 0
    assert (written["dataset"]["train"], written["dataset"]["test"]) == (1437, 360)
    assert len(written["dataset"]["sha256"]) == 64
    (entry,) = written["attempts"]
    assert set(manifest.PACKAGES) == set(entry["packages"])
    assert entry["computes"]["device"]
    assert {"version", "commit", "dirty"} == set(entry["code"])


@pytest.mark.parametrize(
    ("revision", "commit", "dirty"), [("4f1c2a", "4f1c2a", False), ("4f1c2a-dirty", "4f1c2a", True)]
)
def test_an_image_says_from_which_commit_it_was_built(
    revision: str, commit: str, dirty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_REVISION", revision)
    code = manifest._environment()["code"]
    assert (code["commit"], code["dirty"]) == (commit, dirty)


def test_what_the_environment_leaves_empty_is_as_if_it_were_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose sets a variable that has no value to an empty one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    without = manifest._environment()
    assert without["image_digest"] is without["visible_gpus"] is None
    monkeypatch.setenv("PIPELINE_IMAGE_DIGEST", "")
    monkeypatch.setenv("PIPELINE_REVISION", "")
    assert manifest._environment() == without


def test_the_manifest_names_the_image_and_the_gpus_that_could_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_IMAGE_DIGEST", "sha256:0123")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    environment = manifest._environment()
    assert (environment["image_digest"], environment["visible_gpus"]) == ("sha256:0123", "GPU-a")


def test_the_spec_that_is_kept_can_be_read_again_as_it_was(home: Home) -> None:
    spec = make_spec({"augment": [{"name": "crop", "padding": 1}]}, optimizer={"name": "adamw"})
    frozen.save(home.run("job"), spec)
    assert frozen.load(home.run("job")) == spec


def test_text_that_looks_like_a_number_is_still_text_in_the_kept_spec(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: '1e5'\ndescription: 'no'\nmodel: {name: cnn_bn}\ndata: {name: digits}\n")
    spec = reading.load(file)
    frozen.save(home.run("job"), spec)
    assert reading.load(home.run("job").spec) == spec


def test_the_kept_spec_is_a_job_file_that_can_be_submitted(home: Home) -> None:
    frozen.save(home.run("job"), make_spec(optimizer={"name": "adamw", "lr": 1e-5}))
    command = [sys.executable, "-m", "pipeline.cli", "validate", str(home.run("job").spec)]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_fault_of_the_job_is_its_why_without_a_traceback(home: Home) -> None:
    attempt, lines = attempt_of(home, make_spec({"name": "image_folder", "path": "nowhere"}))
    result = attempt.execute()
    assert result.outcome == "failed"
    assert "nowhere" in result.why
    assert not any("Traceback" in line for line in lines)


def test_an_unforeseen_error_is_recorded_with_its_traceback_in_the_log(home: Home) -> None:
    attempt, lines = attempt_of(home, make_spec())
    home.run("job").manifest.mkdir()  # a folder where a file should be
    result = attempt.execute()
    assert result.outcome == "failed"
    assert "the log has the traceback" in result.why
    assert any("Traceback" in line for line in lines)


def test_a_full_disk_is_no_fault_of_the_job(home: Home, small_disk: Path) -> None:
    attempt, _ = attempt_of(home, make_spec())
    home.run("job").checkpoints.symlink_to(small_disk)
    result = attempt.execute()
    assert result.outcome == "lost"
    assert "the disk is full" in result.why


@pytest.mark.parametrize(("why", "outcome"), [(ASKED, "interrupted"), (WORKER_DIED, "lost")])
def test_an_attempt_that_is_asked_to_stop_says_by_whom(home: Home, why: str, outcome: str) -> None:
    stop = Stop()
    stop.request(why)
    result = attempt_of(home, make_spec(), stop)[0].execute()
    assert result.outcome == outcome
    assert why in result.why


def test_an_attempt_after_a_finished_one_has_nothing_left_to_do(home: Home) -> None:
    """The worker was killed between the last checkpoint and the result."""
    first = attempt_of(home, make_spec())[0].execute()
    second = attempt_of(home, make_spec(), number=2)[0].execute()
    assert (second.outcome, second.step, second.attempt) == ("succeeded", first.step, 2)
    assert second.metrics["test/accuracy"] == first.metrics["test/accuracy"]


def test_a_second_signal_calls_what_was_named_for_it() -> None:
    calls: list[str] = []
    stop = Stop()
    with listen(stop, signal.SIGTERM, again=lambda: calls.append("again")):
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.why, calls) == (ASKED, [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == ["again"]
    with pytest.raises(Interrupted, match=ASKED):
        stop.check()


def test_the_end_of_the_pipe_is_the_worker_s_death() -> None:
    read_fd, write_fd = os.pipe()
    stop = Stop()
    with listen(stop, alive_fd=read_fd):
        assert stop.why == ""
        os.close(write_fd)
        deadline = time.monotonic() + 30
        while not stop.why and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stop.why == WORKER_DIED
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.daemon:
            thread.join(timeout=10)
    os.close(read_fd)


HANGS = """
import os, signal, sys, time
from pipeline.training import attempt
from pipeline import stop
stop.GRACE_S = 0.2
with stop.listen(stop.Stop(), signal.SIGTERM, alive_fd=int(sys.argv[1]), abandoned=attempt.leave_at_once):
    if os.fork():
        print("ready", flush=True)
    while True:
        time.sleep(1)
"""


def test_an_orphan_that_hangs_leaves_by_itself_with_all_it_has_started() -> None:
    """Nobody else could end it, and while it lives its job is run by nobody."""
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-c", HANGS, str(read_fd)]
    with subprocess.Popen(command, pass_fds=[read_fd], stdout=subprocess.PIPE, start_new_session=True) as process:
        os.close(read_fd)
        assert process.stdout is not None
        first_line = process.stdout.readline()
        os.close(write_fd)
        process.stdout.read()  # its end comes when the last of them is gone
    assert (first_line, process.returncode) == (b"ready\n", -signal.SIGKILL)


def test_a_file_name_that_is_not_text_can_be_a_why(home: Home) -> None:
    result = Result(1, "failed", "caf\udce9.jpg cannot be read")
    home.run("job").root.mkdir(parents=True)
    result.write(home.run("job").result)
    assert Result.read(home.run("job").result) == result


def test_a_run_in_the_foreground_saves_itself_at_ctrl_c(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text("name: long\nmodel: {name: cnn_bn}\ndata: {name: digits}\ntrain: {epochs: 100000}\n")
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "run", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch" in line and "test accuracy" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 1
    assert "interrupted: asked to stop; step" in rest
    (folder,) = home.runs.iterdir()
    assert (folder / "checkpoints" / "last.pt").exists()
    assert "interrupted" in (folder / "attempt-1.log").read_text()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (MemoryError(), "out of memory; a smaller data.batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (ValueError("first line\nsecond line"), "ValueError: first line (the log has the traceback)"),
        (KeyError(), "KeyError: (the log"),
    ],
)
def test_an_error_is_explained_in_a_line(error: BaseException, expected: str) -> None:
    assert explain(error).startswith(expected)


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (7500, "2 h 05 min")])
def test_durations_are_told_as_people_do(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_importing_the_child_s_module_does_not_import_torch() -> None:
    code = f"import sys, {attempt.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
