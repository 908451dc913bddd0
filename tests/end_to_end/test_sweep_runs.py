"""A sweep from the job file to its best trial's own run, by two workers that are killed on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline, submitted
from quick import wait_until
from worker_processes import Start, queue, start  # noqa: F401 - fixtures

from pipeline.board import events
from pipeline.home.paths import Home
from pipeline.home.sweep_record import SweepRecord
from pipeline.queue import sweeps
from pipeline.queue.job_queue import Queue

TEXT = """\
name: hunt
model: {name: cnn_bn}
data: {name: digits, val: 0.2}
train: {epochs: 2, precision: fp32, optimizer: {name: adamw}}
log: {histograms: false, images: false, graph: false, figures: false, pr_curves: false, embeddings: false}
search:
  trials: 4
  space:
    train.optimizer.lr: {from: 1e-4, to: 1e-1, log: true}
    data.batch_size: [64, 128]
"""


def kill_all(*pids: int) -> None:
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for victim in [pid, *map(int, children)]:
            os.kill(victim, signal.SIGKILL)


def test_a_sweep_whose_workers_are_killed_comes_to_its_end(
    pipeline: Pipeline, home: Home, job_file: JobFile, start: Start, tmp_path: Path
) -> None:
    (sweep_id,) = submitted(pipeline, job_file(text=TEXT))
    queue, record = Queue(home), home.run(sweep_id).trials
    first = [start("worker", "--drain") for _ in range(2)]
    wait_until(lambda: (view := sweeps.look(queue, sweep_id)) is not None and view.num_ended >= 1, "a trial's end")
    kill_all(*(worker.pid for worker in first))
    for worker in first:
        worker.wait()
    before = SweepRecord.read(record)
    assert before is not None
    done = pipeline("worker", "--drain", "--slots", "2", timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr

    after = SweepRecord.read(record)
    assert after is not None
    assert after.trials[: len(before.trials)] == before.trials, "none is forgotten, and none has another job"
    assert [trial.number for trial in after.trials] == [0, 1, 2, 3]
    jobs = json.loads(pipeline("status", "--json").stdout)
    assert sorted(job["id"] for job in jobs) == sorted([sweep_id, *(trial.job for trial in after.trials)])
    assert {(job["state"], job["outcome"]) for job in jobs} == {("done", "succeeded")}

    view = sweeps.look(queue, sweep_id)
    assert view is not None
    (best,) = view.best
    curve = events.read_scalars(home.run(best.job_id).root)["val/accuracy"]
    assert best.score is not None
    assert best.score.values[0] == pytest.approx(max(point.value for point in curve))  # float32 in the event file
    assert home.run(sweep_id).report.is_file()

    chosen = tmp_path / "best.yaml"
    chosen.write_text(pipeline("best", sweep_id).stdout)
    (job_id,) = submitted(pipeline, chosen)
    assert pipeline("worker", "--drain", timeout=240).returncode == 0
    spec = json.loads(pipeline("show", job_id, "--json").stdout)
    assert (spec["name"], spec["outcome"], spec["sweep"]) == ("hunt_best", "succeeded", None)
