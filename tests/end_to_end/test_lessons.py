"""The lessons, in small: what docs/lessons.md has one type runs, one after another, and prints what stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dashboards import free_port
from quick import wait_until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "lessons.md"
PICTURES = ROOT / "docs" / "lessons"
LESSONS = re.findall(r"^## (\d\. .+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
IS_TO_BE_WRITTEN = re.compile(r"`(?P<path>(?:jobs|modules)/\w+\.(?:py|yaml))`:\s*\Z")
OMITTED = "..."
UP = "make up"


@dataclass
class Typed:
    """A command, and the lines that the page shows of what it prints."""

    command: str
    shown: list[str] = field(default_factory=list)

    def fails(self) -> bool:
        return any(line.startswith("make: ***") for line in self.shown)


@dataclass
class Written:
    path: str
    text: str


def steps() -> Iterator[Typed | Written]:
    """What a reader does, in order."""
    page = PAGE.read_text()
    for block in BLOCK.finditer(page):
        if block["language"] == "console":
            yield from typed(block["text"])
        elif written := IS_TO_BE_WRITTEN.search(page[: block.start()]):
            yield Written(written["path"], block["text"])


def typed(text: str) -> list[Typed]:
    found: list[Typed] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Typed(line.removeprefix("$ ")))
        else:
            found[-1].shown.append(line)
    return found


def in_small(job: str) -> str:
    return re.sub(r"\btrials: \d+", "trials: 2", re.sub(r"\bepochs: \d+", "epochs: 2", job))


class Checkout:
    """A folder as a clone of the project is, with a virtual environment that is this one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, root)
        for name in ("jobs", "modules"):
            shutil.copytree(ROOT / name, root / name)
        for job in (root / "jobs").glob("*.yaml"):
            job.write_text(in_small(job.read_text()))
        run = "import sys; sys.argv[0] = '.venv/bin/pipeline'; from pipeline.cli import main; main.main()"
        commands = {"python": "", "pipeline": f' -P -c "{run}"'}
        (root / ".venv" / "bin").mkdir(parents=True)
        for name, arguments in commands.items():
            script = root / ".venv" / "bin" / name
            script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}"{arguments} "$@"\n')
            script.chmod(0o755)
        (root / ".venv" / ".installed").touch()
        outer = {name for name in os.environ if name.startswith(("PIPELINE_", "MAKE", "MFLAGS"))}
        self.env = {name: value for name, value in os.environ.items() if name not in outer}
        self.env |= {"MODE": "local", "TENSORBOARD_PORT": str(free_port())}

    def run(self, command: str) -> tuple[int, list[str]]:
        """Returns the exit code, and what a terminal shows but for the line that names the home."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=240,
            check=False,
        )
        return done.returncode, [line for line in done.stdout.splitlines() if not line.startswith("home: ")]

    def kind(self, line: str) -> list[str]:
        """Returns what two lines have in common that differ in numbers, ids, the machine, and which run was better."""
        line = line.replace(str(self.root), "/home/you/pipeline").replace(self.env["TENSORBOARD_PORT"], "6006")
        line = re.sub(r"(?<=[a-z0-9])-[0-9a-f]{4}\b", "-ID", line)
        line = re.sub(r"cpu \([^)]*\), (fp32|bf16)", "cpu", line)
        line = re.sub(r"\d[\d,.]*(e-?\d+)?", "0", line)
        line = re.sub(r"\b0 (s|min) left", "0 left", line)
        line = re.sub(r"\b(adamw|sgd)\b", "optimizer", line)
        line = re.sub(r"\(0 succeeded[^)]*\)", "", line)
        line = re.sub(r"logits up to 0 that differ by 0 at most|the very same logits", "logits", line)
        return sorted(line.split())

    def differences(self, shown: list[str], printed: list[str]) -> list[str]:
        """Returns the lines of the page that have no counterpart, after that of the line before."""
        rest = iter([self.kind(line) for line in printed])
        missing = [line for line in shown if line != OMITTED and self.kind(line) not in rest]
        if shown and OMITTED not in shown and len(shown) != len(printed):
            missing.append(f"{len(shown)} lines and no {OMITTED}")
        return missing


class Terminal:
    """Where a command runs until somebody stops it."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout, self.log = checkout, checkout.root / "terminal.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, typed: Typed) -> None:
        """Runs until it has printed what the page shows."""
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                typed.command.split(), cwd=self.checkout.root, env=self.checkout.env, stdout=output, stderr=output
            )
        shown = [*typed.shown, OMITTED]
        wait_until(lambda: not self.checkout.differences(shown, self.printed()), f"{typed} to print that")

    def printed(self) -> list[str]:
        return self.log.read_text().splitlines()

    def has_ended(self) -> bool:
        return self.process is not None and self.process.wait(timeout=60) == 0

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.checkout.run("make down")
            self.process.wait(timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def terminal(checkout: Checkout) -> Iterator[Terminal]:
    """The other one, with what has been typed there."""
    terminal = Terminal(checkout)
    yield terminal
    terminal.close()


def test_what_the_lessons_have_one_type(checkout: Checkout, terminal: Terminal) -> None:
    """All in one test, as each lesson goes on with what those before it have left."""
    checkout.run(".venv/bin/pipeline submit jobs/digits.yaml && .venv/bin/pipeline cancel digits")  # as by `make demo`
    everything = list(steps())
    assert sum(isinstance(step, Written) for step in everything) == 2
    for step in everything:
        if isinstance(step, Written):
            text = in_small(step.text) if step.path.endswith(".yaml") else step.text
            (checkout.root / step.path).write_text(text)
        elif step.command == UP:
            terminal.start(step)
        else:
            try_out(checkout, step)
    assert terminal.has_ended(), terminal.printed()


def try_out(checkout: Checkout, step: Typed) -> None:
    code, printed = checkout.run(step.command)
    is_late = " show " in step.command  # of a job's end and of its report, which others write
    if is_late:
        wait_until(
            lambda: not checkout.differences(step.shown, checkout.run(step.command)[1]),
            f"{step.command} to print {step.shown}; it printed {printed}",
        )
        return
    assert bool(code) == step.fails(), f"{step.command} left with {code}:\n" + "\n".join(printed)
    missing = checkout.differences(step.shown, printed)
    assert not missing, f"{step.command} did not print these, or in another order:\n" + "\n".join(
        [*missing, "but", *printed]
    )


def test_each_lesson_has_something_to_type_to_see_and_to_do() -> None:
    assert [title[0] for title, _ in LESSONS] == list("123456")
    for title, text in LESSONS:
        assert "```console\n$ " in text, title
        assert "](lessons/" in text, title
        assert text.index("**Exercise.**") < text.index("*We found:*"), title


def test_what_is_shown_of_the_example_is_what_it_says() -> None:
    (shown,) = re.findall(r"^```python\n(class _LearnedClip.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown in (ROOT / "modules" / "own_operation.py").read_text()


def test_the_pictures_are_small_and_each_is_shown() -> None:
    pictures = sorted(PICTURES.iterdir())
    assert [path.name for path in pictures] == sorted(re.findall(r"\]\(lessons/([\w.]+)\)", PAGE.read_text()))
    assert max(path.stat().st_size for path in pictures) < 150 * 1024
