"""Checkpoints and cached datasets that would run code when they are loaded, or that are none, by each way to load one.

They are refused with a message that names the file, whoever reads it: an attempt that goes on, `predict`,
`export-model`. Each payload is loaded without care first, which shows that it works. An attempt that succeeds all the
same has the weights and the optimizer of one that found nothing of the kind.
"""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from attack import apart, console, foreign_files, hostile_pickles, trained
from attack.campaign import Case, Scale
from attack.trained import Trained
from attack.trainings import unlike
from pipeline.training import checkpoint

Put = Callable[[Path], None]

PLACES = ("last", "last", "previous", "best", "cache")
READERS = ("attempt", "predict", "export-model")
WRONG: tuple[Any, ...] = (
    None,
    0,
    -1,
    10**30,
    0.5,
    float("nan"),
    "x",
    [],
    {},
    [[]],
    {"a": 1},
    torch.zeros(3),
    torch.zeros(0),
)


@dataclass(frozen=True)
class Hostile:
    """What is put in the place of a checkpoint or of a cached dataset.

    pickled: what would run, or nothing. is_sound: whether it can be loaded, and says something else.
    """

    name: str
    put: Put
    pickled: bytes = b""
    is_sound: bool = False


def attack(scale: Scale) -> Iterator[Case]:
    chance, made = random.Random(scale.seed), Trained.make(scale.folder)
    witness = scale.folder / "witness"
    real = made.source.run(made.job_id).last
    reference = checkpoint.load(real)
    assert reference is not None
    makers = (functools.partial(runs_code, witness, real.read_bytes()),) * 4
    makers += (functools.partial(is_wrong, reference), lambda _: foreign(chance))
    for _ in range(scale.cases):
        hostile = chance.choice(makers)(chance)
        place = chance.choice(PLACES)
        reader = "attempt" if place == "cache" else chance.choice(READERS)
        violations = is_dud(hostile, witness) + judge(made, hostile, place, reader, reference)
        if witness.exists():
            witness.unlink()
            violations.append("it has run")
        yield Case(f"{hostile.name} as {place}, read by {reader}", tuple(violations))


def runs_code(witness: Path, real: bytes, chance: random.Random) -> Hostile:
    name, pickled = chance.choice(list(hostile_pickles.pickles(witness).items()))
    make, is_sealed = chance.choice(hostile_pickles.FILES), chance.random() < 0.6
    content = make(pickled, real)
    content = hostile_pickles.sealed(content) if is_sealed else content
    said = f"{name}, {make.__name__}{', sealed' if is_sealed else ''}"
    return Hostile(said, lambda path: replace(path, content), pickled)


def is_wrong(reference: dict[str, Any], chance: random.Random) -> Hostile:
    """A real checkpoint, of which a part is of another kind, or gone."""
    state = {"format": checkpoint.FORMAT, **reference}
    node: Any = state
    while (
        inner := [key for key, value in node.items() if isinstance(value, dict) and value]
    ) and chance.random() < 0.5:
        key = chance.choice(inner)
        node[key] = node = dict(node[key])
    key, value = chance.choice(list(node)), chance.choice((*WRONG, ...))
    if value is ...:
        del node[key]
    else:
        node[key] = value
    content = io.BytesIO()
    torch.save(state, content)
    said = f"one with {key} {'left out' if value is ... else f'= {value!r:.40}'}"
    return Hostile(said, lambda path: replace(path, hostile_pickles.sealed(content.getvalue())), is_sound=True)


def foreign(chance: random.Random) -> Hostile:
    kind = chance.choice(foreign_files.KINDS)
    return Hostile(kind.__name__, lambda path: foreign_files.put(kind, path))


def replace(path: Path, content: bytes) -> None:
    """Not in place: `best` may be the same file."""
    path.unlink()
    path.write_bytes(content)


def is_dud(hostile: Hostile, witness: Path) -> list[str]:
    """Load what would run as a careless program does."""
    if not hostile.pickled:
        return []
    _, why = apart.call(hostile_pickles.load_without_care, hostile.pickled)
    runs = witness.exists()
    witness.unlink(missing_ok=True)
    return [f"it would not run even if it were loaded: {why}"] if not runs else []


def judge(made: Trained, hostile: Hostile, place: str, reader: str, reference: dict[str, Any]) -> list[str]:
    home, run = made.copy(), made.run
    cached = next((home.datasets / ".cache").glob("*.pt"))
    path = {"last": run.last, "previous": run.previous, "best": run.best, "cache": cached}[place]
    hostile.put(path)
    if reader == "attempt":
        if place == "previous":
            run.last.unlink()
        return judge_attempt(made, path, None if hostile.is_sound else reference)
    words = [reader, made.job_id, f"--checkpoint={place}"]
    words += [str(image_in(home.root))] if reader == "predict" else ["--format=safetensors"]
    console.clear(home.root)
    answer, violations = console.run(["--home", str(home.root), *words], home.root)
    if answer is None:
        return violations
    violations = answer.violations(*((0, 1) if hostile.is_sound else (1,)))
    return violations if answer.code == 0 or str(path) in answer.err else [*violations, f"it says {answer.err[:300]!a}"]


def image_in(folder: Path) -> Path:
    path = folder / "image.png"
    Image.new("L", (8, 8)).save(path)
    return path


def judge_attempt(made: Trained, path: Path, reference: dict[str, Any] | None) -> list[str]:
    """reference: what it must end with, where it succeeds."""
    result, violations = trained.train(made.target, made.job_id, 2)
    if result is None:
        return violations
    log = made.run.log(2).read_text(errors="replace")
    if "Traceback" in log:
        violations.append(f"its log has a traceback: {log[-400:]!a}")
    if result.outcome == "succeeded":
        state = checkpoint.load(made.run.last) if reference else None
        return violations + [f"it succeeds, and {where} is another" for where in unlike(state, reference)[:1]]
    path = made.run.last if path == made.run.previous else path  # whose name it has by then
    if result.outcome != "failed" or str(path) not in result.why:
        violations.append(f"it ends as {result.outcome}: {result.why[:300]!a}")
    return violations
