"""Checkpoints on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from pipeline.errors import CheckpointError
from pipeline.home.paths import RunPaths
from pipeline.training import checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    checkpoint.save(run, {"model": {"w": torch.arange(3)}, "step": 7})
    state = checkpoint.load(run.last)
    assert state is not None
    assert state["step"] == 7
    assert state["model"]["w"].tolist() == [0, 1, 2]


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    assert checkpoint.load(RunPaths(tmp_path).last) is None


def test_best_stays_when_last_moves_on(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    for step, is_best in ((1, True), (2, True), (3, False)):
        checkpoint.save(run, {"step": step}, is_best=is_best)
    last, best = checkpoint.load(run.last), checkpoint.load(run.best)
    assert last is not None
    assert best is not None
    assert (last["step"], best["step"]) == (3, 2)


def test_nothing_but_the_two_files_is_left(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    checkpoint.save(run, {"step": 1}, is_best=True)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["best.pt", "last.pt"]


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    checkpoint.save(run, {"step": 1, "w": torch.zeros(1000)})
    run.last.write_bytes(run.last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last\.pt: is damaged .* remove it"):
        checkpoint.load(run.last)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


def test_a_checkpoint_from_a_stranger_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunPaths(tmp_path)
    run.checkpoints.mkdir()
    for write in (
        lambda: torch.save({"format": 1, "x": Evil()}, run.last),
        lambda: run.last.write_bytes(pickle.dumps(Evil(), protocol=2)),
    ):
        write()
        with pytest.raises(CheckpointError):
            checkpoint.load(run.last)
        assert not Path("evil").exists()


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    run.checkpoints.mkdir()
    torch.save({"format": 99}, run.last)
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        checkpoint.load(run.last)


def test_the_step_that_is_saved_is_that_of_the_file_on_disk(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    assert checkpoint.saved_step(run) is None
    checkpoint.save(run, {"position": {"epoch": 1, "batch": 0, "step": 7}, "w": torch.zeros(1000)})
    assert checkpoint.saved_step(run) == 7
    run.last.write_bytes(run.last.read_bytes()[:1000])
    assert checkpoint.saved_step(run) is None


def test_a_folder_that_is_gone_is_not_made_again_for_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checkpoint.save(RunPaths(tmp_path / "gone"), {"step": 1})
    assert not (tmp_path / "gone").exists()
