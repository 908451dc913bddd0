"""A sweep in this process, with workers that train nothing: whole, stopped, killed and refused at every step."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import small_sweeps
from small_sweeps import LR, Workers, folder, record_of  # noqa: F401 - a fixture

from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Outcome
from pipeline.home.sweep_record import CANCELLED, SweepRecord, Trial
from pipeline.queue import repair
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket
from pipeline.search import attempt, study, sweep

CALLS = ("fsync", "link", "rename", "replace", "unlink")  # of `os`: all that a record, a ticket or a line goes through


class Killed(BaseException):
    """What a real kill does to the code that runs: it does not go on."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever polls here does not wait."""
    monkeypatch.setattr(sweep, "POLL_S", 0.0)
    monkeypatch.setattr(sweep, "GONE_S", 0.05)
    monkeypatch.setattr(attempt, "AGAIN_S", 0.0)


@pytest.fixture
def queue(folder: Path) -> Queue:
    queue = Queue(Home(folder))
    queue.create()
    return queue


def end_of(queue: Queue, job_id: str) -> tuple[str, str]:
    end = queue.records.sound_end(job_id)
    assert end is not None
    return end.outcome, end.why


def ends(queue: Queue, sweep_id: str) -> list[str]:
    return [end_of(queue, trial.job)[0] for trial in record_of(queue.home, sweep_id).trials]


def trials(queue: Queue, sweep_id: str) -> list[Trial]:
    """Those that are there by now."""
    record = SweepRecord.read(queue.home.run(sweep_id).trials)
    return record.trials if record else []


def states_told(queue: Queue, sweep_id: str) -> dict[int, str]:
    _, told = small_sweeps.journal(queue.home.run(sweep_id).study)
    return {line["trial_id"]: small_sweeps._STATES[line["state"]] for line in told}


# To the end


@pytest.mark.parametrize(
    ("search", "trials"),
    [
        ({"trials": 6}, 6),
        ({"trials": 6, "sampler": "tpe"}, 6),
        ({"sampler": "grid", "trials": None, "space": {LR: [0.1, 0.01], "train.seed": {"from": 0, "to": 2}}}, 6),
    ],
)
def test_a_whole_sweep(queue: Queue, search: dict[str, Any], trials: int) -> None:
    sweep_id = small_sweeps.submit(queue, **search)
    assert small_sweeps.drive(queue, sweep_id, Workers(queue)) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    found = record_of(queue.home, sweep_id).trials
    assert len({str(trial.values) for trial in found}) == trials, "no values twice"
    best = max(found, key=lambda trial: small_sweeps.accuracy({"train": {"optimizer": {"lr": trial.values[LR]}}}, 3))
    assert f"6 of 6 trials (6 succeeded); best: trial {best.number}, val/accuracy" in end_of(queue, sweep_id)[1]


def test_a_trial_is_an_ordinary_job_of_the_sweep_s_priority(queue: Queue) -> None:
    sweep_id = small_sweeps.submit(queue, name="n" * 64, trials=11, resources={"priority": 7})
    assert small_sweeps.drive(queue, sweep_id, Workers(queue)) == "done"
    for trial in record_of(queue.home, sweep_id).trials:
        ticket = queue.tickets.read("done", trial.job)
        assert isinstance(ticket, Ticket)
        assert (ticket.priority, ticket.sweep, ticket.trial, ticket.is_sweep) == (7, sweep_id, trial.number, False)
        assert ticket.name == f"{'n' * 61}-{trial.number:02}", "as TensorBoard sorts them"
        assert ticket.validated().train.optimizer.lr == trial.values[LR]


def test_one_trial_is_ready_before_a_worker_asks_for_it_and_no_more(queue: Queue) -> None:
    sweep_id, most = small_sweeps.submit(queue, trials=8), []
    workers = Workers(queue, slots=2, at_turn=lambda _: most.append(len(queue.tickets.ids("pending"))))
    assert small_sweeps.drive(queue, sweep_id, workers) == "done"
    assert max(most) == 1


def test_trials_that_are_left_behind_are_pruned_which_is_no_failure(queue: Queue) -> None:
    """Of a median that needs five ended trials; a pruned one is told with what it had reached."""
    lrs = [0.01, 0.011, 0.009, 0.012, 0.008, 1.0, 0.9]
    search = {"sampler": "grid", "pruner": "median", "space": {LR: lrs}, "trials": None}
    sweep_id = small_sweeps.submit(queue, epochs=8, **search)
    assert small_sweeps.drive(queue, sweep_id, Workers(queue, slots=1)) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    assert ends(queue, sweep_id) == ["succeeded"] * 5 + ["pruned"] * 2
    assert "pruned at step 10: val/accuracy was 0." in end_of(queue, record_of(queue.home, sweep_id).trials[5].job)[1]


def test_several_objectives_make_a_front_and_need_no_single_best(queue: Queue) -> None:
    def metrics(spec: Any, epoch: int) -> dict[str, float]:
        return {
            "val/accuracy": small_sweeps.accuracy(spec, epoch),
            "train/epoch_loss": spec["train"]["optimizer"]["lr"],
        }

    search = {"maximize": "val/accuracy", "minimize": ["train/epoch_loss"], "sampler": "tpe"}
    sweep_id = small_sweeps.submit(queue, trials=5, **search)
    assert small_sweeps.drive(queue, sweep_id, Workers(queue, metrics=metrics)) == "done"
    for line, trial in zip(
        small_sweeps.journal(queue.home.run(sweep_id).study)[1], record_of(queue.home, sweep_id).trials, strict=True
    ):
        if line["trial_id"] == trial.number:
            assert line["values"][1] == pytest.approx(trial.values[LR])
    assert set(states_told(queue, sweep_id).values()) == {"COMPLETE"}


# Trials that come to nothing


def test_trials_that_fail_or_are_cancelled_by_a_person_are_told_as_that_and_the_others_go_on(queue: Queue) -> None:
    kinds: list[Outcome] = ["succeeded", "failed", "succeeded", "timed_out", "succeeded", "succeeded"]

    def at_turn(turn: int) -> None:  # noqa: ARG001
        found = trials(queue, sweep_id)
        if len(found) == 6 and queue.tickets.state(found[5].job) == "pending":
            repair.cancel(queue, found[5].job)

    sweep_id = small_sweeps.submit(queue, trials=6)
    workers = Workers(queue, ends_as=kinds.__getitem__, at_turn=at_turn)
    workers.queue.home.root.touch()
    assert small_sweeps.drive(queue, sweep_id, workers) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    assert ends(queue, sweep_id) == [*kinds[:5], "cancelled"]
    assert "3 succeeded, 1 failed, 1 timed_out, 1 cancelled" in end_of(queue, sweep_id)[1]


def test_a_trial_whose_values_do_not_fit_together_ends_as_invalid_and_the_sweep_goes_on(queue: Queue) -> None:
    """As a momentum of another optimizer does, which only together with that is wrong."""
    space = {"train.optimizer.name": ["sgd", "adamw"], "train.optimizer.momentum": [0.5, 0.9]}
    sweep_id = small_sweeps.submit(queue, trials=None, sampler="grid", space=space, epochs=1)
    assert small_sweeps.drive(queue, sweep_id, Workers(queue)) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    assert ends(queue, sweep_id) == ["succeeded", "succeeded", "invalid", "invalid"]


@pytest.mark.parametrize("how", ["removed", "torn"])
def test_a_trial_whose_ticket_is_gone_is_given_up_and_the_others_go_on(queue: Queue, how: str) -> None:
    harmed: list[str] = []

    def at_turn(turn: int) -> None:  # noqa: ARG001
        found = trials(queue, sweep_id)
        if len(found) == 3 and not harmed and queue.tickets.state(found[2].job) == "pending":
            harmed.append(found[2].job)
            path = queue.paths.ticket("pending", found[2].job)
            path.unlink() if how == "removed" else path.write_bytes(path.read_bytes()[:50])
            repair.repair(queue)

    sweep_id = small_sweeps.submit(queue, trials=4)
    assert small_sweeps.drive(queue, sweep_id, Workers(queue, at_turn=at_turn)) == "done"
    assert states_told(queue, sweep_id) == {0: "COMPLETE", 1: "COMPLETE", 2: "FAIL", 3: "COMPLETE"}
    assert "4 of 4 trials (3 succeeded, 1 lost)" in end_of(queue, sweep_id)[1]


def test_a_trial_whose_ticket_somebody_took_away_after_its_end_counts(queue: Queue) -> None:
    def at_turn(turn: int) -> None:  # noqa: ARG001
        for job_id in queue.tickets.ids("done"):
            queue.paths.ticket("done", job_id).unlink()

    sweep_id = small_sweeps.submit(queue)
    assert small_sweeps.drive(queue, sweep_id, Workers(queue, at_turn=at_turn)) == "done"
    assert set(states_told(queue, sweep_id).values()) == {"COMPLETE"}


@pytest.mark.parametrize(("kind", "times"), [("failed", 5), ("invalid", 2)])
def test_a_sweep_whose_first_trials_all_come_to_nothing_ends_early_and_says_why(
    queue: Queue, kind: Outcome, times: int
) -> None:
    sweep_id = small_sweeps.submit(queue, trials=20)
    workers = Workers(queue, ends_as=lambda _: kind)
    assert small_sweeps.drive(queue, sweep_id, workers) == "failed"
    outcome, why = end_of(queue, sweep_id)
    assert outcome == "failed"
    assert f"the first {times} trials came to nothing" in why
    assert f"{kind}: {kind}, as it was" in why
    workers.turn(), workers.turn()
    assert not queue.tickets.ids("pending"), "what was ready is not run"
    assert durable.names_in(queue.paths.control) == []

    repair.retry(queue, sweep_id)  # by a person who has mended what was wrong
    assert small_sweeps.drive(queue, sweep_id, Workers(queue)) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    assert ends(queue, sweep_id).count("cancelled") == 0, "those that were given up are taken up"


def test_a_sweep_for_a_figure_that_its_jobs_do_not_have_ends_early_and_says_so(queue: Queue) -> None:
    """As the top-5 accuracy of ten classes."""
    sweep_id = small_sweeps.submit(queue, trials=20, maximize="test/top5_accuracy")
    assert small_sweeps.drive(queue, sweep_id, Workers(queue)) == "failed"
    assert end_of(queue, sweep_id)[1] == "the first 2 trials that succeeded have no test/top5_accuracy"
    one = small_sweeps.submit(queue, trials=1, maximize="test/top5_accuracy")
    assert small_sweeps.drive(queue, one, Workers(queue)) == "failed"
    assert end_of(queue, one)[1] == "1 of 1 trial (1 succeeded); none has test/top5_accuracy"


@pytest.mark.parametrize("values", [[2, 8, 4], {"from": 2, "to": 8}])
def test_a_pruner_knows_the_most_epochs_where_they_are_searched(queue: Queue, values: Any) -> None:
    sweep_id = small_sweeps.submit(queue, epochs=2, pruner="median", space={"train.epochs": values})
    claim = small_sweeps.claim(queue, sweep_id)
    assert claim is not None
    found = sweep.Sweep(queue.home, claim.ticket, 1, Workers(queue), print)
    assert found.most_epochs() == 8
    claim.lease.release()


# Stopped, killed and refused


def test_a_sweep_that_is_stopped_at_every_poll_goes_on(queue: Queue) -> None:
    def at_turn(turn: int) -> None:
        if turn % 2 == 0:
            workers.request("asked to stop")

    sweep_id, running = small_sweeps.submit(queue), {}
    for _ in range(100):
        workers = Workers(queue, at_turn=at_turn)
        workers.running = running
        if (state := small_sweeps.drive(queue, sweep_id, workers)) != "pending":
            break
    assert state == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    assert {entry["outcome"] for entry in queue.attempts(sweep_id).entries} == {"interrupted", "succeeded"}


class Faults:
    """Counts the calls that the sweep makes, and not its workers, and strikes at one of them."""

    def __init__(self, strike: Callable[[], None]) -> None:
        self.strike, self.at, self.count, self.is_armed = strike, 0, 0, False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            monkeypatch.setattr(os, name, self.counting(getattr(os, name)))

    def counting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.is_armed:
                self.count += 1
                if self.count == self.at:
                    self.strike()
            return real(*arguments, **options)

        return call

    @contextlib.contextmanager
    def set_to(self, is_armed: bool) -> Iterator[None]:
        was, self.is_armed = self.is_armed, is_armed
        try:
            yield
        finally:
            self.is_armed = was

    def at_each(self) -> Iterator[int]:
        """The numbers of the calls, until one is not reached any more."""
        while self.count >= self.at:
            self.at, self.count = self.at + 1, 0
            yield self.at


class Disturbed(Workers):
    """The sweep's calls are counted, and not their own."""

    faults: Faults

    def attempt(self) -> AbstractContextManager[None]:
        return self.faults.set_to(True)

    def turn(self) -> None:
        with self.faults.set_to(False):
            super().turn()


def killed() -> None:
    raise Killed


def refused(number: int) -> Callable[[], None]:
    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    return refuse


SEARCHES: dict[str, dict[str, Any]] = {
    "random": {"trials": 2},
    "pruned": {"pruner": "median", "sampler": "grid", "trials": None, "space": {LR: [0.01, 1.0, 0.9]}},
}


@pytest.mark.parametrize(
    ("strike", "search"),
    [
        pytest.param(killed, "random", id="killed"),
        pytest.param(killed, "pruned", id="killed, of which some are pruned"),
        pytest.param(refused(errno.ENOSPC), "pruned", id="disk full"),
        pytest.param(refused(errno.EIO), "random", id="refused once"),
    ],
)
def test_a_sweep_goes_on_after_a_fault_at_each_of_its_steps(
    folder: Path, monkeypatch: pytest.MonkeyPatch, strike: Callable[[], None], search: str
) -> None:
    monkeypatch.setattr(study, "STARTUP_TRIALS", 1)
    faults = Faults(strike)
    faults.install(monkeypatch)
    for at in faults.at_each():
        queue = Queue(Home(folder / f"home-{at}"))
        queue.create()
        sweep_id = small_sweeps.submit(queue, **SEARCHES[search])
        workers = Disturbed(queue, slots=1)
        workers.faults = faults
        with contextlib.suppress(Killed):
            small_sweeps.drive(queue, sweep_id, workers)
        after = Workers(queue)
        after.running = workers.running
        assert small_sweeps.drive_to_the_end(queue, sweep_id, after) == "done", f"call {at}"
        assert small_sweeps.check(queue.home, sweep_id) == [], f"call {at}"
    assert faults.at > 30, "it makes that many calls"


def test_a_record_that_is_damaged_or_gone_is_said_and_no_trial_is_made_twice(queue: Queue) -> None:
    def at_turn(turn: int) -> None:
        if turn == 6:
            workers.request("asked to stop")

    sweep_id = small_sweeps.submit(queue)
    workers = Workers(queue, at_turn=at_turn)
    assert small_sweeps.drive(queue, sweep_id, workers) == "pending"
    num_jobs = len(workers.running) + len(queue.tickets.ids("pending")) + len(queue.tickets.ids("done"))
    path = queue.home.run(sweep_id).trials
    content = path.read_bytes()
    for harm in (lambda: path.write_bytes(content[:-9]), path.unlink):
        harm()
        assert small_sweeps.drive(queue, sweep_id, Workers(queue)) == "failed"
        assert "is damaged or gone, so that its trials are not known" in end_of(queue, sweep_id)[1]
        repair.retry(queue, sweep_id)
    path.write_bytes(content)
    assert num_jobs <= len(trials(queue, sweep_id)) + 1
    again = Workers(queue)
    again.running = workers.running
    assert small_sweeps.drive(queue, sweep_id, again) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []


# Cancelled and retried


def cancel(queue: Queue, sweep_id: str) -> None:
    """As `pipeline cancel` does it that is killed before it comes to the trials."""
    repair.cancel(queue, sweep_id)


def under_way(queue: Queue, *, turns: int = 3, cancelled_at: int = 0) -> tuple[str, Workers]:
    """A sweep with trials that run and wait, its driver killed."""

    def at_turn(turn: int) -> None:
        if turn == cancelled_at:
            repair.cancel(queue, trials(queue, sweep_id)[0].job)
        if turn == turns:
            raise Killed

    sweep_id = small_sweeps.submit(queue, trials=5)
    workers = Workers(queue, at_turn=at_turn)
    with pytest.raises(Killed):
        small_sweeps.drive(queue, sweep_id, workers)
    assert queue.tickets.ids("pending")
    return sweep_id, workers


def test_the_trials_of_a_cancelled_sweep_end_though_nobody_lived_to_cancel_them(queue: Queue) -> None:
    """Driver, worker and `cancel` were killed; what is left of the sweep is settled by a repair, or by the next."""
    sweep_id, workers = under_way(queue)
    assert workers.running
    cancel(queue, sweep_id)
    assert queue.tickets.state(sweep_id) == "cancelled"
    workers.at_turn = str
    for _ in range(3):
        workers.turn()
    assert set(ends(queue, sweep_id)) == {"cancelled"}
    assert all(CANCELLED in end_of(queue, trial.job)[1] for trial in trials(queue, sweep_id))
    assert durable.names_in(queue.paths.control) == []


def test_a_sweep_that_is_retried_takes_up_what_was_cancelled_with_it_and_nothing_else(queue: Queue) -> None:
    sweep_id, workers = under_way(queue, turns=5, cancelled_at=4)
    alone, *others = trials(queue, sweep_id)
    assert end_of(queue, alone.job)[0] == "cancelled" if alone.job not in workers.running else True
    cancel(queue, sweep_id)
    workers.at_turn = str
    for _ in range(3):
        workers.turn()
    assert CANCELLED not in end_of(queue, alone.job)[1], "a person's own word stands"
    assert all(CANCELLED in end_of(queue, trial.job)[1] for trial in others)
    repair.retry(queue, sweep_id)
    assert small_sweeps.drive(queue, sweep_id, workers) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    assert ends(queue, sweep_id) == ["cancelled"] + ["succeeded"] * 4


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_a_driver_that_sees_its_trials_cancelled_first_forgets_none(queue: Queue, killed_at: int) -> None:
    """`pipeline cancel` has asked for both, and the driver looks at its trials before it is stopped."""
    from pipeline.cli.control import cancel_each

    def at_turn(turn: int) -> None:
        if turn == 3:
            repair.cancel(queue, sweep_id)
            cancel_each(queue, [trial.job for trial in trials(queue, sweep_id)])
        if turn == 3 + killed_at:
            workers.request("asked to stop")

    sweep_id = small_sweeps.submit(queue, trials=5)
    workers = Workers(queue, at_turn=at_turn)
    assert small_sweeps.drive(queue, sweep_id, workers) == "cancelled"
    workers.at_turn = str
    for _ in range(3):
        workers.turn()
    assert set(ends(queue, sweep_id)) == {"cancelled"}
    assert states_told(queue, sweep_id) == {}
    repair.retry(queue, sweep_id)
    workers.why = ""
    assert small_sweeps.drive(queue, sweep_id, workers) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []
    assert ends(queue, sweep_id) == ["succeeded"] * 5


def test_a_sweep_that_waits_is_cancelled_and_taken_up_like_any_job(queue: Queue) -> None:
    sweep_id = small_sweeps.submit(queue)
    assert repair.cancel(queue, sweep_id) == "cancelled"
    repair.retry(queue, sweep_id)
    assert small_sweeps.drive(queue, sweep_id, Workers(queue)) == "done"
    assert small_sweeps.check(queue.home, sweep_id) == []


def test_a_prune_does_not_take_back_what_a_person_has_asked_for(queue: Queue) -> None:
    sweep_id, workers = under_way(queue)
    job_id = next(iter(workers.running))
    repair.cancel(queue, job_id, "nobody needs it")
    repair.prune(queue, job_id, "it was behind")
    request = queue.stop_request(job_id)
    assert request is not None
    assert (request.outcome, request.why) == ("cancelled", "nobody needs it")
    workers.die()
    cancel(queue, sweep_id)
