"""Attempts that are handed to an engine which is a stand-in here: what a real one does seldom, or not on demand."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from quick import quick_spec, wait_until
from worker_processes import queue  # noqa: F401 - a fixture

from pipeline.errors import QueueError
from pipeline.home import durable, paths
from pipeline.home.paths import Home
from pipeline.home.records import Order, Progress, Result
from pipeline.queue import adoption, repair, views
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.worker import running_job
from pipeline.worker.executors import cluster, desk, probe
from pipeline.worker.executors.cluster import ClusterAttempt, ClusterExecutor, name_of
from pipeline.worker.executors.engine import BusyError, RefusedError, Seen, Task, UnreachableError
from pipeline.worker.running_job import RunningJob, prepare_run


@dataclass
class StandIn:
    """An engine that does what a test tells it to."""

    name: str = "slurm"
    cluster: str = "lab"
    error: Exception | None = None  # that submit raises
    takes_it_all_the_same: bool = False
    is_silent: bool = False
    tasks: dict[str, Seen] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def answer(self) -> None:
        if self.is_silent:
            raise UnreachableError("no answer")

    def submit(self, task: Task) -> str:
        self.submitted.append(task.name)
        if self.error is None or self.takes_it_all_the_same:
            self.tasks[task.name] = Seen("7", "waits", "Resources")
        if self.error is not None:
            raise self.error
        return "7"

    def look(self, names: Sequence[str]) -> dict[str, Seen]:
        self.answer()
        return {name: self.tasks[name] for name in names if name in self.tasks}

    def ask_to_stop(self, name: str) -> None:
        self.answer()
        self.told.append(f"stop {name}")

    def kill(self, name: str) -> None:
        self.answer()
        self.told.append(f"kill {name}")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(desk, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(desk, "TRY_AGAIN_S", 0.05)
    monkeypatch.setattr(desk, "FORGOTTEN_S", 0.2)
    monkeypatch.setattr(cluster, "KILL_AGAIN_S", 0.05)
    return StandIn()


@dataclass
class Bench:
    queue: Queue
    engine: StandIn
    executor: ClusterExecutor
    said: list[str]

    def claim(self, **sections: dict[str, object]) -> Claim:
        self.queue.submit(quick_spec(**sections))
        claim = self.queue.claim("worker", self.executor.record)
        assert isinstance(claim, Claim)
        prepare_run(self.queue.home.run(claim.id), claim)
        return claim

    def has_complained(self) -> bool:
        self.executor.tick()
        return bool(self.said)

    def start(self, **sections: dict[str, object]) -> RunningJob:
        claim = self.claim(**sections)
        attempt = self.executor.start(claim)
        assert isinstance(attempt, ClusterAttempt)
        return RunningJob(claim, attempt)


@pytest.fixture
def bench(queue: Queue, engine: StandIn) -> Iterator[Bench]:
    said: list[str] = []
    executor = ClusterExecutor(queue.home, engine, said.append)
    yield Bench(queue, engine, executor, said)
    engine.is_silent = False
    executor.close()


def task_of(job: RunningJob | Claim) -> str:
    """The name of its task in the engine."""
    return name_of(job.claim if isinstance(job, RunningJob) else job)


def run(bench: Bench, job: RunningJob) -> None:
    """Have the engine run it, and the worker hear of that."""
    wait_until(lambda: task_of(job) in bench.engine.tasks, "it to be handed over")
    bench.engine.tasks[task_of(job)] = Seen("7", "runs", node="n1")
    wait_until(lambda: job.attempt.poll() is None and job.attempt.started_at is not None, "it to run")


def wait_for_end(job: RunningJob) -> Result:
    """What the verdict on it is."""
    status = wait_until(lambda: (found := job.attempt.poll()) is not None and (found,), "its end")[0]
    job.has_gone()
    return job.judge(job.attempt.run, status).result  # type: ignore[attr-defined] # of a cluster


def test_a_job_waits_runs_and_ends_as_the_engine_says(bench: Bench) -> None:
    job = bench.start()
    name = task_of(job)
    assert bench.queue.attempts(job.id).latest["handle"] == {"name": name, "cluster": "lab"}, "before it is handed over"
    note = "waits in slurm (job 7): Resources"

    def is_told() -> bool:
        assert job.attempt.poll() is None
        progress = Progress.read(bench.queue.home.run(job.id).progress)
        return job.attempt.waits_for == note and progress is not None and progress.note == note

    wait_until(is_told, "what it waits for")
    assert job.attempt.started_at is None, "a time limit does not count yet"
    bench.engine.tasks[name] = Seen("7", "runs", node="n1", ran_s=5)
    wait_until(lambda: job.attempt.poll() is None and job.attempt.started_at is not None, "it to run")
    job.note_where(bench.queue.records)
    assert bench.queue.attempts(job.id).latest["handle"] == {
        **{"name": name, "cluster": "lab", "id": "7"},
        "node": "n1",
    }
    assert views.find(bench.queue, job.id).where == "slurm job 7 on n1"
    bench.engine.tasks[name] = Seen("7", "ended", status=3)
    assert wait_for_end(job).why == "its process left with exit code 3 and no result; see the log"


def test_what_the_engine_refuses_fails_in_its_words(bench: Bench) -> None:
    bench.engine.error = RefusedError("Invalid partition name specified")
    result = wait_for_end(bench.start())
    assert (result.outcome, result.why) == ("failed", "slurm refuses it: Invalid partition name specified")


def test_what_the_engine_has_no_place_for_is_tried_again_and_others_meanwhile(bench: Bench) -> None:
    bench.engine.error = BusyError("QOSMaxSubmitJobPerUserLimit")
    job = bench.start()
    said = "slurm has no place for it now: QOSMaxSubmitJobPerUserLimit"
    wait_until(lambda: job.attempt.waits_for == said, "it to be said")  # type: ignore[attr-defined]
    bench.engine.error = None
    wait_until(lambda: bench.engine.tasks, "the second try")
    assert len(bench.engine.submitted) >= 2


@pytest.mark.parametrize("is_taken", [True, False])
def test_an_engine_that_may_have_taken_it_is_asked_before_it_is_handed_over_again(is_taken: bool, bench: Bench) -> None:
    bench.engine.error, bench.engine.takes_it_all_the_same = UnreachableError("timed out"), is_taken
    job = bench.start()
    wait_until(lambda: bench.engine.submitted, "the first try")
    bench.engine.error = None
    wait_until(lambda: job.attempt.poll() is None and "Resources" in job.attempt.waits_for, "it to be there")
    assert bench.engine.submitted == [task_of(job)] * (1 if is_taken else 2)


def test_an_engine_that_does_not_answer_is_waited_for_and_that_is_said(bench: Bench) -> None:
    job = bench.start()
    run(bench, job)
    bench.engine.is_silent = True
    wait_until(lambda: job.attempt.poll() is None and bench.has_complained(), "a complaint")
    assert bench.said[0] == "slurm does not answer, and what it runs goes on: no answer"
    bench.engine.is_silent = False
    bench.engine.tasks[task_of(job)] = Seen("7", "ended", "its node failed", status=0, outcome="lost")
    assert wait_for_end(job).why == "slurm (job 7): its node failed"


def test_an_engine_that_is_not_there_is_told_before_there_is_a_job(queue: Queue, engine: StandIn) -> None:
    engine.is_silent = True
    said: list[str] = []
    executor = ClusterExecutor(queue.home, engine, said.append)
    wait_until(lambda: executor.tick() or said, "a complaint")  # type: ignore[func-returns-value]
    assert said[0] == "slurm does not answer, and what it runs goes on: no answer"
    engine.is_silent = False
    executor.close()


def test_what_the_engine_has_forgotten_is_lost_and_told_to_leave(bench: Bench) -> None:
    job = bench.start()
    run(bench, job)
    bench.engine.tasks.clear()
    assert wait_for_end(job).why == "slurm (job 7) does not know it any more"
    assert Order.read(bench.queue.home.run(job.id).order) == Order(1, stop=True)


def test_an_attempt_that_was_never_handed_over_uses_up_no_retry(bench: Bench) -> None:
    """Its worker was killed between the record and the submission."""
    claim = bench.claim()
    claim.lease.release()
    assert repair.repair(bench.queue) == [], "others leave it alone"
    assert [*adoption.left_alone(bench.queue, "ray", "lab")] == []
    assert [*adoption.left_alone(bench.queue, "slurm", "another")] == []
    (found,) = adoption.left_alone(bench.queue, "slurm", "lab")
    job = RunningJob(found, bench.executor.take_up(found))
    result = wait_for_end(job)
    assert (result.outcome, result.why) == (
        "interrupted",
        "slurm does not know it; it was never handed over, or long ago",
    )
    assert [*adoption.left_alone(bench.queue, "slurm", "lab")] == [], "somebody watches it"
    found.lease.release()


def test_a_job_that_nobody_watches_is_asked_to_stop_and_not_ended(bench: Bench) -> None:
    claim = bench.claim()
    claim.lease.release()
    assert repair.cancel(bench.queue, claim.id) == "stopping"
    assert bench.queue.tickets.state(claim.id) == "running"


def test_what_waits_is_taken_back_and_what_runs_is_asked_first(bench: Bench) -> None:
    waiting, running = bench.start(), bench.start()
    run(bench, running)
    for job in (waiting, running):
        job.ask_to_stop("cancelled")
    wait_until(lambda: len(bench.engine.told) == 2, "the engine to be told")
    assert bench.engine.told == [f"kill {task_of(waiting)}", f"stop {task_of(running)}"]
    assert Order.read(bench.queue.home.run(running.id).order) == Order(1, stop=True)


def test_a_kill_is_asked_for_again_until_it_has_happened(bench: Bench) -> None:
    job = bench.start()
    run(bench, job)

    def killed_twice() -> bool:
        job.attempt.kill()
        return len(bench.engine.told) >= 2

    wait_until(killed_twice, "two of them")
    assert len(set(bench.engine.told)) == 1


def test_settings_that_were_changed_for_the_worse_hold_jobs_up_and_lose_none(bench: Bench) -> None:
    claim = bench.claim()
    bench.queue.home.settings.write_text("resources: {gpu: 1}\n")
    with pytest.raises(QueueError, match=r"settings.yaml:1: resources.gpu: .*did you mean 'gpus'"):
        bench.executor.start(claim)


def test_a_job_that_the_engine_stops_again_and_again_before_it_gains_a_step_fails(bench: Bench) -> None:
    """Else a time limit that is too short would have it run for ever."""
    job = bench.start()
    run(bench, job)
    stopped = {"outcome": "interrupted", "why": "asked to stop", "step": 7}
    entries = job.claim.attempts.entries
    entries[:0] = [{**stopped} for _ in range(running_job.IN_VAIN - 1)]  # type: ignore[typeddict-item]
    name, number = task_of(job), len(entries)
    for step, outcome in ((8, "interrupted"), (7, "failed")):
        Result(number, "interrupted", "asked to stop", step=step).write(bench.queue.home.run(job.id).result)
        assert job.judge(bench.queue.home.run(job.id), 1).result.outcome == outcome
    bench.engine.tasks[name] = Seen("7", "ended", status=1)
    entries[2]["step"] = 3
    assert job.judge(bench.queue.home.run(job.id), 1).result.outcome == "interrupted", "it has gained some meanwhile"


@pytest.mark.parametrize("error", [ValueError("no number"), RefusedError("no"), BusyError("later")], ids=str)
def test_an_answer_that_nobody_foresaw_does_not_end_the_watching(error: Exception, bench: Bench) -> None:
    job = bench.start()
    run(bench, job)
    bench.engine.answer = lambda: raise_(error)  # type: ignore[method-assign]
    wait_until(lambda: job.attempt.poll() is None and bench.has_complained(), "a complaint")
    del bench.engine.answer  # type: ignore[method-assign]
    bench.engine.tasks[task_of(job)] = Seen("7", "ended", status=3)
    assert "exit code 3" in wait_for_end(job).why


def raise_(error: Exception) -> None:
    raise error


def test_a_task_that_cannot_even_be_handed_over_fails_alone(bench: Bench) -> None:
    bench.engine.error = ValueError("no such thing")
    assert wait_for_end(bench.start()).why == "slurm refuses it: ValueError: no such thing"
    bench.engine.error = None
    run(bench, bench.start())


def test_silence_is_not_counted_as_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine was asked once just when it began, knew nothing yet, and then nobody could ask it."""
    monkeypatch.setattr(desk, "FORGOTTEN_S", 1.0)
    job = bench.start()
    run(bench, job)
    known = bench.engine.tasks.pop(task_of(job))
    watched = job.attempt.watched  # type: ignore[attr-defined] # of a cluster
    wait_until(lambda: watched.missing_since is not None, "a look that finds nothing")
    bench.engine.is_silent = True
    wait_until(lambda: job.attempt.poll() is None and bench.has_complained(), "a complaint")
    time.sleep(1.2)
    bench.engine.tasks[task_of(job)] = known
    bench.engine.is_silent = False
    wait_until(lambda: not bench.executor.desk.problem, "an answer")
    assert job.attempt.poll() is None


def test_a_job_that_was_cancelled_while_nobody_watched_saves_itself(bench: Bench) -> None:
    claim = bench.claim()
    bench.engine.tasks[task_of(claim)] = Seen("7", "runs", node="n1")
    job = RunningJob(claim, bench.executor.take_up(claim))
    job.ask_to_stop("cancelled")
    wait_until(lambda: bench.engine.told, "the engine to be told")
    assert bench.engine.told == [f"stop {task_of(claim)}"]


def test_a_disk_that_takes_no_order_keeps_nobody_from_being_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.start()
    run(bench, job)
    real = durable.replace_json
    monkeypatch.setattr(durable, "replace_json", lambda *_, **__: raise_(OSError(errno.EDQUOT, "Quota exceeded")))
    job.ask_to_stop("cancelled")
    wait_until(lambda: bench.engine.told, "the engine to be told")
    monkeypatch.setattr(durable, "replace_json", real)
    assert job.attempt.poll() is None
    assert Order.read(bench.queue.home.run(job.id).order) == Order(1, stop=True)


def test_an_attempt_that_an_engine_cancels_without_a_word_is_tried_again(bench: Bench) -> None:
    """A Slurm whose controller was killed forgets what it had not saved, and cancels what it finds running."""
    ran, waited = bench.start(), bench.start()
    run(bench, ran)
    wait_until(lambda: task_of(waited) in bench.engine.tasks, "it to be handed over")
    bench.engine.tasks[task_of(ran)] = Seen("7", "ended", "was cancelled there", "n1", status=-9, outcome="cancelled")
    bench.engine.tasks[task_of(waited)] = Seen("8", "ended", "was cancelled there", outcome="cancelled")
    assert wait_for_end(ran).outcome == "lost"
    assert wait_for_end(waited).outcome == "cancelled"


def test_what_this_worker_has_killed_itself_was_not_cancelled_there(bench: Bench) -> None:
    """An attempt that has recorded its interruption, and hangs after that."""
    job = bench.start()
    run(bench, job)
    Result(1, "interrupted", "asked to stop", step=5).write(bench.queue.home.run(job.id).result)
    job.attempt.kill()
    bench.engine.tasks[task_of(job)] = Seen("7", "ended", "was cancelled there", status=-9, outcome="cancelled")
    assert wait_for_end(job).outcome == "interrupted"


def test_a_timeout_of_the_homes_settings_counts(bench: Bench) -> None:
    bench.queue.home.settings.write_text("resources: {timeout: 2h}\n")
    assert bench.start().timeout_s == 7200
    assert bench.start(resources={"timeout": 60}).timeout_s == 60


def test_a_result_counts_more_than_what_the_engine_says_but_for_a_stop_in_the_engine(bench: Bench) -> None:
    for left, ended, outcome in (
        (Result(1, "succeeded", "done"), Seen("7", "ended", "its node failed", outcome="lost"), "succeeded"),
        (Result(1, "interrupted", "asked to stop"), Seen("7", "ended", "limit", outcome="interrupted"), "interrupted"),
        (
            Result(1, "interrupted", "asked to stop"),
            Seen("7", "ended", "was cancelled", outcome="cancelled"),
            "cancelled",
        ),
    ):
        job = bench.start()
        left.write(bench.queue.home.run(job.id).result)
        task = task_of(job)
        wait_until(lambda task=task: task in bench.engine.tasks, "it to be handed over")
        bench.engine.tasks[task] = ended
        assert wait_for_end(job).outcome == outcome


def test_the_doctor_says_of_a_node_that_sees_no_runs_what_to_do(bench: Bench) -> None:
    def ends(task: Task) -> str:
        bench.engine.tasks[task.name] = Seen("7", "ended", "could not be started", "n1", status=1, outcome="lost")
        return "7"

    bench.engine.submit = ends  # type: ignore[method-assign]
    ran, runs = probe.check_cluster(bench.queue.home, bench.engine)
    assert (ran.verdict, ran.text) == ("ok", "job 7 ran on n1")
    assert runs.verdict == "error"
    assert "PIPELINE_RUNS must name a folder that the nodes share" in runs.text
    bench.engine.is_silent = True
    (check,) = probe.check_cluster(bench.queue.home, bench.engine)
    assert (check.name, check.verdict, check.text) == ("slurm", "error", "no answer")
    assert [path.name for path in bench.queue.home.runs.iterdir()] == []


def test_the_doctor_names_versions_and_datasets_that_differ_on_a_node(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is this process, in which another PyTorch is installed, and the datasets are others."""

    def runs(task: Task) -> str:
        folder = Path(task.command[-1])
        with monkeypatch.context() as node:
            node.setenv(paths.DATASETS, str(bench.queue.home.root / "elsewhere"))
            found = probe.look_around(folder)
        durable.replace_json(folder / "found.json", found | {"versions": found["versions"] | {"torch": "2.0"}})
        bench.engine.tasks[task.name] = Seen("7", "ended", node="n1")
        return "7"

    bench.engine.submit = runs  # type: ignore[method-assign]
    checks = {check.name: check for check in probe.check_cluster(bench.queue.home, bench.engine)}
    assert checks["shared runs"].verdict == "ok"
    assert checks["shared datasets"].verdict == "error"
    assert "a node sees another" in checks["shared datasets"].text
    assert checks["versions"].verdict == "warning"
    assert checks["versions"].text.startswith("on the node: torch 2.0, here ")


def test_two_homes_never_share_a_task(bench: Bench, tmp_path: Path, engine: StandIn) -> None:
    """Both count their jobs from one, and one engine has the tasks of both."""
    other = Queue(Home(tmp_path / "other"))
    executor = ClusterExecutor(other.home, engine, bench.said.append)
    names = []
    for each in (bench.queue, other):
        each.submit(quick_spec())
        claim = each.claim("worker", executor.record)
        assert isinstance(claim, Claim)
        assert claim.id == "quick-0001"
        names.append(name_of(claim))
    executor.close()
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"quick-0001-[0-9a-f]{6}\.1", name) for name in names)
