"""One attempt: what it leaves behind, however it ends."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import assert_identical
from quick import quick_spec, wait_until

from pipeline.board import tags
from pipeline.board.events import Point, read_scalars
from pipeline.board.writer import Board
from pipeline.errors import DataError
from pipeline.home import epoch_record
from pipeline.home.paths import Home
from pipeline.home.records import Progress, Result
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.stop import ASKED, NO_ROOM, WORKER_DIED, Stop
from pipeline.training import attempt, checkpoint, cpu_choice, manifest
from pipeline.training.attempt import Attempt
from pipeline.training.cpu_choice import Found
from pipeline.training.device import Setting
from pipeline.training.engine import Engine
from pipeline.training.progress import write_progress
from pipeline.training.reasons import explain


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
    scalars = {"train/loss", "train/epoch_loss", "train/epoch_accuracy", "test/loss", "test/accuracy"}
    assert scalars | {"test/best_accuracy"} <= set(result.metrics)
    assert folder.last.exists()
    assert folder.best.exists()
    assert list(folder.root.glob("events.out.tfevents.*"))
    (line,) = lines_of(lines, "epoch 1/1")
    assert f"  loss {result.metrics['train/epoch_loss']:.4f}  accuracy" in line
    assert f"accuracy {100 * result.metrics['train/epoch_accuracy']:5.2f} %  test loss" in line


@pytest.mark.parametrize("is_of_before", [False, True], ids=["", "by a version that did not note it"])
def test_a_job_goes_on_in_the_precision_that_it_began_in(
    is_of_before: bool, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is measured by then: on the CPU, `auto` in bf16 on one day is fp32 on another."""
    began: list[tuple[str, bool] | None] = []
    settle = cpu_choice.settle

    def noted(setting: Setting, *things: Any, before: dict[str, Any] | None, **more: Any) -> Setting:
        began.append(before and (before["precision"], before["channels_last"]))
        could = dataclasses.replace(setting, dtype=torch.bfloat16)
        return settle(could, *things, before=before or {"precision": "bf16"}, **more)

    monkeypatch.setattr(cpu_choice, "settle", noted)
    for number in (1, 2):
        attempt, lines = attempt_of(home, make_spec(epochs=number), number=number)
        attempt.execute()
        assert lines_of(lines, " bf16, ")
        if is_of_before:
            state = checkpoint.load(home.run("job").last)
            assert state is not None
            del state["precision"]
            checkpoint.save(home.run("job"), state)
    assert began == [None, ("bf16", True)]


def test_a_job_with_tiny_batches_goes_on_with_the_kernels_that_it_began_with(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = iter([[1.0, 1.0, 2.0]])
    monkeypatch.setattr(cpu_choice, "measure", lambda *_: Found(next(gains), is_steady=True))
    data = {"batch_size": 8, "val": 0.2}
    for number in (1, 2):
        spec = make_spec(data, epochs=number, precision="fp32")
        attempt, lines = attempt_of(home, spec, number=number)
        assert attempt.execute().outcome == "succeeded"
        assert lines_of(lines, " fp32 contiguous without oneDNN, ")
        assert manifest.latest_setting(home.run("job"))["onednn"] is False
        for record in (home.datasets / ".cache").glob("measured-*.json"):
            record.unlink()  # the checkpoint says it


def test_a_fault_of_the_job_is_its_why_without_a_traceback(home: Home) -> None:
    attempt, lines = attempt_of(home, make_spec({"name": "image_folder", "path": "nowhere"}))
    result = attempt.execute()
    assert result.outcome == "failed"
    assert "nowhere" in result.why
    assert not any("Traceback" in line for line in lines)


def test_a_device_that_is_not_there_is_named_before_any_image_is_decoded(home: Home) -> None:
    spec = quick_spec(resources={"device": "cuda:99"})
    attempt, _ = attempt_of(home, spec)
    result = attempt.execute()
    assert result.outcome == "failed"
    assert "cuda:99" in result.why
    assert not list(home.datasets.glob(".cache/*"))


def test_an_unforeseen_error_is_recorded_with_its_traceback_in_the_log(home: Home) -> None:
    attempt, lines = attempt_of(home, make_spec())
    home.run("job").checkpoints.symlink_to("/proc")  # where nobody can write a file
    result = attempt.execute()
    assert result.outcome == "failed"
    assert "the log has the traceback" in result.why
    assert any("Traceback" in line for line in lines)


def lines_of(lines: list[str], text: str) -> list[str]:
    return [line for line in lines if text in line]


def test_a_full_disk_is_no_fault_of_the_job(home: Home, small_disk: Path) -> None:
    """It is said in one line, and the worker is told to wait for room."""
    attempt, lines = attempt_of(home, make_spec())
    home.run("job").checkpoints.symlink_to(small_disk)
    result = attempt.execute()
    assert (result.outcome, attempt.is_disk_full) == ("interrupted", True)
    assert result.why.startswith("the disk is full: ")
    assert "goes on once there is room" in result.why
    assert Result.read(home.run("job").result) == result
    assert len(lines_of(lines, "disk is full")) == 1
    assert lines_of(lines, "Traceback") == []


def test_a_download_that_finds_the_disk_full_is_no_fault_of_the_job_either(home: Home) -> None:
    attempt, _ = attempt_of(home, make_spec())
    error = DataError("CIFAR10 could not be downloaded")
    assert attempt.ending_of(error) == ("failed", "CIFAR10 could not be downloaded")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "archive.tar.gz")
    assert attempt.ending_of(error)[0] == "interrupted"


def child(home: Home, number: int) -> int:
    """Run an attempt as a worker does, its output into its log. Returns its exit code."""
    command = [sys.executable, "-P", "-m", attempt.__name__, str(home.root), "job", str(number)]
    with home.run("job").log(number).open("ab") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=120, check=False).returncode


@pytest.mark.parametrize("size", ["40k", "120k", "256k", "1m"])
def test_an_attempt_on_a_full_disk_leaves_with_its_own_exit_code_and_the_next_one_goes_on(
    size: str, small_disk: Path
) -> None:
    """Wherever the disk fills up: in the events, which a thread of TensorBoard's writes, the log or a checkpoint."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
    home = Home(small_disk / "home")
    run = home.run("job")
    shown = {"figures": True, "embeddings": True, "every": 5}
    frozen.save(run, quick_spec(epochs=2, model={"name": "cnn_bn"}, log=shown))
    assert child(home, 1) == NO_ROOM
    assert "Traceback" not in run.log(1).read_text()
    if result := Result.read(run.result):
        assert result.outcome == "interrupted"
        assert "the disk is full" in result.why
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert child(home, 2) == 0
    result = Result.read(run.result)
    assert result is not None
    assert (result.outcome, result.attempt) == ("succeeded", 2)


@pytest.mark.parametrize("what_is_there", ["nothing", "a part of it"])
def test_a_run_folder_that_is_removed_while_its_job_runs_ends_the_attempt_as_lost(
    what_is_there: str, home: Home, tmp_path: Path
) -> None:
    """The folder is there again with the result in it, and so is a log."""
    run = home.run("job")
    lines: list[str] = []

    def echo(line: str) -> None:
        lines.append(line)
        if " 1/1000" in line:
            run.root.rename(tmp_path / "removed")
            if what_is_there == "a part of it":
                run.checkpoints.mkdir(parents=True)

    frozen.save(run, quick_spec(epochs=1000))
    result = Attempt(home, "job", 1, Stop(), echo).execute()
    assert (result.outcome, result.why) == ("lost", "its run folder was removed while it ran")
    assert Result.read(run.result) == result
    assert run.log(1).exists()
    assert lines_of(lines, "Traceback") == []


def stopping_at(home: Home, text: str, *, then: Callable[[], object] = str) -> Result:
    """Run the job until a line of its log has this text, then stop it."""
    stop = Stop()

    def echo(line: str) -> None:
        if text in line and not stop.why:
            then()
            stop.request(ASKED)

    number = 1 + len(home.run("job").events())
    return Attempt(home, "job", number, stop, echo).execute()


def test_a_stop_tells_the_step_of_the_last_checkpoint_on_disk(home: Home) -> None:
    """Not of the progress that an attempt was seen to make before it was killed."""
    run = home.run("job")
    frozen.save(run, quick_spec(epochs=1000))
    first = stopping_at(home, " 1/1000")
    assert first.why == f"{ASKED}; step {first.step} is saved"
    write_progress(run, Progress(1, epoch=9, epochs=1000, step=999, steps=23_000))
    stop = Stop()
    stop.request(ASKED)
    second = Attempt(home, "job", 2, stop, str).execute()
    assert second.why == f"{ASKED}; step {first.step} is saved"


def test_a_stop_before_the_first_checkpoint_says_that_nothing_is_saved(home: Home) -> None:
    run = home.run("job")
    frozen.save(run, quick_spec())
    write_progress(run, Progress(1, epochs=1, step=17, steps=23))
    stop = Stop()
    stop.request(ASKED)
    assert Attempt(home, "job", 2, stop, str).execute().why == f"{ASKED}; nothing is saved yet"


def test_a_stop_whose_checkpoint_a_full_disk_refuses_tells_the_one_before(home: Home, small_disk: Path) -> None:
    run = home.run("job")
    frozen.save(run, quick_spec(epochs=1000, model={"name": "vgg", "widths": [4]}))
    run.checkpoints.symlink_to(small_disk)

    def fill() -> None:
        wait_until(lambda: checkpoint.saved_step(run) == 23, "the first epoch's checkpoint")
        with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb") as file:
            file.write(bytes(10**7))

    result = stopping_at(home, " 1/1000", then=fill)
    assert result.step > 23
    assert result.why == f"{ASKED}; step 23 is saved"
    assert checkpoint.saved_step(run) == 23


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_stop_whose_last_events_the_disk_refuses_is_a_stop_all_the_same(
    number: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = home.run("job")
    frozen.save(run, quick_spec(epochs=1000))

    def refuse() -> None:
        wait_until(lambda: checkpoint.saved_step(run) == 23, "the first epoch's checkpoint")
        monkeypatch.setattr(Board, "flush", lambda _: raise_(OSError(number, os.strerror(number))))

    result = stopping_at(home, " 1/1000", then=refuse)
    assert (result.outcome, result.why) == ("interrupted", f"{ASKED}; step 23 is saved")


def raise_(error: Exception) -> None:
    raise error


def test_a_stop_of_weights_that_are_not_finite_is_a_divergence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = home.run("job")
    frozen.save(run, quick_spec(epochs=1000))
    real = Engine.state_dict

    def diverge() -> None:
        wait_until(lambda: checkpoint.saved_step(run) == 23, "the first epoch's checkpoint")
        monkeypatch.setattr(Engine, "state_dict", lambda self: real(self) | {"is_finite": torch.tensor(False)})

    result = stopping_at(home, " 1/1000", then=diverge)
    assert result.outcome == "failed"
    assert result.why.startswith(f"the weights are not finite after step {result.step}: the training diverged")
    assert checkpoint.saved_step(run) == 23


def test_an_attempt_that_finds_its_checkpoint_damaged_goes_on_from_the_one_before_bit_for_bit(home: Home) -> None:
    """As if nothing had happened: weights, curves, and how far it says that it is."""
    whole = home.run("whole")
    for run in (whole, home.run("job")):
        frozen.save(run, quick_spec(epochs=4, log={"every": 5}))
    assert Attempt(home, "whole", 1, Stop(), str).execute().outcome == "succeeded"
    stopped = stopping_at(home, " 3/4")
    content = bytearray(run.last.read_bytes())
    content[len(content) // 2] ^= 1
    run.last.write_bytes(content)  # under all its names
    lines: list[str] = []
    result = Attempt(home, "job", 2, Stop(), lines.append).execute()
    assert result.outcome == "succeeded"
    (said,) = lines_of(lines, "is damaged")
    assert said.endswith("last.pt: is damaged; the job goes on from the checkpoint before it, previous.pt")
    assert len(lines_of(lines, "resumed at step 69 (epoch 4)")) == 1
    assert stopped.step > 69
    for name in ("last.pt", "previous.pt", "best.pt"):
        ours, theirs = (torch.load(run.checkpoints / name, weights_only=True) for run in (run, whole))
        assert_identical(ours["model"], theirs["model"])
        assert ours["position"] == theirs["position"]
    ours, theirs = (without_rates(read_scalars(run.root)) for run in (run, whole))
    assert ours == theirs
    assert Progress.glance(run.progress).step == 92  # type: ignore[union-attr]


def test_a_checkpoint_that_says_something_else_is_named_without_a_traceback(home: Home) -> None:
    """With its seal: whoever has made it."""
    run = home.run("job")
    assert attempt_of(home, make_spec())[0].execute().outcome == "succeeded"
    state = checkpoint.load(run.last)
    assert state is not None
    for wrong in ({"metrics": ["high"]}, {"position": {}}, {"model": {}}):
        checkpoint.save(run, {**state, **wrong})
        attempt, lines = attempt_of(home, make_spec(), number=2)
        result = attempt.execute()
        assert result.outcome == "failed"
        assert f"{run.last}: the checkpoint " in result.why
        assert result.why.endswith("; remove it and the job begins anew")
        assert lines_of(lines, "Traceback") == []


def without_rates(curves: dict[str, list[Point]]) -> dict[str, list[tuple[int, float]]]:
    """The curves that are the same each time, by step."""
    measured = (tags.IMAGES_PER_SECOND, tags.DEVICE_MEMORY)
    return {tag: [(p.step, p.value) for p in points] for tag, points in curves.items() if tag not in measured}


def test_the_figures_of_each_epoch_are_those_of_its_curves(home: Home) -> None:
    """An epoch that is repeated is told again, and its last line counts."""
    run = home.run("job")
    assert attempt_of(home, make_spec(epochs=3))[0].execute().outcome == "succeeded"
    run.last.unlink()  # the job goes on from the one before
    assert attempt_of(home, make_spec(epochs=3), number=2)[0].execute().outcome == "succeeded"
    lines = [json.loads(line) for line in run.epochs.read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 12), (2, 24), (3, 36), (3, 36)]
    found, curves = epoch_record.read(run.epochs), read_scalars(run.root)
    assert found[3] == lines[3]["metrics"] != lines[2]["metrics"]
    assert {tag for tag in curves if not tag.startswith(tags.class_accuracy(""))} == found[1].keys()
    for tag in found[1].keys() - {tags.IMAGES_PER_SECOND, tags.DEVICE_MEMORY}:
        latest = [max((p for p in curves[tag] if p.step <= 12 * epoch), key=lambda p: p.step) for epoch in (1, 2, 3)]
        assert [found[epoch][tag] for epoch in (1, 2, 3)] == pytest.approx([point.value for point in latest])


def test_what_lies_in_the_place_of_the_figures_is_named(home: Home) -> None:
    attempt, lines = attempt_of(home, make_spec())
    home.run("job").epochs.mkdir()
    result = attempt.execute()
    assert result.outcome == "failed"
    assert result.why == f"{home.run('job').epochs}: it is none of the job's: it is not a regular file; remove it"
    assert lines_of(lines, "Traceback") == []


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


HANGS = """
import os, signal, sys, time
from pipeline import process
from pipeline import stop
stop.GRACE_S = 0.2
with stop.listen(stop.Stop(), signal.SIGTERM, alive_fd=int(sys.argv[1]), abandoned=process.leave_at_once):
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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (MemoryError(), "out of memory; a smaller data.batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (ValueError("first line\nsecond line"), "ValueError: first line (the log has the traceback)"),
        (KeyError(), "KeyError (the log"),
    ],
)
def test_an_error_is_explained_in_a_line(error: BaseException, expected: str) -> None:
    assert explain(error).startswith(expected)


def test_importing_the_child_s_module_does_not_import_torch() -> None:
    code = f"import sys, {attempt.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
