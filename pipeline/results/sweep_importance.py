"""How much each field of a sweep has to do with a trial's being among the best, as Optuna estimates it.

PED-ANOVA: Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI 2023, https://arxiv.org/abs/2304.10255. Its study is in memory, made anew from the trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.queue.sweeps import TrialView
from pipeline.results.sweep_axes import Axis

if TYPE_CHECKING:
    import optuna

FEWEST = 10  # trials that it takes
BEST_SHARE, FEWEST_BEST = 0.1, 5  # of the trials are the best ones; PED-ANOVA is not stable with fewer


def num_best(num_trials: int) -> int:
    """How many of the trials count as the best ones."""
    return max(FEWEST_BEST, round(BEST_SHARE * num_trials))


def importances(
    axes: Sequence[Axis], trials: Sequence[TrialView], objective: int, *, is_high: bool
) -> dict[str, float]:
    """Returns the share of each field, by its name, together 1; nothing where there is too little to tell it from.

    trials: with scores. objective: its number.
    """
    import optuna  # takes half a second
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    axes = [axis for axis in axes if (len(axis.choices) > 1 if axis.choices else axis.low < axis.high)]
    placed = []
    for trial in trials:
        places = {axis.field: axis.place(trial.values) for axis in axes}
        if trial.score is not None and None not in places.values():
            placed.append((places, trial.score.values[objective]))
    if len(placed) < FEWEST or len(axes) < 2:
        return {}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is new in it
            study = optuna.create_study(direction="maximize" if is_high else "minimize")
            kinds = {axis.field: _distribution(axis) for axis in axes}
            study.add_trials(
                [optuna.trial.create_trial(params=p, distributions=kinds, value=value) for p, value in placed]
            )
            best = PedAnovaImportanceEvaluator(target_quantile=num_best(len(placed)) / len(placed))
            found = get_param_importances(study, evaluator=best)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return dict(found) if sum(found.values()) > 0 else {}


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.choices:
        return CategoricalDistribution(list(range(len(axis.choices))))
    return FloatDistribution(axis.low, axis.high, log=axis.is_log)
