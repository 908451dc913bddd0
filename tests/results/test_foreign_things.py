"""Pipes, folders, links and sockets under the names of a run's files: each command and each attempt has an answer."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quick import EVERYTHING_SHOWN, quick_spec

from pipeline.cli import main as cli
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Result
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training.attempt import Attempt

DEADLINE_S = 60  # of what takes one

FILES = (
    "spec.yaml",
    "manifest.json",
    "progress.json",
    "progress.tmp",
    "result.json",
    "evaluation.json",
    "report.html",
    "model.safetensors",
    "attempt-1.log",
    "attempt-2.log",
    "events.out.tfevents.1.host.1.0.1",
    "events.out.tfevents.9999999999.host.1.0",
    "projector_config.pbtxt",
    "projector/pixels.tsv",
    "checkpoints/last.pt",
    "checkpoints/previous.pt",
    "checkpoints/best.pt",
    "checkpoints/.last.pt.tmp",
    "profile/.trace.json",
)
FOLDERS = ("checkpoints", "projector", "profile")

COMMANDS = (
    ["show", "job"],
    ["export", "job"],
    ["compare", "job", "other"],
    ["report", "job"],
    ["predict", "job", "image.png"],
    ["predict", "job", "image.png", "--checkpoint", "last"],
    ["export-model", "job", "--format", "safetensors"],
)


def make_socket(path: Path) -> None:
    """A bound name; that of a socket's address is limited to some hundred characters."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as named:
            named.bind(path.name)
    finally:
        os.chdir(before)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "socket": make_socket,
}


def spec(epochs: int) -> Spec:
    shown = {**EVERYTHING_SHOWN, "every": 1}
    return quick_spec(epochs=epochs, model={"name": "vgg", "widths": [4]}, data={"batch_size": 512}, log=shown)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two runs with all that a run can have."""
    home = Home(tmp_path_factory.mktemp("home"))
    for job_id in ("job", "other"):
        frozen.save(home.run(job_id), spec(epochs=2))
        assert Attempt(home, job_id, 1, Stop(), str).execute().outcome == "succeeded"
    return home


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    """A call that blocks is interrupted, and fails."""

    def ring(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(DEADLINE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def put(run: RunPaths, name: str, kind: str) -> None:
    path = run.root / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    KINDS[kind](path)


def damaged(
    trained: Home, tmp_path: Path, names: tuple[str, ...], kind: str, epochs: int = 2
) -> Iterator[tuple[str, Home]]:
    """Copies of the home, each with one name taken."""
    for number, name in enumerate(names):
        home = Home(tmp_path / str(number))
        shutil.copytree(trained.root, home.root, symlinks=True)
        frozen.save(home.run("job"), spec(epochs))
        put(home.run("job"), name, kind)
        yield name, home
        shutil.rmtree(home.root)


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_has_an_answer(
    kind: str, trained: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It works, or it says what is wrong. Whatever else it raises would be a traceback, and fails this test."""
    monkeypatch.chdir(Path(__file__).parent)
    names = FILES if kind == "folder" else (*FILES, *FOLDERS)
    for name, home in damaged(trained, tmp_path, names, kind):
        for command in COMMANDS:
            monkeypatch.setattr(sys, "argv", ["pipeline", "--home", str(home.root), *command])
            with deadline(), pytest.raises(SystemExit) as left:
                cli.main()
            said = capsys.readouterr().err
            assert left.value.code in (0, 1, 2), (name, command)
            assert said or left.value.code == 0, (name, command)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attempt_has_an_end(kind: str, trained: Home, tmp_path: Path) -> None:
    """It goes on to the end, or it fails with what to remove."""
    names = tuple(name for name in FILES if name != "spec.yaml") if kind == "folder" else (*FILES, *FOLDERS)
    for name, home in damaged(trained, tmp_path, names, kind, epochs=3):
        lines: list[str] = []
        run = home.run("job")
        with deadline():
            attempt = Attempt(home, "job", 2, Stop(), lines.append)
            result = attempt.execute()
        assert not any("Traceback" in line for line in lines), (name, lines)
        if result.outcome != "succeeded":
            assert result.outcome in ("failed", "lost"), name
            assert str(run.root / name) in result.why or name == "spec.yaml", result.why
        if name == "result.json" and kind == "folder":
            assert "result.json" in lines[-1]
            assert not attempt.is_recorded
        else:
            assert Result.read(run.result) == result, name
