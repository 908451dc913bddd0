"""What a user gets, wherever attempts run: on this machine, in Slurm, on Ray. The same tests for all of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sites
import torch
from quick import quick_spec, wait_until
from sites import ClusterSite, Site, SlurmSite, Workers
from worker_processes import (  # noqa: F401 - one is a fixture
    end_of,
    is_training,
    outcomes,
    queue,
    wait_for_end,
    wait_for_training,
)

from pipeline.home.paths import Home
from pipeline.jobfile.spec import Spec
from pipeline.queue import repair, views
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket
from pipeline.training import checkpoint

LONG = 2000  # epochs, many minutes of them
SOME = 15  # epochs of 23 steps, some seconds


pytestmark = pytest.mark.clusters
SITES = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("local", "slurm", "ray")]


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "slurm":
        yield from sites.slurm_site(tmp_path_factory.mktemp("slurm"))
    elif request.param == "ray":
        yield from sites.ray_site(tmp_path_factory.mktemp("ray"))
    else:
        yield from sites.local_site()


@pytest.fixture
def workers(site: Site, home: Home, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(home, site, tmp_path)
    yield workers
    workers.close()


def executors(queue: Queue, job_id: str) -> list[str]:
    return [entry["executor"] for entry in queue.attempts(job_id).entries]


def lives(process: int) -> bool:
    """Whether it runs; one that has ended stays in /proc, without a command line, until its parent sees it."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except OSError:
        return False


def why(queue: Queue, job_id: str) -> str:
    job = views.look(queue, job_id)
    return "" if job is None else job.why


def test_jobs_succeed_and_fail_and_their_logs_are_whole(queue: Queue, workers: Workers, site: Site) -> None:
    absent = {"name": "image_folder", "path": "absent", "image_size": 32}
    good, bad = queue.submit_all([quick_spec("good"), quick_spec("bad", data=absent)])
    ticket = Ticket.new(quick_spec("invalid"))
    ticket.spec["train"]["epochs"] = "many"  # as of another version of the program
    invalid = queue.submit(ticket)
    assert workers.start("--drain").wait() == 1
    assert (end_of(queue, good).outcome, end_of(queue, bad).outcome) == ("succeeded", "failed")
    assert "absent" in end_of(queue, bad).why
    assert (end_of(queue, invalid).outcome, outcomes(queue, invalid)) == ("invalid", [])
    assert executors(queue, good) == [site.name]
    entry = json.loads(queue.home.run(good).manifest.read_text())["attempts"][0]
    where = views.find(queue, good).where
    assert entry["node"]
    assert site.name != "slurm" or where == f"slurm job {entry['cluster_job']} on {entry['node']}"
    printed = workers.output().read_text()
    for job_id in (good, bad):
        log = queue.home.run(job_id).log(1).read_text()
        assert [line for line in log.splitlines() if line.partition(": ")[2] not in printed] == []
    assert list(queue.paths.leases.iterdir()) == []


def test_the_more_important_one_runs_first(queue: Queue, workers: Workers) -> None:
    first, second = queue.submit_all([quick_spec("first"), quick_spec("second", resources={"priority": 1})])
    assert workers.start("--drain", "--slots", "1").wait() == 0
    assert (end_of(queue, second).finished_at or "") < (end_of(queue, first).finished_at or "")


def test_a_running_job_is_cancelled(queue: Queue, workers: Workers) -> None:
    job_id = queue.submit(quick_spec(epochs=LONG))
    workers.start()
    wait_for_training(queue.home, job_id)
    assert repair.cancel(queue, job_id) == "stopping"
    end = wait_for_end(queue, job_id)
    assert (end.outcome, end.why) == ("cancelled", f"cancelled at step {end.step}")
    assert checkpoint.saved_step(queue.home.run(job_id)) == end.step > 0


def test_a_job_that_waits_in_a_cluster_says_what_for_and_is_cancelled(
    queue: Queue, workers: Workers, site: Site
) -> None:
    if site.name == "local":
        pytest.skip("here a job waits in the queue alone")
    job_id = queue.submit(quick_spec(resources={"cpus": 64}))  # no node has so many
    workers.start()
    wait_until(lambda: re.match(rf"waits in {site.name}( \(job .*\))?: \w", why(queue, job_id)), "why it waits")
    repair.cancel(queue, job_id)
    end = wait_for_end(queue, job_id)
    assert (end.outcome, end.why, end.step) == ("cancelled", "cancelled", 0)


def test_a_trial_that_is_behind_is_pruned(queue: Queue, workers: Workers) -> None:
    job_id = queue.submit(quick_spec(epochs=LONG))
    workers.start()
    wait_for_training(queue.home, job_id)
    repair.prune(queue, job_id, "behind the others")
    end = wait_for_end(queue, job_id)
    assert (end.outcome, queue.tickets.state(job_id)) == ("pruned", "done")


def test_an_interrupted_job_goes_on_at_the_same_step_with_the_same_bits(
    queue: Queue, workers: Workers, site: Site
) -> None:
    if site.name == "local":
        pytest.skip("tests/worker has it: a stop of the worker")
    job_id, alone = queue.submit_all([quick_spec(epochs=SOME), quick_spec("alone", epochs=SOME)])
    workers.start("--drain")
    wait_for_training(queue.home, job_id, step=40)
    site.interrupt(queue.home, job_id)
    for each in (job_id, alone):
        assert wait_for_end(queue, each).outcome == "succeeded"
    first, second = queue.attempts(job_id).entries
    assert (first["outcome"], second["outcome"]) == ("interrupted", "succeeded")
    assert queue.attempts(job_id).retries_used == 0
    assert f"resumed at step {first['step']} " in queue.home.run(job_id).log(2).read_text()
    assert first["step"] > 0
    ours, theirs = (checkpoint.load(queue.home.run(each).last) for each in (job_id, alone))
    assert ours is not None
    assert theirs is not None
    assert [key for key, value in ours["model"].items() if not torch.equal(value, theirs["model"][key])] == []


def test_a_killed_attempt_is_tried_again(queue: Queue, workers: Workers) -> None:
    job_id = queue.submit(quick_spec(epochs=SOME, train={"checkpoint_every": 1}))
    workers.start("--drain")
    os.kill(wait_for_training(queue.home, job_id, step=60), signal.SIGKILL)
    assert wait_for_end(queue, job_id).outcome == "succeeded"
    assert outcomes(queue, job_id) == ["lost", "succeeded"]
    assert queue.attempts(job_id).retries_used == 1


def test_a_killed_workers_job_goes_on_and_is_run_once(queue: Queue, workers: Workers, site: Site) -> None:
    job_id = queue.submit(quick_spec(epochs=SOME))
    worker = workers.start()
    wait_for_training(queue.home, job_id)
    worker.kill()
    worker.wait()
    workers.start("--drain")
    assert wait_for_end(queue, job_id).outcome == "succeeded"
    assert outcomes(queue, job_id) == (["lost", "succeeded"] if site.name == "local" else ["succeeded"])


def test_a_worker_that_is_stopped_leaves_its_jobs_to_the_cluster(queue: Queue, workers: Workers, site: Site) -> None:
    if site.name == "local":
        pytest.skip("here its jobs end with it")
    job_id = queue.submit(quick_spec(epochs=SOME))
    worker = workers.start()
    process = wait_for_training(queue.home, job_id)
    worker.terminate()
    assert worker.wait(30) == 0
    assert f"goes on in {site.name}; the next worker takes it up" in workers.output().read_text()
    assert f"no worker watches it: `pipeline worker --on {site.name}`" in why(queue, job_id)
    os.kill(process, 0)
    assert repair.repair(queue) == [], "nobody else gives it up"
    workers.start("--drain")
    assert wait_for_end(queue, job_id).outcome == "succeeded"
    assert outcomes(queue, job_id) == ["succeeded"]


def test_worker_and_attempt_killed_at_once(queue: Queue, workers: Workers) -> None:
    job_id = queue.submit(quick_spec(epochs=SOME))
    worker = workers.start()
    process = wait_for_training(queue.home, job_id)
    worker.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    worker.wait()
    workers.start("--drain")
    assert wait_for_end(queue, job_id).outcome == "succeeded"
    assert outcomes(queue, job_id) == ["lost", "succeeded"]


def test_a_job_that_takes_too_long_is_ended_and_what_waits_is_not(queue: Queue, workers: Workers) -> None:
    job_id = queue.submit(quick_spec(epochs=LONG, resources={"timeout": 8}))
    workers.start()
    end = wait_for_end(queue, job_id)
    assert (end.outcome, end.why) == (
        "timed_out",
        "ran longer than resources.timeout, 8 s; `retry` goes on from its last checkpoint",
    )


STAND_IN = """
from pipeline.worker.executors import local
local.ATTEMPT = "stand_in_attempt"
"""


def test_twenty_jobs_and_two_workers_lose_none_and_run_none_twice(queue: Queue, workers: Workers) -> None:
    ids = queue.submit_all([quick_spec(f"job-{number}") for number in range(20)])
    for _ in range(2):
        workers.start("--drain", code=STAND_IN, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    for worker in workers.started:
        assert worker.wait() == 0
    assert {end_of(queue, job_id).outcome for job_id in ids} == {"succeeded"}
    assert sorted((queue.home.root / "ran.txt").read_text().splitlines()) == sorted(f"{job_id} 1" for job_id in ids)


def test_a_sweep_finds_its_best_and_prunes(queue: Queue, workers: Workers, site: Site) -> None:
    search = {"trials": 4, "pruner": "median", "space": {"train.optimizer.lr": [0.003, 0.001, 1e-6, 2e-6]}}
    written = quick_spec("sweep", epochs=4).model_dump(mode="json") | {"search": search}
    spec = Spec.model_validate_json(json.dumps(written))
    job_id = queue.submit(Ticket.of_sweep(spec, written, {}))
    assert workers.start("--drain", *(["--slots", "2"] if site.name == "local" else [])).wait() == 0
    end = end_of(queue, job_id)
    assert end.outcome == "succeeded", end.why
    assert executors(queue, job_id) == ["local"]
    trials = [job for job in views.jobs(queue) if job.trial is not None]
    assert len(trials) == 4
    assert {executors(queue, job.id)[-1] for job in trials} == {site.name}


def test_an_engine_whose_daemon_is_killed_loses_no_job(queue: Queue, workers: Workers, site: Site) -> None:
    """The worker waits for it, and says so. A Ray without its head ends all attempts, which are then tried again."""
    if not isinstance(site, ClusterSite):
        pytest.skip("there is no engine")
    job_id = queue.submit(quick_spec(epochs=50, train={"checkpoint_every": 1}))
    workers.start("--drain")
    old = wait_for_training(queue.home, job_id, step=40)
    if not site.jobs_outlive_daemon:
        os.kill(old, signal.SIGSTOP)  # so that it does not succeed before it is ended
    with site.without_daemon():
        said = f"{site.name} does not answer, and what it runs goes on: "
        wait_until(lambda: said in workers.output().read_text(), "the worker to say so")
    assert wait_for_end(queue, job_id).outcome == "succeeded"
    assert outcomes(queue, job_id) == ([] if site.jobs_outlive_daemon else ["lost"]) + ["succeeded"]
    wait_until(lambda: not lives(old), "the old process to be gone")


def test_a_node_is_lost_and_the_old_process_lives_on(queue: Queue, workers: Workers, site: Site) -> None:
    """It is replaced by a second attempt on another node, notices that, and leaves; it has changed nothing."""
    if not isinstance(site, ClusterSite):
        pytest.skip("it has no nodes")
    job_id = queue.submit(quick_spec(epochs=SOME, train={"checkpoint_every": 1}))
    workers.start("--drain")
    old = wait_for_training(queue.home, job_id, step=40)
    os.kill(old, signal.SIGSTOP)
    node = wait_until(lambda: views.find(queue, job_id).where.partition(" on ")[2], "its node to be known")
    restore = site.lose_node(node)
    try:
        wait_until(lambda: is_training(queue.home, job_id, attempt=2), "the second attempt")
        assert outcomes(queue, job_id)[0] == "lost"
        os.kill(old, signal.SIGCONT)
        assert wait_for_end(queue, job_id).outcome == "succeeded"
        wait_until(lambda: not lives(old), "the old process to leave")
        text = queue.home.run(job_id).log(1).read_text()
        assert "another process has this attempt's place" in text
        assert outcomes(queue, job_id) == ["lost", "succeeded"]
    finally:
        restore()


def test_a_preempted_job_saves_itself_and_goes_on_later(queue: Queue, workers: Workers, site: Site) -> None:
    if not isinstance(site, SlurmSite):
        pytest.skip("of Slurm")
    job_id = queue.submit(quick_spec(epochs=LONG, resources={"cpus": 4}))
    workers.start()
    wait_for_training(queue.home, job_id, step=40)
    node = wait_until(lambda: views.find(queue, job_id).where.partition(" on ")[2], "its node to be known")
    site.cluster.call("sbatch", "--partition=urgent", f"--nodelist={node}", "--cpus-per-task=4", "--output=/dev/null",
                      "--wrap", "sleep 5")  # fmt: skip
    wait_until(lambda: len(queue.attempts(job_id).entries) == 2, "the second attempt")
    first = queue.attempts(job_id).entries[0]
    assert (first["outcome"], queue.attempts(job_id).retries_used) == ("interrupted", 0)
    assert first["step"] >= 40
    wait_for_training(queue.home, job_id, attempt=2, step=first["step"] + 1)
    repair.cancel(queue, job_id)
    assert wait_for_end(queue, job_id).outcome == "cancelled"


def test_a_time_limit_means_a_checkpoint_and_a_further_attempt(queue: Queue, workers: Workers, site: Site) -> None:
    """A limit of a minute, Slurm's shortest, leaves no time to save: the signal for that comes at its next look."""
    if not isinstance(site, SlurmSite):
        pytest.skip("it has no time limit")
    job_id = queue.submit(quick_spec(epochs=LONG, resources={"slurm": {"time": 60}}))
    workers.start()
    wait_until(lambda: len(queue.attempts(job_id).entries) == 2, "the second attempt", deadline_s=150)
    first = queue.attempts(job_id).entries[0]
    assert (first["outcome"], queue.attempts(job_id).retries_used) == ("interrupted", 0)
    assert "is saved" in first["why"]
    wait_for_training(queue.home, job_id, attempt=2, step=first["step"] + 1)
    repair.cancel(queue, job_id)
    assert wait_for_end(queue, job_id).outcome == "cancelled"


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        ({"slurm": {"partition": "nope"}}, "Invalid partition name specified"),
        ({"gpus": 1}, "Requested node configuration is not available"),
        ({"memory": "900GB"}, "Requested node configuration is not available"),
    ],
    ids=str,
)
def test_what_slurm_refuses_fails_at_once_in_its_words(
    resources: dict[str, object], reason: str, queue: Queue, workers: Workers, site: Site
) -> None:
    if site.name != "slurm":
        pytest.skip("of Slurm")
    job_id = queue.submit(quick_spec(resources={"device": "auto", **resources}))
    assert workers.start("--drain").wait() == 1
    end = end_of(queue, job_id)
    assert (end.outcome, end.why) == ("failed", f"slurm refuses it: {reason}")
    assert outcomes(queue, job_id) == ["failed"]


def test_a_job_cancelled_in_the_cluster_itself_is_cancelled(queue: Queue, workers: Workers, site: Site) -> None:
    if not isinstance(site, ClusterSite):
        pytest.skip("there is no cluster")
    job_id = queue.submit(quick_spec(epochs=LONG))
    workers.start()
    wait_for_training(queue.home, job_id)
    site.stop_outside(str(queue.attempts(job_id).latest["handle"]["name"]))
    end = wait_for_end(queue, job_id)
    assert end.outcome == "cancelled"
    assert re.search("was (cancelled|stopped) there", end.why)
    assert checkpoint.saved_step(queue.home.run(job_id)), "it was told, and had the time"


def test_the_doctor_asks_a_node(site: Site, home: Home) -> None:
    if site.name == "local":
        pytest.skip("there are no nodes")
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "doctor", "--on", site.name]
    environment = {**os.environ, **site.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shared runs" in done.stdout
    assert "versions" in done.stdout
    assert "error" not in done.stdout
