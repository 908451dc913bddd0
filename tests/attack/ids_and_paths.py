"""Ids and paths as nobody means them, given to each command: a message says what is wrong, and all is left alone.

Where an id is wrong, nothing outside the home is opened or listed, and nothing changes. Where a path is wrong, nothing
changes but what a command was told to write there. No command starts a program.
"""

from __future__ import annotations

import contextlib
import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attack import console
from attack.campaign import Case, Scale
from attack.console import Answer
from attack.surroundings import WITNESS, Surroundings

Contents = dict[Path, tuple[int, int, bytes]]  # mode, size, and what is in small files

SMALL = 1024**2
PROGRAMS = ("nvidia-smi", "fc-list")  # that a worker asks; and matplotlib, once
TORCHS_OWN = "torchinductor_"  # begins the name of a folder of caches, which importing parts of torch makes


@dataclass(frozen=True)
class Typed:
    """A command with one word that is wrong. home: that word, where it is the home's path.

    may_write: whether it is a path to write to. may_work: whether the command may leave with 0.
    """

    words: list[str]
    wrong: str
    home: str | None = None
    is_id: bool = False
    may_write: bool = False
    may_work: bool = False

    def __str__(self) -> str:
        return " ".join(brief(word) for word in (*(() if self.home is None else ("--home", self.home)), *self.words))


def attack(scale: Scale) -> Iterator[Case]:
    around = Surroundings.make(scale.folder)
    tried = [*with_ids(around), *with_paths(around), *with_homes(around)]
    for typed in random.Random(scale.seed).sample(tried, min(scale.cases, len(tried))):
        yield Case(str(typed), tuple(judge(around, typed)))


def with_ids(around: Surroundings) -> Iterator[Typed]:
    real, image = around.trained.job_id, str(around.things / "text")
    for wrong in around.ids():
        for words in (
            *(["show", wrong], ["show", "--json", "--", wrong], ["logs", "--", wrong], ["logs", "--follow", wrong]),
            *(["cancel", "--", wrong], ["cancel", "--", "waits", wrong], ["retry", "--", wrong]),
            *(["retry", "--", "failed", wrong], ["export", "--", wrong], ["export", "--out=x.csv", real, wrong]),
            *(["compare", "--", real, wrong], ["report", "--", wrong], ["report", "--out=x.html", wrong]),
            *(["predict", "--", wrong, image], ["export-model", "--format=safetensors", "--", wrong]),
        ):
            yield Typed(words, wrong, is_id=True)


def with_paths(around: Surroundings) -> Iterator[Typed]:
    real, job = around.trained.job_id, str(around.things / "job.yaml")
    for wrong in around.paths():
        for words in (
            *(
                ["validate", "--", wrong],
                ["validate", job, wrong],
                ["submit", "--", wrong],
                ["submit", job, "--", wrong],
            ),
            *(["run", "--", wrong], ["predict", real, "--", wrong]),
            ["predict", "--json", "--checkpoint=last", real, "--", wrong],
        ):
            yield Typed(words, wrong)
        for words in (
            *(["export", real, f"--out={wrong}"], ["report", real, f"--out={wrong}"]),
            *(["compare", real, real, f"--plot={wrong}"], ["export-model", real, "--format=onnx", f"--out={wrong}"]),
        ):
            yield Typed(words, wrong, may_write=True, may_work=True)
        yield Typed(["submit", job, "--set=data.name=image_folder", f"--set=data.path={wrong}"], wrong, may_work=True)


def with_homes(around: Surroundings) -> Iterator[Typed]:
    job = str(around.things / "job.yaml")
    for wrong in around.homes():
        for words in (
            *(["status"], ["status", "--all", "--json"], ["show", "latest"], ["logs", "latest"], ["cancel", "latest"]),
            *(["submit", job], ["doctor"], ["health"], ["down"], ["export", "latest"], ["predict", "latest", job]),
            ["worker", "--drain"],
        ):
            yield Typed(words, wrong, home=wrong, may_write=True, may_work=True)


def brief(word: str) -> str:
    return ascii(word) if len(word) < 100 else f"{word[:20]!a} and more, of {len(word):,} characters"


def judge(around: Surroundings, typed: Typed) -> list[str]:
    home = around.trained.copy()
    if typed.is_id and not typed.wrong:
        around.trained.leave_one()  # each id begins so: only where there is one might it be taken for that
    console.clear(around.folder)
    before, may_change = contents(around.folder), places(around, typed)
    words = ["--home", str(home.root) if typed.home is None else typed.home, *typed.words]
    answer, violations = console.run(words, around.folder)
    if answer is None:
        return violations
    violations = answer.violations(*((0, 1, 2) if typed.may_work else (1, 2)))
    return violations + touches(around, typed, answer, may_change) + changes(around.folder, before, may_change)


def touches(around: Surroundings, typed: Typed, answer: Answer, may_change: list[Path]) -> list[str]:
    """What it read, started or changed and should not have."""
    paths = {how: [Path(thing.path) for thing in answer.touched if thing.how == how] for how in ("reads", "changes")}
    started = [thing.path for thing in answer.touched if thing.how == "starts"]
    changed = [path for path in paths["changes"] if not path.name.startswith(TORCHS_OWN)]
    outside = [path for path in changed if not path.is_relative_to(around.home.root)]
    return [
        *(f"it reads {path}" for path in paths["reads"] if typed.is_id and around.is_decoy(path)),
        *(f"it starts {path}" for path in started if path not in PROGRAMS),
        *(f"it changes {path}" for path in outside if not any(may_touch(path, place) for place in may_change)),
    ]


def changes(folder: Path, before: Contents, may_change: list[Path]) -> list[str]:
    """What is not as it was, and should be."""
    after = contents(folder)
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    found = [f"{path} is not as before" for path in changed if not any(map(path.is_relative_to, may_change))]
    return found + [f"a shell ran: {path}" for path in after if path.name == WITNESS]


def may_touch(path: Path, place: Path) -> bool:
    """What lies above a place too, for a folder that is there is not made again; and a file that is to be renamed."""
    is_temporary = path.parent == place.parent and path.name.startswith(f".{place.name}.")
    return is_temporary or path.is_relative_to(place) or place.is_relative_to(path)


def places(around: Surroundings, typed: Typed) -> list[Path]:
    """Where something may be other than before: what was to be written, and the home that a job is submitted to."""
    found = [around.home.root] if "submit" in typed.words and typed.may_work else []
    path = Path(os.path.realpath(around.folder / "here" / typed.wrong)) if typed.may_write else None
    if path and (typed.home is not None or not os.path.isdir(path)):  # noqa: PTH112 - a name may be too long
        found.append(path if typed.home is None else first_missing(path))
    return found


def first_missing(path: Path) -> Path:
    """The folder that has to be made before all others; the path itself where it is there."""
    with contextlib.suppress(OSError):  # it is too long
        while not os.path.lexists(path.parent):
            path = path.parent
    return path


def contents(folder: Path) -> Contents:
    found = {}
    for root, folders, files in os.walk(folder):
        if root == str(folder):  # what every command leaves
            folders[:] = [name for name in folders if name != "scratch"]
            files = [name for name in files if name not in ("stdout", "stderr")]
        for name in (*folders, *files):
            path = Path(root, name)
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size < SMALL else b""
            found[path] = (status.st_mode, 0 if stat.S_ISDIR(status.st_mode) else status.st_size, content)
    return found
