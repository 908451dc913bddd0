"""The promise on the first page: pull the plug at any moment; the job goes on at the same step in the same curve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from quick import quick_spec, wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.home.paths import Home
from pipeline.home.records import End, Progress
from pipeline.queue.job_queue import Queue

EPOCHS, STEPS_OF_EPOCH = 40, 23
KILLS_AT = (100, 400, 700)  # or soon after


def start_worker(home: Home) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "worker", "--drain"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    measured = ("train/images_per_second", "train/device_memory_mib")
    tags = [tag for tag in reader.Tags()["scalars"] if tag not in measured]
    return {tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in tags}


def test_a_job_killed_again_and_again_ends_as_one_left_alone(home: Home) -> None:
    """Worker and child die of SIGKILL at once, as when the power fails, three times."""
    queue = Queue(home)
    spec = quick_spec(epochs=EPOCHS, train={"checkpoint_every": 1}, resources={"retries": 10})
    alone, killed = queue.submit(spec), queue.submit(spec)
    for at in KILLS_AT:
        worker = start_worker(home)
        wait_until(lambda at=at: reached(home, killed, at) or ended(queue, killed), f"step {at}")  # type: ignore[misc]
        for pid in [worker.pid, *children_of(worker)]:
            os.kill(pid, signal.SIGKILL)
        worker.wait()
    assert start_worker(home).wait(timeout=120) == 0

    ends = [End.read(queue.paths.end(job_id)) for job_id in (alone, killed)]
    for end in ends:
        assert end is not None
        assert (end.outcome, end.step, end.epoch) == ("succeeded", EPOCHS * STEPS_OF_EPOCH, EPOCHS)
    assert queue.attempts(killed).number >= 3, "it was killed in the midst of it, twice at least"
    expected, found = (torch.load(home.run(job_id).last, weights_only=True) for job_id in (alone, killed))
    assert [name for name, value in expected["model"].items() if not torch.equal(value, found["model"][name])] == []
    assert curves(home.run(killed).root) == curves(home.run(alone).root)


def reached(home: Home, job_id: str, step: int) -> bool:
    progress = Progress.read(home.run(job_id).progress)
    return progress is not None and progress.step >= step


def ended(queue: Queue, job_id: str) -> bool:
    return queue.paths.end(job_id).exists()
