"""The same search as a person writes it with Optuna alone: `study.optimize`, one trial after the other, in one process.

    python benchmarks/optuna_peer.py HOME SWEEP.yaml

An objective trains with the engine that jobs run on, as `pipeline run` does, into runs below HOME with all that a job
leaves there but its report. So the peer has the sweep's space, sampler, network, images and logging; it starts one
process instead of one a trial, and what it loads, it loads once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna

from pipeline.cli.foreground import train_here
from pipeline.home import epoch_record
from pipeline.home.paths import Home
from pipeline.jobfile.reading import load
from pipeline.jobfile.search import Range
from pipeline.jobfile.spec import Spec
from pipeline.jobfile.sweep import with_values
from pipeline.queue.sweeps import score


def main() -> int:
    home, sweep = Home(Path(sys.argv[1])), load(Path(sys.argv[2]))
    search = sweep.search
    assert search is not None
    (_, is_high), *_ = search.objectives

    def objective(trial: optuna.Trial) -> float:
        values = {key: suggest(trial, key, field) for key, field in search.space.items()}
        spec = Spec.model_validate(with_values(sweep.model_dump(), values))
        result = train_here(home, spec, echo=tell_nobody)
        found = score(epoch_record.read(home.run(result.id).epochs), result.metrics, search.objectives)
        if result.outcome != "succeeded" or found is None:
            raise RuntimeError(f"trial {trial.number} {result.outcome}: {result.why}")
        return found.values[0]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=sweep.train.seed)
    study = optuna.create_study(direction="maximize" if is_high else "minimize", sampler=sampler)
    study.optimize(objective, n_trials=search.num_trials)
    print(f"best of {len(study.trials)}: {study.best_value:.4f}")
    return 0


def tell_nobody(line: str) -> None: ...


def suggest(trial: optuna.Trial, key: str, field: Any) -> Any:
    if isinstance(field, Range):
        return trial.suggest_float(key, field.low, field.high, log=field.log)
    return trial.suggest_categorical(key, field)


if __name__ == "__main__":
    sys.exit(main())
