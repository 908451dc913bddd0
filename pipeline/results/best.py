"""The job file of a sweep's trial: that of the sweep, with the trial's values in the place of its search."""

from __future__ import annotations

import json

from pydantic_core import ValidationError

from pipeline.errors import SpecError, UsageError
from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.jobfile import frozen
from pipeline.jobfile.own_modules import using
from pipeline.jobfile.spec import Spec
from pipeline.jobfile.sweep import with_values
from pipeline.queue import sweeps, views
from pipeline.queue.job_queue import Queue
from pipeline.queue.sweeps import SweepView, TrialView
from pipeline.wording import plural

MAX_NAME = 64


def choose(view: SweepView, sweep_id: str, number: int | None) -> TrialView:
    """Returns the trial of that number, or the best one. Raises UsageError where there is none."""
    if number is not None:
        if found := next((trial for trial in view.trials if trial.number == number), None):
            return found
        raise UsageError(f"{sweep_id}: has no trial {number}; it has {plural(len(view.trials), 'trial')}, from 0")
    if not view.best:
        ended = ", ".join(f"{count} {outcome}" for outcome, count in view.count().items()) or "none was started"
        wanted = " and ".join(tag for tag, _ in view.record.objectives)
        raise UsageError(f"{sweep_id}: no trial has succeeded yet with a figure of {wanted} ({ended})")
    is_high = view.record.objectives[0][1]
    choose_one = max if is_high else min
    return choose_one(view.best, key=lambda trial: trial.score.values[0] if trial.score else 0.0)


def job_file(home: Home, sweep_id: str, view: SweepView, trial: TrialView) -> str:
    """Returns a job file that can be submitted. Raises UsageError where the sweep's own cannot be read."""
    run = home.run(sweep_id)
    try:
        written = frozen.read_tree(run)
    except (OSError, ValueError) as error:
        raise UsageError(f"{run.spec}: cannot be read: {error}") from None
    tree = frozen.upgraded(with_values(written, trial.values))
    suffix = "_best" if trial in view.best else f"_{trial.number}"
    tree["name"] = f"{str(tree.get('name', 'sweep'))[: MAX_NAME - len(suffix)]}{suffix}"
    try:
        with using(frozen.modules(run)):
            Spec.model_validate_json(json.dumps(tree))
    except (ValidationError, SpecError) as error:
        raise UsageError(f"{run.spec}: makes no job file: {error}") from None
    return "\n".join([*_head(sweep_id, view, trial), frozen.to_yaml(tree)])


def _head(sweep_id: str, view: SweepView, trial: TrialView) -> list[str]:
    told = ""
    if trial.score is not None:
        epoch = f" in epoch {trial.score.epoch}" if trial.score.epoch else ""
        told = f": {sweeps.in_words(trial.score, view.record.objectives)}{epoch}"
    return ["# yaml-language-server: $schema=schema.json", f"# Trial {trial.number} of {sweep_id}{told}."]


def find(home: Home, prefix: str) -> tuple[str, SweepView]:
    """Returns the sweep whose id begins so. Raises UsageError where there is none."""
    queue = Queue(home)
    job_id = queue.tickets.find(prefix)
    if view := sweeps.look(queue, job_id):
        return job_id, view
    job = views.look(queue, job_id)
    if job is not None and job.is_sweep:
        trials = home.run(job_id).trials
        is_there = durable.is_there(trials)
        raise UsageError(f"{trials}: cannot be read" if is_there else f"{job_id}: has not started yet")
    if job is not None and job.sweep is not None:
        raise UsageError(f"{job_id}: is a trial of {job.sweep}; give that, and its number by --trial {job.trial}")
    raise UsageError(f"{job_id}: is no sweep; a sweep's job file has a search section")
