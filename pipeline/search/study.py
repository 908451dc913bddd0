"""Optuna's part of a sweep: what a trial's values are, and whether it is worth going on with.

The study lies in Optuna's own storage, `runs/<id>/optuna.journal`, which its dashboard can open. One process at a time
writes it, the one that holds the sweep's lease. Where the file is lost, it is made anew from the sweep's own record.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.home import durable
from pipeline.home.sweep_record import Trial as RecordedTrial
from pipeline.jobfile.search import Choices, Range, Search

NAME = "sweep"
STARTUP_TRIALS = 5  # that the median pruner waits for
WARMUP = 4  # the part of a trial's epochs, as 1/4, for which the median pruner lets it be
SEEDS_APART = 1_000_003  # between two processes that go on with one sweep
DIGITS = 6  # significant ones of a value that is no whole number
STEP_DIGITS = 12  # the same, where there are steps
Direction = Literal["maximize", "minimize"]
_STATES = {"succeeded": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


class Study:
    """Trials are counted from 0, as in the sweep's record."""

    def __init__(
        self,
        path: Path,
        search: Search,
        *,
        epochs: int,
        seed: int,
        fractional: Collection[str],
        recorded: Sequence[RecordedTrial],
    ) -> None:
        """fractional: the fields that take other numbers than whole ones. recorded: the trials of the sweep's record.

        epochs: of a trial.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")  # of what is new in it, and of ranges that a step does not divide
        self.fields = {
            key: _Choices(values) if isinstance(values, tuple) and not isinstance(values, Range) else values
            for key, values in search.space.items()
        }
        self.distributions = {
            key: field.distribution if isinstance(field, _Choices) else _distribution(field, key in fractional)
            for key, field in self.fields.items()
        }
        self.study = self._open(path, search, recorded)
        self.study.pruner = _pruner(search, epochs)
        self.study.sampler = _sampler(search, seed, num_before=len(self.study.trials))

    def _open(self, path: Path, search: Search, recorded: Sequence[RecordedTrial]) -> optuna.Study:
        directions: list[Direction] = ["maximize" if is_high else "minimize" for _, is_high in search.objectives]
        try:
            study = _load(path, directions)
            found = study.trials
            if [one.name.lower() for one in study.directions] == directions and self._are_same(found, recorded):
                self._add(study, recorded[len(found) :])
                return study
        except durable.NotAPlainFileError:
            pass
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - whatever Optuna makes of what it has not written
            pass
        path.replace(path.with_name(f"{path.name}.damaged"))
        study = _load(path, directions)
        self._add(study, recorded)
        return study

    def _are_same(self, found: Sequence[FrozenTrial], recorded: Sequence[RecordedTrial]) -> bool:
        """Whether the trials are those of the record, and at most one that was asked for and not recorded yet."""
        further = found[len(recorded) :]
        if len(further) > 1 or any(trial.state.is_finished() for trial in further):
            return False
        values = [json.dumps(self._values(trial.params), sort_keys=True) for trial in found]
        wanted = [json.dumps(trial.values, sort_keys=True) for trial in recorded]
        return all(one == other for one, other in zip(values, wanted, strict=False))

    def _add(self, study: optuna.Study, recorded: Sequence[RecordedTrial]) -> None:
        for trial in recorded:
            params = {key: self._param(key, trial.values[key]) for key in self.fields}
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.RUNNING, params=params, distributions=dict(self.distributions)
                )
            )

    def _param(self, key: str, value: Any) -> Any:
        """Returns the parameters that Optuna keeps for a trial's values."""
        field, kind = self.fields[key], self.distributions[key]
        if isinstance(field, _Choices):
            return field.name_of(value)
        return _on_step(value, kind) if isinstance(kind, FloatDistribution) else value

    @property
    def num_trials(self) -> int:
        return len(self.study.get_trials(deepcopy=False))

    def ask(self, number: int) -> dict[str, Any]:
        """Returns a trial's values: the next one's, or one's for which a killed process had not chosen all of them."""
        trial = self.study.ask() if number >= self.num_trials else self._trial(number)
        return self._values({key: _suggest(trial, key, kind) for key, kind in self.distributions.items()})

    def _values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        values = {}
        for key, value in params.items():
            field = self.fields[key]
            values[key] = (
                field.value_of(value) if isinstance(field, _Choices) else _rounded(value, self.distributions[key])
            )
        return values

    def _trial(self, number: int) -> Trial:
        return Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def is_told(self, number: int) -> bool:
        return self.study.get_trials(deepcopy=False)[number].state.is_finished()

    def report(self, number: int, values: Mapping[int, float]) -> bool:
        """Takes the objective after each epoch; those it has are left. Returns whether the trial should be pruned."""
        if self.is_told(number):
            return False
        known = self.study.get_trials(deepcopy=False)[number].intermediate_values
        trial = self._trial(number)
        for epoch, value in values.items():
            if epoch not in known:
                trial.report(value, epoch)
        return trial.should_prune()

    def tell(self, number: int, outcome: str, scores: Sequence[float] | None) -> None:
        """Tells Optuna how a trial has ended; telling it again changes nothing."""
        state = _STATES.get(outcome, TrialState.FAIL)
        if state is TrialState.COMPLETE and scores is None:
            state = TrialState.FAIL
        values = list(scores) if scores is not None and state is TrialState.COMPLETE else None
        self.study.tell(number, values, state=state, skip_if_finished=True)


class _Leased:
    """Locks nothing: who holds the sweep's lease is the only one that writes."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return


def _load(path: Path, directions: Sequence[Direction]) -> optuna.Study:
    _cut_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_Leased()))  # type: ignore[arg-type]
    return optuna.create_study(storage=storage, study_name=NAME, directions=directions, load_if_exists=True)


def _cut_torn_line(path: Path) -> None:
    """Removes what a killed process, or a full disk, left of a line: the next one would be made unreadable by it."""
    if not durable.is_there(path):
        return
    with os.fdopen(durable.open_plain(path, os.O_RDWR), "rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


class _Choices:
    """A list of values by the names that Optuna knows them by: any value may stand in a job file."""

    def __init__(self, values: Choices) -> None:
        is_text = all(isinstance(value, str) for value in values)
        is_number = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        names = values if (is_text or is_number) and len(set(values)) == len(values) else map(json.dumps, values)
        self._by_name = dict(zip(names, values, strict=True))

    @property
    def distribution(self) -> CategoricalDistribution:
        return CategoricalDistribution(list(self._by_name))

    def value_of(self, name: Any) -> Any:
        return self._by_name[name]

    def name_of(self, value: Any) -> Any:
        text = json.dumps(value)  # for true is 1, and 1 is 1.0
        return next(name for name, one in self._by_name.items() if json.dumps(one) == text)


def _distribution(values: Range, is_fractional: bool) -> BaseDistribution:
    if values.is_whole and not (is_fractional and values.step is None):
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _suggest(trial: Trial, key: str, kind: BaseDistribution) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return trial.suggest_categorical(key, kind.choices)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(key, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, FloatDistribution)
    return trial.suggest_float(key, kind.low, kind.high, step=kind.step, log=kind.log)


def _rounded(value: float, kind: BaseDistribution) -> float:
    """Returns a number as a person would write it, inside its range."""
    if not isinstance(kind, FloatDistribution):
        return int(value)
    digits = DIGITS if kind.step is None else STEP_DIGITS
    return min(max(float(f"{_on_step(value, kind):.{digits}g}"), kind.low), kind.high)


def _on_step(value: float, kind: FloatDistribution) -> float:
    """The number that was rounded, as exactly as its steps have it."""
    if kind.step is None:
        return float(value)
    return min(kind.low + round((value - kind.low) / kind.step) * kind.step, kind.high)


def _pruner(search: Search, epochs: int) -> optuna.pruners.BasePruner:
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=epochs // WARMUP)
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _sampler(search: Search, seed: int, *, num_before: int) -> optuna.samplers.BaseSampler:
    """num_before: trials that an earlier process has asked for; with its seed, they would be asked for once more."""
    seed = (seed + SEEDS_APART * num_before) % 2**32
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if search.sampler == "grid":
        return _Grid(search)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


class _Grid(optuna.samplers.BaseSampler):
    """Gives each trial, by its number, a point of the grid; a random part of them where fewer trials are asked for."""

    def __init__(self, search: Search) -> None:
        axes = search.space.grid()
        assert axes is not None
        self._axes = dict(zip(search.space, axes, strict=True))
        self._fields = {key: v for key, v in search.space.items() if not isinstance(v, Range)}
        num_points, wanted = search.num_points or 0, search.num_trials
        self._points: Sequence[int] = range(num_points)
        if wanted < num_points:
            self._points = random.Random(0).sample(self._points, wanted)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        del study, trial, search_space
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        del study, param_distribution
        rest = self._points[trial.number]
        for key in reversed(self._axes):
            rest, index = divmod(rest, len(self._axes[key]))
            if key == param_name:
                break
        value = self._axes[param_name][index]
        choices = self._fields.get(param_name)
        return value if choices is None else _Choices(choices).name_of(value)
