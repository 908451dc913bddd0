"""Sweeps in the hands of workers: beside the slots, killed, stopped, and more of them than a worker takes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_sweeps
from attack.sweeps import WORKER
from quick import quick_spec, wait_until
from worker_processes import Start, end_of, outcomes, queue, start, wait_for_end  # noqa: F401 - two are fixtures

from pipeline.home.paths import Home
from pipeline.home.records import Progress
from pipeline.queue import repair
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.worker.executors.local import LocalExecutor
from pipeline.worker.gpus import Gpus
from pipeline.worker.running_job import prepare_run

IDLE = """
from pipeline.cli import main
from pipeline.worker import places
from pipeline.worker.executors import local
RESULT = '{"attempt":%s,"outcome":"succeeded","why":"trained"}'
def idle(self, claim, alive_fd):
    result = f"echo '{RESULT}' > {self.home.run(claim.id).result}" % claim.attempts.number
    return ["sleep", "600"] if claim.is_sweep else ["sh", "-c", result]
local.LocalExecutor.command = idle
places.MOST_SWEEPS = 2
main.main()
"""


@pytest.fixture(autouse=True)
def nothing_is_left(start: Start, home: Home) -> Iterator[None]:  # noqa: ARG001 - its workers end after this
    yield
    for process in driver_and_trials(home):
        os.kill(process, signal.SIGKILL)


def driver_and_trials(home: Home) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"pipeline.search.attempt" in words and str(home.root).encode() in words:
            found.append(int(entry.parent.name))
    return found


def wait_for_driver(home: Home, sweep_id: str, attempt: int) -> int:
    """Until it follows its trials; its process id."""

    def progress() -> bool:
        found = Progress.read(home.run(sweep_id).progress)
        return found is not None and found.attempt == attempt and found.note != "starting"

    wait_until(progress, f"attempt {attempt} at the sweep")
    [driver] = driver_and_trials(home)
    return driver


def test_a_worker_that_is_stopped_gives_the_sweep_back_and_two_that_drain_stay_until_it_is_done(
    queue: Queue, start: Start
) -> None:
    """One has a single slot, which the sweep does not take; the exit codes tell that all went well."""
    sweep_id = small_sweeps.submit(queue, trials=4)
    first = start("worker", code=WORKER)
    wait_for_driver(queue.home, sweep_id, 1)
    wait_until(lambda: len(queue.tickets.ids("running")) == 2, "a trial beside the sweep, with one slot")
    first.terminate()
    assert first.wait(timeout=20) == 0
    assert queue.tickets.state(sweep_id) == "pending"
    assert outcomes(queue, sweep_id) == ["interrupted"]
    assert queue.attempts(sweep_id).retries_used == 0
    assert driver_and_trials(queue.home) == []

    both = [start("worker", "--drain", "--slots", slots, code=WORKER) for slots in ("1", "2")]
    wait_until(lambda: queue.attempts(sweep_id).number == 2, "the next attempt at it")

    def is_done() -> bool:
        left = [process.poll() for process in both]
        is_running = queue.tickets.state(sweep_id) == "running"
        assert not is_running or left == [None, None], "nobody leaves while the sweep may submit another trial"
        return not is_running

    wait_until(is_done, "the end of the sweep")
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert outcomes(queue, sweep_id) == ["interrupted", "succeeded"]
    assert small_sweeps.check(queue.home, sweep_id) == []


def test_a_driver_that_is_killed_again_and_again_is_started_again_and_takes_no_retry_from_its_trials(
    queue: Queue, start: Start
) -> None:
    sweep_id = small_sweeps.submit(queue, trials=6, resources={"retries": 0})
    process = start("worker", "--drain", code=WORKER)
    for attempt in (1, 2, 3):
        os.kill(wait_for_driver(queue.home, sweep_id, attempt), signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    assert outcomes(queue, sweep_id) == ["lost", "lost", "lost", "succeeded"]
    assert queue.attempts(sweep_id).retries_used == 3
    for trial in small_sweeps.record_of(queue.home, sweep_id).trials:
        assert outcomes(queue, trial.job) == ["succeeded"]
    assert small_sweeps.check(queue.home, sweep_id) == []


def test_more_sweeps_than_a_worker_takes_hold_up_no_job(queue: Queue, start: Start) -> None:
    """By priority; what is asked to stop goes back."""
    waiting = [small_sweeps.submit(queue, name="waits", resources={"priority": 3}) for _ in range(3)]
    running = [small_sweeps.submit(queue, name="runs", resources={"priority": 5}) for _ in range(2)]
    job_id = queue.submit(quick_spec(resources={"priority": -5}))
    process = start("worker", code=IDLE)
    assert wait_for_end(queue, job_id).outcome == "succeeded"
    assert sorted(queue.tickets.ids("running")) == sorted(running)
    assert sorted(queue.tickets.ids("pending")) == sorted(waiting)
    assert repair.cancel(queue, running[0]) == "stopping"
    assert wait_for_end(queue, running[0]).outcome == "cancelled"
    wait_until(lambda: waiting[0] in queue.tickets.ids("running"), "the next one")
    process.terminate()
    assert process.wait(timeout=20) == 0
    assert queue.tickets.ids("running") == []


def test_a_sweep_does_not_wait_for_a_slot(queue: Queue, start: Start) -> None:
    """As one whose process was killed while a trial of it has the only slot."""
    code = IDLE.replace('["sh", "-c", result]', '["sleep", "600"]').replace("MOST_SWEEPS = 2", "SWEEPS_EVERY_S = 0.1")
    long = queue.submit(quick_spec())
    process = start("worker", code=code)
    wait_until(lambda: queue.tickets.ids("running") == [long], "the job that has the slot")
    other, sweep_id = queue.submit(quick_spec(resources={"priority": 5})), small_sweeps.submit(queue)
    wait_until(lambda: queue.tickets.state(sweep_id) == "running", "the sweep beside it")
    assert queue.tickets.state(other) == "pending"
    process.terminate()
    assert process.wait(timeout=20) == 0


def test_a_sweep_takes_no_gpu(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalExecutor, "command", lambda *_: ["true"])
    executor = LocalExecutor(queue.home)
    executor.gpus = Gpus(queue.paths, ("GPU-5d1c2a60-0c4f-1f0e-9d8a-3f7b6c5e4d21",))
    sweep_id = small_sweeps.submit(queue, resources={"device": "auto", "priority": 1})
    queue.submit(quick_spec(resources={"device": "auto"}))
    for is_sweep in (True, False):
        claim = queue.claim("worker")
        assert isinstance(claim, Claim)
        assert (claim.id == sweep_id) == is_sweep
        prepare_run(queue.home.run(claim.id), claim)
        attempt = executor.start(claim)
        assert (attempt.gpu is None) == is_sweep
        wait_until(lambda: attempt.poll() is not None, "its end")  # noqa: B023
        attempt.close()
