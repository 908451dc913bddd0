"""Sweeps as they look: which trial is best and why; and what the queue does with their tickets."""

from __future__ import annotations

import dataclasses
import json

import pytest
from quick import quick_spec
from sweeps_by_hand import Told, make_sweep

from pipeline.errors import QueueError
from pipeline.home.paths import Home
from pipeline.home.records import Result, StopRequest
from pipeline.queue import repair, sweeps, views
from pipeline.queue.claims import Claim, Ended
from pipeline.queue.drained import is_drained
from pipeline.queue.job_queue import Queue
from pipeline.queue.sweeps import Score, TrialView, front, score, short_names, value_of
from pipeline.queue.tickets import ForeignFile, Ticket

ONE = [("val/accuracy", True)]
SGD, ADAMW = ({"train.optimizer.lr": 0.1, "train.optimizer.name": name} for name in ("sgd", "adamw"))


def epochs(*values: float, tag: str = "val/accuracy", **more: float) -> dict[int, dict[str, float]]:
    return {epoch: {tag: value, **more} for epoch, value in enumerate(values, start=1)}


def test_a_trial_counts_by_its_best_epoch() -> None:
    found = score(epochs(0.5, 0.9, 0.8), {}, ONE)
    assert found is not None
    assert (found.epoch, found.values) == (2, (0.9,))
    low = score(epochs(0.5, 0.1, 0.8, tag="val/loss"), {}, [("val/loss", False)])
    assert low is not None
    assert (low.epoch, low.values) == (2, (0.1,))


def test_all_objectives_are_of_the_best_epoch_by_the_first() -> None:
    figures = {1: {"val/accuracy": 0.9, "val/loss": 0.7}, 2: {"val/accuracy": 0.8, "val/loss": 0.2}}
    found = score(figures, {}, [("val/accuracy", True), ("val/loss", False)])
    assert found is not None
    assert (found.epoch, found.values) == (1, (0.9, 0.7))


def test_val_means_test_where_there_is_no_val() -> None:
    assert value_of({"test/accuracy": 0.5}, "val/accuracy") == 0.5
    assert value_of({"test/accuracy": 0.5, "val/accuracy": 0.4}, "val/accuracy") == 0.4
    assert value_of({"val/accuracy": 0.4}, "test/accuracy") is None


def test_what_is_told_once_at_the_end_is_taken_from_there() -> None:
    found = score(epochs(0.5, 0.6), {"test/accuracy": 0.7}, [("test/accuracy", True)])
    assert found is not None
    assert (found.epoch, found.values) == (0, (0.7,))
    assert score(epochs(0.5, 0.6), {}, [("test/top5_accuracy", True)]) is None
    assert score({}, {}, ONE) is None


def views_of(*points: tuple[float, ...]) -> list[TrialView]:
    return [TrialView(n, "", {}, None, Score(1, point, {})) for n, point in enumerate(points)]


@pytest.mark.parametrize(
    ("points", "directions", "best"),
    [
        ([(0.5,), (0.9,), (0.9,)], [True], [1]),
        ([(0.5,), (0.9,)], [False], [0]),
        ([], [True], []),
        ([(0.5, 3.0), (0.9, 2.0), (0.4, 2.9), (0.9, 1.0)], [True, True], [0, 1]),
        ([(0.5, 3.0), (0.9, 2.0), (0.4, 2.9), (0.9, 1.0)], [True, False], [3]),
        ([(0.5, 1.0), (0.5, 1.0)], [True, True], [0, 1]),
    ],
)
def test_the_front(points: list[tuple[float, ...]], directions: list[bool], best: list[int]) -> None:
    objectives = [(str(index), is_high) for index, is_high in enumerate(directions)]
    assert [trial.number for trial in front(views_of(*points), objectives)] == best


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (["train.optimizer.lr", "model.depth"], ["lr", "depth"]),
        (["train.optimizer.name", "train.optimizer.lr"], ["optimizer.name", "lr"]),
        (["train.optimizer.name", "model.name"], ["optimizer.name", "model.name"]),
        (["name"], ["name"]),
        (["a.x", "b.x"], ["a.x", "b.x"]),
    ],
)
def test_short_names(fields: list[str], names: list[str]) -> None:
    assert short_names(fields) == names


def test_a_sweep_is_looked_at(home: Home) -> None:
    told = [
        Told(SGD, accuracies=[0.5, 0.7]),
        Told(ADAMW, accuracies=[0.9, 0.8]),
        Told(SGD, "pruned", accuracies=[0.95]),
        Told(ADAMW, "failed", accuracies=[]),
        Told(SGD, "running", accuracies=[0.3]),
        Told(ADAMW, "pending", accuracies=[]),
    ]
    sweep_id, jobs = make_sweep(home, told)
    found = sweeps.look(Queue(home), sweep_id)
    assert found is not None
    assert [trial.job_id for trial in found.trials] == jobs
    counts = {"succeeded": 2, "pruned": 1, "failed": 1, "running": 1, "pending": 1}
    assert (found.count(), found.num_ended) == (counts, 4)
    assert [trial.number for trial in found.best] == [1], "one that was pruned is not the best"
    assert [trial.number for trial in found.ranked] == [1, 0, 2, 4]
    assert sweeps.look(Queue(home), jobs[0]) is None, "a trial is no sweep"
    assert sweeps.jobs_of(Queue(home), sweep_id) == jobs
    assert sweeps.jobs_of(Queue(home), jobs[0]) == []


def test_jobs_say_whose_trials_they_are(home: Home) -> None:
    sweep_id, (first, second) = make_sweep(home, [Told(SGD), Told(ADAMW, "pending")])
    found = {job.id: job for job in views.jobs(Queue(home))}
    assert {job_id: (job.sweep, job.trial, job.is_sweep) for job_id, job in found.items()} == {
        sweep_id: (sweep_id, None, True),
        first: (sweep_id, 0, False),
        second: (sweep_id, 1, False),
    }
    Queue(home).submit(quick_spec())
    assert views.find(Queue(home), "latest").sweep is None


def test_trials_do_not_crowd_out_other_jobs(home: Home) -> None:
    queue = Queue(home)
    queue.submit(quick_spec("first"))
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    queue.settle(claim, Result(1, "succeeded", "done"))
    claim.lease.release()
    make_sweep(home, [Told(SGD, accuracies=[0.5])] * 5)
    found = views.survey(queue, most_ended=1)
    assert {job.name for job in found.jobs} == {"first", "hunt", *(f"hunt-{n}" for n in range(5))}
    assert found.num_earlier == 0


@pytest.mark.parametrize(
    "change",
    [
        {"sweep": 5},
        {"trial": "0"},
        {"sweep": None},
        {"trial": None},
        {"sweep": "../elsewhere"},
        {"trial": True},
    ],
)
def test_a_trials_ticket_that_is_none_is_foreign(home: Home, change: dict[str, object]) -> None:
    _, (job_id,) = make_sweep(home, [Told(SGD, "pending")])
    queue = Queue(home)
    path = queue.paths.ticket("pending", job_id)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert isinstance(queue.tickets.read("pending", job_id), ForeignFile)


def test_tickets_of_before_are_read() -> None:
    ticket = dataclasses.replace(Ticket.new(quick_spec()), id="quick-0001")
    plain = json.loads(ticket.to_json())
    assert plain.keys() == {"id", "name", "priority", "submitted_at", "spec"}
    assert Ticket.parse(ticket.to_json(), ticket.id) == ticket
    trial = dataclasses.replace(ticket, sweep=ticket.id, trial=0)
    assert Ticket.parse(trial.to_json(), ticket.id) == trial


def test_a_sweep_can_be_left_for_others(home: Home) -> None:
    queue = Queue(home)
    spec = quick_spec("hunt", search={"space": {"train.epochs": [1, 2]}})
    sweep_id = queue.submit(Ticket.of_sweep(spec, {"search": {}}, {}))
    plain = queue.submit(quick_spec())
    claim = queue.claim("worker", with_sweeps=False)
    assert isinstance(claim, Claim)
    assert (claim.id, claim.is_sweep) == (plain, False)
    assert queue.claim("worker", with_sweeps=False) is None
    assert queue.tickets.state(sweep_id) == "pending"


def test_nothing_is_drained_while_a_sweep_runs(home: Home) -> None:
    make_sweep(home, [Told(SGD)])
    assert not is_drained(Queue(home)), "it may submit another job"


@pytest.mark.parametrize("how", ["waits", "runs"])
def test_a_trial_ends_as_pruned(home: Home, how: str) -> None:
    queue = Queue(home)
    job_id = queue.submit(quick_spec())
    if how == "waits":
        repair.prune(queue, job_id, "others were better")
        ended = queue.claim("worker")
        assert isinstance(ended, Ended)
        end = ended.end
    else:
        claim = queue.claim("worker")
        assert isinstance(claim, Claim)
        repair.prune(queue, job_id, "others were better")
        found = queue.settle(claim, Result(1, "interrupted", "asked to stop", step=7))
        claim.lease.release()
        assert found is not None
        end = found
    when = {"waits": "while it waited", "runs": "at step 7"}[how]
    assert (end.outcome, end.why) == ("pruned", f"pruned {when}: others were better")
    assert queue.tickets.state(job_id) == "done", "which is no failure"
    assert queue.stop_request(job_id) is None
    with pytest.raises(QueueError, match="is done; only a failed or cancelled job can be retried"):
        repair.retry(queue, job_id)


def test_what_has_succeeded_is_not_pruned_any_more(home: Home) -> None:
    queue = Queue(home)
    queue.submit(quick_spec())
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    repair.prune(queue, claim.id, "others were better")
    end = queue.settle(claim, Result(1, "succeeded", "trained"))
    assert end is not None
    assert end.outcome == "succeeded"


def test_a_person_may_cancel_what_was_to_be_pruned(home: Home) -> None:
    queue = Queue(home)
    job_id = queue.submit(quick_spec())
    repair.prune(queue, job_id, "others were better")
    assert repair.cancel(queue, job_id) == "cancelled"
    assert queue.tickets.state(job_id) == "cancelled"


def test_requests_of_before_are_those_to_cancel(home: Home) -> None:
    queue = Queue(home)
    job_id = queue.submit(quick_spec())
    queue.paths.cancel_request(job_id).write_text('{"requested_at": "2026-01-01T00:00:00.000Z"}')
    assert queue.stop_request(job_id) == StopRequest("cancelled", "", "2026-01-01T00:00:00.000Z")
    queue.paths.cancel_request(job_id).write_text("{")
    request = queue.stop_request(job_id)
    assert request is not None
    assert request.outcome == "cancelled", "a torn one counts"
