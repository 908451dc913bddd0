"""A run as `compare` takes it: the fields of its frozen job file, where it ran, its curves, and how it ended."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.board import tags
from pipeline.board.events import Point, read_scalars, shortest
from pipeline.errors import PipelineError
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import frozen
from pipeline.jobfile.own_files import hashes as hashes_of
from pipeline.results import environment, run_state
from pipeline.results.environment import Environment, Fields
from pipeline.results.run_state import RunState

MISSING = "-"
LOWER_IS_BETTER = {"loss", "error", "time", "seconds", "ms", "duration", "latency", "memory", "perplexity", "bits"}

Say = Callable[[str], object]


@dataclass(frozen=True)
class ComparedRun:
    """What `compare` knows of a run."""

    id: str
    fields: dict[str, Any]  # of its job file, by dotted name; a list is one value
    environment: Fields
    curves: dict[str, list[Point]]
    state: str  # how it ended, or pending or running
    epoch: int  # finished
    epochs: int
    steps: int  # of all epochs
    seconds: float | None  # that its attempts took, so far as they have ended

    def value(self, name: str) -> Any:
        """Returns a field of its job file or of its environment; `...` where there is none."""
        return self.fields.get(name, self.environment.get(name, ...))

    def final(self, tag: str) -> float | None:
        points = self.curves.get(tag)
        return shortest(points[-1].value) if points else None

    @property
    def final_train_loss(self) -> float | None:
        """Returns the mean over the latest epoch; of a run of before, which has none, that over its last steps."""
        return self.final(tags.EPOCH_LOSS if self.curves.get(tags.EPOCH_LOSS) else tags.TRAIN_LOSS)

    def best(self, tag: str) -> Point | None:
        """Returns the first of the best points; a NaN or an infinity is none."""
        points = [point for point in self.curves.get(tag, ()) if math.isfinite(point.value)]
        sign = 1 if lower_is_better(tag) else -1
        return min(points, key=lambda point: sign * point.value, default=None)

    def step_of(self, tag: str, point: Point) -> int:
        """Returns the step whose weights a point is of: with `val`, the test set is looked at once, with the best."""
        chosen = self.best(tags.VAL_ACCURACY)
        return chosen.step if chosen is not None and tag.startswith("test/") else point.step

    def epoch_at(self, step: int) -> float | None:
        epochs = run_state.exact_epochs(self.fields.get("train.epochs"), self.epochs)
        return step * epochs / self.steps if self.steps else None


def lower_is_better(tag: str) -> bool:
    """Tells whether it is a loss or a time, by the words of its name. A class may have any name: it has accuracies."""
    words = set(re.split("[^a-z]+", tag.rpartition("/")[2].lower()))
    return not tag.startswith(tags.class_accuracy("")) and bool(words & LOWER_IS_BETTER)


def read_run(home: Home, run: RunPaths, *, say: Say) -> ComparedRun:
    """Raises PipelineError where what is needed of it cannot be read."""
    curves = read_scalars(run.root, damaged=lambda line: say(f"warning: {line}"))
    try:
        state, ran_in = run_state.read(home, run), environment.read(run)
    except OSError as error:
        raise PipelineError(f"{error.filename or run.root}: cannot be read: {error.strerror}") from None
    fields = read_fields(run)
    tell_of_changes(run, ran_in, say=say)
    asked = fields.get("train.epochs")
    return ComparedRun(
        run.root.name,
        fields,
        ran_in.fields,
        curves,
        state.state,
        state.epoch,
        state.epochs or (math.ceil(asked) if isinstance(asked, (int, float)) else 0),
        state.steps,
        _seconds(state),
    )


def tell_of_changes(run: RunPaths, ran_in: Environment, *, say: Say) -> None:
    """Tells where its attempts ran in different environments: what it is compared by is the latest."""
    if ran_in.changed:
        changes = (f"{name} was {' and '.join(map(as_text, old))}" for name, old in ran_in.changed.items())
        say(f"{run.root.name}: its attempts ran in different environments, and the latest counts: {', '.join(changes)}")


def as_text(value: Any) -> str:
    """Returns a value as one would write it in a job file; `...` stands for a field that is not there."""
    if value is ...:
        return MISSING
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(as_text(inner) for inner in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_text(inner)}' for key, inner in value.items())}}}"
    return str(value)


def read_fields(run: RunPaths) -> dict[str, Any]:
    """Returns the frozen job file, flat: `train.optimizer.lr`, and hashes of modules of the user's own.

    Raises PipelineError where it is none. A run of another version of the program can be compared too: what an older
    one knew no field for is at its default.
    """
    try:
        own = frozen.modules(run)
        hashes = hashes_of({name: own.read(name) or "" for name in own.all_files()})
        return flatten(frozen.read_whole_tree(run)) | {
            f"modules/{name}": digest[:12] for name, digest in hashes.items()
        }
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"{run.spec}: cannot be read: {reason}; compare the others without this run") from None


def flatten(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Returns the values of a tree by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{before}{key}.") if isinstance(value, dict) and value else {f"{before}{key}": value}
    return flat


def _seconds(state: RunState) -> float | None:
    """Adds up all attempts that have ended; a run without records is one."""
    spans = [(entry.get("started_at"), entry.get("finished_at")) for entry in state.entries]
    spans = spans or [(state.started_at, state.finished_at)]
    try:
        ended = [datetime.fromisoformat(end) - datetime.fromisoformat(start) for start, end in spans if start and end]
    except (ValueError, TypeError):  # not written by this program
        return None
    return sum(span.total_seconds() for span in ended) if ended else None
