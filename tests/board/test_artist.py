"""The process that draws: what it gives, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    Recorder,
    digits,
    engine_of,
    logbook_of,
    make_spec,
    ordinary_kernels,
)
from quick import NOTHING_SHOWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.board import figures, tags
from pipeline.board.artist import Artist
from pipeline.board.writer import Board
from pipeline.data.dataset import Dataset
from pipeline.home.paths import RunPaths
from pipeline.stop import Stop
from pipeline.training import checkpoint
from pipeline.training.loop import Loop
from pipeline.training.saver import Saver
from pipeline.training.step import EagerStep

CONFUSION = np.array([[3, 1], [0, 4]]), ["cat", "dog"]


def test_a_figure_is_the_one_that_would_be_drawn_here() -> None:
    with Artist() as artist:
        drawn = artist.draw(figures.draw_confusion, *CONFUSION)()
    assert drawn == figures.draw_confusion(*CONFUSION)


def test_what_cannot_be_drawn_is_said_and_the_next_one_is_drawn() -> None:
    with Artist() as artist:
        with pytest.raises(RuntimeError, match="TypeError: draw_confusion"):
            artist.draw(figures.draw_confusion)()
        assert artist.draw(figures.draw_confusion, *CONFUSION)().height > 0


def test_a_process_that_was_killed_is_said() -> None:
    with Artist() as artist:
        pid = artist.draw(os.getpid)()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match="the process that draws has ended"):
            artist.draw(os.getpid)()


def test_a_drawing_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.board.artist.LIMIT_S", 0.05)
    with Artist() as artist:
        drawing = artist.draw(time.sleep, 600)
        with pytest.raises(TimeoutError, match=r"not drawn after 0\.05 s"):
            drawing()


def test_signals_to_the_group_do_not_end_it_not_even_while_it_starts() -> None:
    code = """
        import os, signal
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        os.setpgid(0, 0)
        from pipeline.board.artist import Artist
        with Artist() as artist:
            first = artist.draw(os.getpid)
            while artist._process is None:
                pass
            for _ in range(200):
                os.killpg(0, signal.SIGINT)
                os.killpg(0, signal.SIGTERM)
            assert first() == artist._process.pid
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_nothing_is_imported_from_where_the_training_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise RuntimeError('not from here')")
    monkeypatch.chdir(tmp_path)
    with Artist() as artist:
        assert artist.draw(os.getcwd)() == str(tmp_path)


def test_it_needs_no_torch() -> None:
    with Artist() as artist:
        artist.draw(figures.draw_confusion, *CONFUSION)()
        assert artist.draw(eval, "'torch' in __import__('sys').modules")() is False


def test_it_ends_with_the_training_also_where_that_is_killed() -> None:
    code = """
        import os, signal
        from pipeline.board.artist import Artist
        print(Artist().draw(os.getpid)(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while is_alive(int(done.stdout)):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """A process that has ended, and that nobody has waited for, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_figures_are_in_the_file_before_the_checkpoint_that_follows(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[int]] = []
    real = checkpoint.save

    def save(run: RunPaths, state: checkpoint.State, **options: bool) -> None:
        found.append(confusions(tmp_path))
        real(run, state, **options)

    monkeypatch.setattr(checkpoint, "save", save)
    spec = make_spec(train={"epochs": 3}, log={**NOTHING_SHOWN, "figures": True})
    trained = engine_of(spec, digits)
    with Board(tmp_path, first_step=0) as board, Artist() as artist:
        logbook = logbook_of(board, trained, log=pytest.fail, artist=artist)
        with Saver(RunPaths(tmp_path), before=logbook.settle) as saver:
            Loop(trained, EagerStep(trained), logbook, Recorder(trained), saver.save, Stop()).train()
    steps = [trained.steps_per_epoch * epoch for epoch in (1, 2, 3)]
    assert [written[: number + 1] for number, written in enumerate(found)] == [steps[:1], steps[:2], steps]


def confusions(folder: Path) -> list[int]:
    reader = EventAccumulator(str(folder), {"images": 0}).Reload()
    if tags.CONFUSION not in reader.Tags()["images"]:
        return []
    return [event.step for event in reader.Images(tags.CONFUSION)]


def test_a_process_that_draws_no_more_costs_the_figures_and_nothing_else(digits: Dataset, tmp_path: Path) -> None:
    lines: list[str] = []
    trained = engine_of(make_spec(train={"epochs": 2}, log={**NOTHING_SHOWN, "figures": True}), digits)
    with Board(tmp_path, first_step=0) as board, Artist() as artist:
        os.kill(artist.draw(os.getpid)(), signal.SIGKILL)
        logbook = logbook_of(board, trained, log=lines.append, artist=artist)
        with Saver(RunPaths(tmp_path), before=logbook.settle) as saver:
            Loop(trained, EagerStep(trained), logbook, Recorder(trained), saver.save, Stop()).train()
    (line,) = [line for line in lines if "shown" in line]
    assert line.startswith("figures: cannot be shown, and the job goes on without: ChildProcessError")
    assert checkpoint.saved_step(RunPaths(tmp_path)) == 2 * trained.steps_per_epoch
