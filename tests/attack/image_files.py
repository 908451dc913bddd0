"""Image files that are damaged, lie, or are none at all, given to the reader of image folders and to `predict`.

What can be read is read. What cannot is named in an ordinary error, or left out and named where that is asked for, and
all other images are as before. It takes no more memory than an image may, ends, and starts no program.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from attack import apart, console
from attack.campaign import Case, Scale
from attack.console import Touched
from attack.hostile_images import KINDS
from attack.trained import Trained
from pipeline.errors import DataError

HANGS_S = 60.0
MEMORY_BYTES = 2 * 1024**3  # of addresses: an image of 89 million pixels, and what it is made of
PREDICTED = 4  # of so many, one is given to `predict`
NAMES = ("x.png", "x.jpg", "x", "x.eps", "a b.gif", "-x.tiff", "x\ny.png", "x\udcff.webp", "x" * 250, "%s.png", "*.bmp")
GOOD = 2  # images beside it in its class


def attack(scale: Scale) -> Iterator[Case]:
    chance, made = random.Random(scale.seed), Trained.make(scale.folder / "made")
    programs = scale.folder / "programs"
    put_ghostscript(programs)
    for number in range(scale.cases):
        kind, name = chance.choice(KINDS), chance.choice(NAMES)
        folder = scale.folder / "images"
        shutil.rmtree(folder, ignore_errors=True)
        file = make_folder(folder) / name
        kind(chance, file)
        options = Options(chance.choice(["always", "never"]), chance.choice([8, 8, 1024, None]))
        violations = judge_folder(folder, file, options, programs)
        if number % PREDICTED == 0:
            violations += judge_predict(made, file, scale.folder, programs)
        yield Case(f"case {number}: {kind.__name__} as {name!a}, {options}", tuple(violations))


@dataclass(frozen=True)
class Options:
    in_memory: Literal["always", "never"]
    image_size: int | None


def put_ghostscript(folder: Path) -> None:
    """A program that Pillow would start for one kind of file."""
    folder.mkdir()
    (folder / "gs").write_text("#!/bin/sh\nexit 1\n")
    (folder / "gs").chmod(0o755)


def make_folder(folder: Path) -> Path:
    """Two classes of plain images; the folder of one of them."""
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(GOOD):
                Image.new("RGB", (8, 8), (200, number, 0)).save(folder / split / name / f"good-{number}.png")
    return folder / "train" / "cat"


def judge_folder(folder: Path, file: Path, options: Options, programs: Path) -> list[str]:
    read, violations = apart.call(read_both, folder, options, str(programs), hangs_s=HANGS_S, memory_bytes=MEMORY_BYTES)
    if read is None:
        return violations
    (refused, count), (skipped, left), touched = read
    violations = [f"it starts {thing.path}" for thing in touched if thing.how == "starts"]
    is_folder = file.is_dir()
    expected = 2 * GOOD + (not refused and not is_folder)
    if "set data.image_size" in refused:  # the files are of different sizes
        return violations
    for what, said, number in (("refused", refused, count), ("left out", skipped, left)):
        if said and file.name not in said:
            violations.append(f"it is {what}, and not named: {said[:300]!a}")
        if number is not None and number != expected:
            violations.append(f"{number} images are read, and should be {expected}")
    return violations if left is not None else [*violations, f"it is not left out: {skipped[:300]!a}"]


Read = tuple[str, int | None]  # what was said, and how many training images there are


def read_both(folder: Path, options: Options, path: str) -> tuple[Read, Read, list[Touched]]:
    """With `on_corrupt: fail` and `skip`."""
    os.environ["PATH"] = path
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of what is read nonetheless
    touched: list[Touched] = []
    console.watch(touched)
    return read(folder, options, "fail"), read(folder, options, "skip"), list(touched)


def read(folder: Path, options: Options, on_corrupt: str) -> Read:
    from pipeline.data import dataset, image_folder

    given: dict[str, Any] = {"path": str(folder), "on_corrupt": on_corrupt, "in_memory": options.in_memory}
    try:
        found = dataset.load(
            "image_folder",
            image_folder.read,
            given,
            image_size=options.image_size,
            datasets=folder / "datasets",
            log=lambda _: None,
        )
    except DataError as error:
        return str(error), None
    found.train.read(range(len(found.train)))
    return "\n".join(found.notes), len(found.train)


def judge_predict(made: Trained, file: Path, folder: Path, programs: Path) -> list[str]:
    """Beside a good image, which is classified whatever the other is."""
    good = file.with_name("good-0.png")
    console.clear(folder)
    words = ["--home", str(made.source.root), "predict", made.job_id, "--", str(file), str(good)]
    answer, violations = console.run(words, folder, path=str(programs))
    if answer is None:
        return violations
    violations = answer.violations(0, 1)
    violations += [f"it starts {thing.path}" for thing in answer.touched if thing.how == "starts"]
    name = console.shown(str(file))
    if answer.code and name not in answer.err:
        violations.append(f"`predict` does not name it: {answer.err[:300]!a}")
    if answer.code == 0 and file.is_dir():
        return violations
    return violations if good.name in answer.out else [*violations, "`predict` leaves out the good one"]
