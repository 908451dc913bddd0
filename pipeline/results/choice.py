"""The runs that `compare` is asked for: by ids, by the names of jobs, or the latest ones. Sweeps are none."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence

from pipeline.errors import UsageError
from pipeline.home.ids import ID, name_of
from pipeline.home.paths import Home, RunPaths
from pipeline.results import runs

Say = Callable[[str], object]


def choose(home: Home, words: Sequence[str], last: int | None, *, say: Say) -> list[RunPaths]:
    """Returns the runs that are meant, each once. Raises UsageError where a word means none, or more than one.

    words: ids, the beginnings of ids, `latest`, or the names of jobs. A name that several runs have stands for the
    latest of them, which is said, or for all of them where it is the only word. last: so many, the latest ones, of all
    runs that the words stand for; without a word, of all.
    """
    words = list(dict.fromkeys(words))
    if last is not None:
        return _latest(home, words, last)
    if not words:
        raise UsageError("which runs? give ids or names of jobs, or --last 5 for the latest five")
    if len(words) == 1 and len(named := _named(home, words[0])) > 1:
        return named
    return list({run.root: run for run in (_find(home, word, say=say) for word in words)}.values())


def _latest(home: Home, words: Sequence[str], count: int) -> list[RunPaths]:
    """Returns the latest runs, oldest first; fewer where there are not so many."""
    pool: Iterable[RunPaths] = map(home.run, reversed(runs.folders(home)))
    if words:
        roots = {run.root for word in words for run in _named(home, word) or [runs.find_trained(home, word)]}
        pool = (run for run in pool if run.root in roots)
    found = list(itertools.islice((run for run in pool if run.spec.is_file() and not runs.is_sweep(run)), count))
    return found[::-1] or [runs.find_trained(home, words[0] if words else "latest")]  # which says why there is none


def _find(home: Home, word: str, *, say: Say) -> RunPaths:
    named = _named(home, word)
    if not named:
        return runs.find_trained(home, word)
    job_id = named[-1].root.name
    if len(named) > 1:
        say(f"{word}: the latest of its {len(named):,} runs, {job_id}")
    return runs.find_trained(home, job_id)


def _named(home: Home, word: str) -> list[RunPaths]:
    """Returns the runs of jobs that are called so, oldest first; none where the word is a run's id."""
    names = runs.folders(home)
    if word == "latest" or (word in names and home.run(word).spec.is_file()):
        return []
    found = [home.run(name) for name in names if ID.fullmatch(name) and name_of(name) == word]
    return [run for run in found if run.spec.is_file() and not os.path.lexists(run.trials)]
