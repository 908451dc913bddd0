"""Sweeps as they lie in a home when some trials have ended, made without a worker and without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.home import epoch_record, sequence
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.home.sweep_record import SweepRecord, Trial
from pipeline.jobfile import frozen, reading
from pipeline.jobfile.sweep import with_values
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

TEXT = """\
name: hunt
model: {name: cnn_bn}
data: {name: digits}
train: {epochs: 4}
search:
  trials: 6
  space:
    train.optimizer.lr: {from: 1e-4, to: 1, log: true}
    train.optimizer.name: [sgd, adamw]
"""
Figures = Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Told:
    """A trial, and what has become of it: how it ended, or pending, or running; and its figures, epoch by epoch."""

    values: Mapping[str, Any]
    outcome: str = "succeeded"
    accuracies: Sequence[float] = (0.5, 0.9, 0.8)
    more: Mapping[str, float] = dataclasses.field(default_factory=dict)  # figures that each epoch has


def make_sweep(
    home: Home, told: Sequence[Told], *, text: str = TEXT, maximize: Sequence[str] = ("val/accuracy",)
) -> tuple[str, list[str]]:
    """The ids of a sweep that runs, and of its trials' jobs."""
    queue = Queue(home)
    spec = reading.parse(text.encode(), "hunt.yaml")
    origins = reading.parse_with_origins(text.encode(), "hunt.yaml")[1]
    assert spec.search is not None
    ticket = Ticket.of_sweep(spec, origins.written, {})
    queue.submit(ticket)
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    ticket = claim.ticket
    frozen.save_sweep(home.run(ticket.id), ticket.spec, {})
    record = SweepRecord(spec.search.num_trials, list(maximize), [], list(spec.search.space))
    for number, trial in enumerate(told):
        (job_id,) = sequence.new_ids(home, [f"hunt-{number}"])
        record = dataclasses.replace(record, trials=[*record.trials, Trial(number, job_id, dict(trial.values))])
        record.write(home.run(ticket.id).trials)
        _submit(queue, ticket, record.trials[-1], trial)
    record.write(home.run(ticket.id).trials)
    return ticket.id, [trial.job for trial in record.trials]


def _submit(queue: Queue, sweep: Ticket, trial: Trial, told: Told) -> None:
    tree = {**with_values(sweep.spec, trial.values), "name": f"hunt-{trial.number}"}
    ticket = dataclasses.replace(sweep, id=trial.job, name=tree["name"], spec=tree, sweep=sweep.id, trial=trial.number)
    queue.submit(ticket)
    if told.outcome == "pending":
        return
    claim = queue.claim("worker")
    assert isinstance(claim, Claim)
    assert claim.id == trial.job
    run = queue.home.run(trial.job)
    run.root.mkdir(parents=True)
    metrics: dict[str, float] = {}
    for epoch, accuracy in enumerate(told.accuracies, start=1):
        metrics = {"test/accuracy": accuracy, **told.more}
        epoch_record.append(run.epochs, epoch=epoch, step=10 * epoch, metrics=metrics)
    if told.outcome != "running":
        outcome: Any = told.outcome
        queue.end(claim, Result(1, outcome, f"it {outcome}", len(told.accuracies), 4, 40, metrics))
    claim.lease.release()
