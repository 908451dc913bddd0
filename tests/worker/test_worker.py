"""The worker as a process, with training processes of its own, some of them killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from quick import quick_spec, wait_until
from worker_processes import (  # noqa: F401 - two are fixtures
    Start,
    end_of,
    outcomes,
    queue,
    start,
    wait_for_end,
    wait_for_training,
)

from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import STATES, Home
from pipeline.home.records import Result
from pipeline.jobfile.spec import Spec
from pipeline.queue import repair
from pipeline.queue.job_queue import Queue

EPOCHS = 30  # of 23 steps: some seconds
LONG = 2000  # epochs, many minutes of them
IMPATIENT = """
from pipeline.cli import main
from pipeline.worker import running_job
running_job.GRACE_S = 1.0
main.main()
"""


def check_run(home: Home, job_id: str, attempts: int) -> None:
    """One run; a log and a verdict for each attempt; and if the latest one left a result, it is its own."""
    run = home.run(job_id)
    assert [p.name for p in run.logs()] == [f"attempt-{n}.log" for n in range(1, attempts + 1)]
    entries = Queue(home).attempts(job_id).entries
    assert len(entries) == attempts
    assert all(entry["outcome"] and entry["why"] for entry in entries)
    assert all((entry["executor"], entry["handle"]) == ("local", {"lease": job_id}) for entry in entries)
    result = Result.read(run.result)
    assert result is None or result.why


def steps_of(home: Home, job_id: str, tag: str = "train/loss") -> list[int]:
    """As TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home.run(job_id).root), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def test_drain_runs_every_job_and_leaves(queue: Queue, start: Start) -> None:
    first, second = queue.submit_all([quick_spec("first"), quick_spec("second", resources={"priority": 1})])
    assert start("worker", "--drain").wait() == 0
    for job_id in (first, second):
        end = end_of(queue, job_id)
        assert end.outcome == "succeeded"
        assert end.metrics["test/accuracy"] > 0.5
        assert outcomes(queue, job_id) == ["succeeded"]
        check_run(queue.home, job_id, attempts=1)
        assert queue.home.run(job_id).last.exists()
    assert (end_of(queue, second).finished_at or "") < (end_of(queue, first).finished_at or ""), "priority comes first"
    assert list(queue.paths.leases.iterdir()) == []


def test_jobs_that_fail_and_damaged_tickets_do_not_stop_the_worker(queue: Queue, start: Start) -> None:
    """An exception in the job; a torn ticket; foreign files. The job that is good runs, and the exit code tells."""
    absent = {"name": "image_folder", "path": "absent", "image_size": 32}
    bad, good = queue.submit_all(
        [
            Spec.model_validate_json(json.dumps({"name": "bad", "model": {"name": "cnn_bn"}, "data": absent})),
            quick_spec("good"),
        ]
    )
    torn = queue.submit(quick_spec("torn", resources={"priority": 5}))
    path = queue.paths.ticket("pending", torn)
    path.write_bytes(path.read_bytes()[:100])
    (queue.paths.state("pending") / "folder.json").mkdir()
    os.mkfifo(queue.paths.state("running") / "pi\npe.json")
    assert start("worker", "--drain").wait() == 1
    assert end_of(queue, good).outcome == "succeeded"
    end = end_of(queue, bad)
    assert end.outcome == "failed"
    assert "absent" in end.why
    assert queue.tickets.state(bad) == "failed"
    check_run(queue.home, bad, attempts=1)
    assert "absent" in queue.home.run(bad).log(1).read_text()
    assert len(queue.tickets.quarantined()) == 3


def test_a_killed_child_is_tried_again_in_the_same_run_until_retries_run_out(
    queue: Queue, start: Start, tmp_path: Path
) -> None:
    lucky = queue.submit(quick_spec("lucky", epochs=EPOCHS, train={"checkpoint_every": 1}, resources={"retries": 1}))
    worker = start("worker", "--drain")
    child = wait_for_training(queue.home, lucky)
    wait_until(queue.home.run(lucky).last.exists, "its first checkpoint")
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: queue.attempts(lucky).retries_used == 1, "the retry")
    assert worker.wait() == 0
    assert outcomes(queue, lucky) == ["lost", "succeeded"]
    assert "SIGKILL" in queue.attempts(lucky).entries[0]["why"]
    check_run(queue.home, lucky, attempts=2)
    assert "resumed at step" in queue.home.run(lucky).log(2).read_text()
    steps = steps_of(queue.home, lucky)
    assert steps == list(range(10, EPOCHS * 23 + 1, 10)), "one curve, each step once"
    assert "queued again" in (tmp_path / "output-0").read_text()

    unlucky = queue.submit(quick_spec("unlucky", epochs=LONG, resources={"retries": 0}))
    worker = start("worker", "--drain")
    os.kill(wait_for_training(queue.home, unlucky), signal.SIGKILL)
    assert worker.wait() == 1
    assert end_of(queue, unlucky).outcome == "lost"
    assert queue.tickets.state(unlucky) == "failed"


def test_a_killed_worker_leaves_a_child_that_saves_and_a_job_that_another_worker_goes_on_with(
    queue: Queue, start: Start
) -> None:
    job_id = queue.submit(quick_spec(epochs=EPOCHS))
    first = start("worker")
    child = wait_for_training(queue.home, job_id)
    first.kill()
    first.wait()
    second = start("worker", "--drain")  # at once: the child may still be saving, and holds the lease
    wait_until(lambda: queue.attempts(job_id).number == 2, "a second attempt")
    assert not is_alive(child), "never two at once"
    assert second.wait() == 0
    assert outcomes(queue, job_id) == ["lost", "succeeded"]
    why = queue.attempts(job_id).entries[0]["why"]
    assert why.startswith("its worker died; step ")
    saved = int(why.removeprefix("its worker died; step ").split()[0])
    assert f"resumed at step {saved} " in queue.home.run(job_id).log(2).read_text()
    check_run(queue.home, job_id, attempts=2)
    assert steps_of(queue.home, job_id) == list(range(10, EPOCHS * 23 + 1, 10))


@pytest.mark.parametrize("to_all", [False, True], ids=["to the worker", "to its child as well"])
def test_a_worker_asked_to_stop_saves_its_job_and_the_next_one_finishes_it(
    queue: Queue, start: Start, to_all: bool
) -> None:
    """As `docker stop` does it, and as service managers do that signal every process of a service."""
    job_id = queue.submit(quick_spec(epochs=EPOCHS, resources={"retries": 0}))
    worker = start("worker")
    child = wait_for_training(queue.home, job_id)
    for process in [worker.pid, child] if to_all else [worker.pid]:
        os.kill(process, signal.SIGTERM)
    assert worker.wait(timeout=30) == 0
    assert queue.tickets.state(job_id) == "pending"
    assert queue.attempts(job_id).retries_used == 0
    assert outcomes(queue, job_id) == ["interrupted"]
    result = Result.read(queue.home.run(job_id).result)
    assert result is not None
    assert result.step >= 10
    assert f"step {result.step} is saved" in result.why
    assert start("worker", "--drain").wait() == 0
    assert f"resumed at step {result.step} " in queue.home.run(job_id).log(2).read_text()
    assert outcomes(queue, job_id) == ["interrupted", "succeeded"]
    for tag in ("train/loss", "train/accuracy"):
        assert steps_of(queue.home, job_id, tag) == list(range(10, EPOCHS * 23 + 1, 10))
    assert steps_of(queue.home, job_id, "test/loss") == list(range(23, EPOCHS * 23 + 1, 23))


def test_a_job_that_runs_too_long_is_timed_out_and_one_that_nobody_wants_is_cancelled(
    queue: Queue, start: Start
) -> None:
    """Both run at the same time, in two slots."""
    late = queue.submit(quick_spec("late", epochs=LONG, resources={"timeout": 20}))
    unwanted = queue.submit(quick_spec("unwanted", epochs=LONG))
    worker = start("worker", "--drain", "--slots", "2")
    wait_for_training(queue.home, late, step=1)
    wait_for_training(queue.home, unwanted, step=1)
    assert len(queue.tickets.ids("running")) == 2
    assert repair.cancel(queue, unwanted) == "stopping"
    end = wait_for_end(queue, unwanted)
    assert (end.outcome, queue.tickets.state(unwanted)) == ("cancelled", "cancelled")
    assert end.why == f"cancelled at step {end.step}"
    assert queue.home.run(unwanted).last.exists(), "it can be taken up again"
    end = wait_for_end(queue, late)
    assert (end.outcome, queue.tickets.state(late)) == ("timed_out", "failed")
    assert "ran longer than resources.timeout, 20 s" in end.why
    assert worker.wait() == 1
    for job_id in (late, unwanted):
        check_run(queue.home, job_id, attempts=1)


def test_a_child_that_does_not_answer_is_killed_after_the_grace_period(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(epochs=LONG))
    worker = start("worker", "--drain", code=IMPATIENT)
    child = wait_for_training(queue.home, job_id)
    os.kill(child, signal.SIGSTOP)
    worker.terminate()
    assert worker.wait(timeout=60) == 0
    assert not Path(f"/proc/{child}").exists()
    assert queue.tickets.state(job_id) == "pending"
    assert outcomes(queue, job_id) == ["interrupted"]
    assert queue.attempts(job_id).retries_used == 0
    assert not Lease.is_held(queue.paths.lease(job_id))


def test_a_second_signal_does_not_wait_for_a_checkpoint(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(epochs=LONG))
    worker = start("worker")
    child = wait_for_training(queue.home, job_id)
    os.kill(child, signal.SIGSTOP)
    wait_until(lambda: is_stopped(child), "the child to stop")  # a SIGTERM in between would be handled first
    worker.send_signal(signal.SIGINT)
    wait_until(lambda: is_pending_signal(child, signal.SIGTERM), "the worker to ask its child")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=20) == 0
    assert queue.tickets.state(job_id) == "pending"
    assert queue.attempts(job_id).retries_used == 0


def is_stopped(process: int) -> bool:
    """Whether all of its threads are."""
    states = [(task / "stat").read_text() for task in Path(f"/proc/{process}/task").iterdir()]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


def is_pending_signal(process: int, number: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return any(int(mask, 16) & 1 << (number - 1) for mask in masks)


def test_status_shows_a_running_job_and_submit_waits_for_its_end(queue: Queue, start: Start, tmp_path: Path) -> None:
    """`submit --wait` tells the end by its exit code: 0 succeeded, 3 failed, 4 cancelled, 5 timed out, 6 lost."""
    text = "model: {name: cnn_bn}\nlog: {every: 10}\nresources: {retries: 0}\n"
    (tmp_path / "job.yaml").write_text(f"name: job\ndata: {{name: digits}}\n{text}")
    (tmp_path / "bad.yaml").write_text(f"name: bad\ndata: {{name: image_folder, path: absent}}\n{text}")

    def submitted(name: str, *changes: str, file: str = "job.yaml") -> tuple[subprocess.Popen[bytes], str]:
        words = [word for change in (f"name={name}", *changes) for word in ("--set", change)]
        process = start("submit", str(tmp_path / file), "--wait", *words)
        ids = wait_until(lambda: [i for s in STATES for i in queue.tickets.ids(s) if i.startswith(f"{name}-")], name)
        return process, ids[0]

    worker = start("worker")
    good, _ = submitted("good", "train.epochs=1")
    bad, _ = submitted("bad", file="bad.yaml")
    late, _ = submitted("late", f"train.epochs={LONG}", "resources.timeout=8s")
    assert (good.wait(), bad.wait(), late.wait()) == (0, 3, 5)
    lost, job_id = submitted("lost", f"train.epochs={LONG}")
    child = wait_for_training(queue.home, job_id)
    [view] = json.loads(run_cli(queue.home, "status", "--state", "running", "--json"))
    assert (view["id"], view["state"], view["attempt"], view["epochs"]) == (job_id, "running", 1, LONG)
    assert view["step"] >= 10
    assert view["started_at"] >= view["submitted_at"]
    assert view["finished_at"] is None
    assert view["metrics"]["train/loss"] > 0
    assert view["run_dir"] == str(queue.home.run(job_id).root)
    os.kill(child, signal.SIGKILL)
    assert lost.wait() == 6
    cancelled, job_id = submitted("cancelled", f"train.epochs={LONG}")
    wait_for_training(queue.home, job_id)
    run_cli(queue.home, "cancel", job_id)
    assert cancelled.wait() == 4
    worker.terminate()
    assert worker.wait() == 0


def run_cli(home: Home, *arguments: str) -> str:
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_worker_whose_output_nobody_reads_any_more_works_on(queue: Queue, home: Home) -> None:
    job_id = queue.submit(quick_spec())
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "worker", "--drain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdout is not None
        worker.stdout.close()
        worker.wait()
    assert end_of(queue, job_id).outcome == "succeeded"


def test_a_worker_without_standard_streams_hands_its_job_s_lease_on(queue: Queue, home: Home) -> None:
    """A file that got the number of one would be closed in the child, and the job would be taken a second time."""
    job_id = queue.submit(quick_spec(epochs=LONG))
    command = f"exec {sys.executable} -m pipeline.cli --home {home.root} worker <&- 2>&-"
    with subprocess.Popen(["sh", "-c", command]) as worker:
        try:
            child = wait_for_training(home, job_id)
            os.kill(child, signal.SIGSTOP)  # so that it does not leave
        finally:
            worker.kill()
    is_held = Lease.is_held(queue.paths.lease(job_id))
    os.kill(child, signal.SIGKILL)
    assert is_held
    wait_until(lambda: not Lease.is_held(queue.paths.lease(job_id)), "the lease to go with it")


def test_what_a_child_starts_in_its_session_dies_with_it(queue: Queue, start: Start, tmp_path: Path) -> None:
    """And a child that writes much, and not in lines, does no harm. The child here is not ours."""
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    script = tmp_path / "child.sh"
    script.write_text("sleep 600 & echo $! > grandchild; head -c 5000000 /dev/zero; printf 'last words'; exit 7\n")
    code = f"""
import os
from pipeline.cli import main
from pipeline.worker.executors import local
os.chdir({str(tmp_path)!r})
local.LocalExecutor.command = lambda self, claim, alive_fd: ["sh", {str(script)!r}]
main.main()
"""
    assert start("worker", "--drain", code=code).wait() == 1
    grandchild = int((tmp_path / "grandchild").read_text())
    wait_until(lambda: not is_alive(grandchild), "the grandchild to be gone")
    end = end_of(queue, job_id)
    assert (end.outcome, end.why) == ("failed", "its process left with exit code 7 and no result; see the log")
    assert "last words" in (tmp_path / "output-0").read_text()
    assert not Lease.is_held(queue.paths.lease(job_id))


def is_alive(process: int) -> bool:
    """Whether it still has memory, and may do something; a dead orphan is listed until somebody has waited for it."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGSEGV, 40, signal.SIGTERM])
def test_a_child_that_dies_by_any_signal_has_a_result(queue: Queue, start: Start, number: int) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    code = f"""
from pipeline.cli import main
from pipeline.worker.executors import local
local.LocalExecutor.command = lambda self, claim, alive_fd: ["sh", "-c", "kill -{int(number)} $$"]
main.main()
"""
    assert start("worker", "--drain", code=code).wait() == 1
    assert end_of(queue, job_id).outcome == ("lost" if number == signal.SIGTERM else "failed")
    check_run(queue.home, job_id, attempts=1)


def test_a_job_that_cannot_be_started_waits_and_uses_no_retry(queue: Queue, start: Start, tmp_path: Path) -> None:
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    code = """
from pipeline.cli import main
from pipeline.worker.executors import local
local.LocalExecutor.command = lambda self, claim, alive_fd: ["/nowhere/to/be/found"]
main.main()
"""
    worker = start("worker", code=code)
    wait_until(lambda: outcomes(queue, job_id) == ["interrupted"], "the failed start to be recorded")
    worker.terminate()
    assert worker.wait() == 0
    assert queue.tickets.state(job_id) == "pending"
    assert queue.attempts(job_id).retries_used == 0
    assert "/nowhere/to/be/found" in (tmp_path / "output-0").read_text()
    assert durable.read_json(queue.paths.end(job_id)) is None


def test_a_worker_lives_through_a_full_disk_and_records_the_end_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    queue = Queue(Home(small_disk))
    job_id = queue.submit(quick_spec(resources={"retries": 0}))
    ballast = small_disk / "ballast"
    code = f"""
from pipeline.cli import main
from pipeline.worker.executors import local
local.LocalExecutor.command = lambda self, claim, alive_fd: ["sh", "-c", "cat /dev/zero > {ballast}; exit 7"]
main.main()
"""
    command = [sys.executable, "-c", code, "--home", str(small_disk), "worker"]
    with (tmp_path / "output").open("wb") as output:
        worker = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        complaint = f"no room on the disk of {small_disk / 'queue'}"
        wait_until(lambda: complaint in (tmp_path / "output").read_text(), "the worker to say so")
        assert queue.tickets.state(job_id) == "running"
        ballast.unlink()
        assert wait_for_end(queue, job_id).why.startswith("its process left with exit code 7")
    finally:
        worker.terminate()
        assert worker.wait() == 0
