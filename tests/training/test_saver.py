"""Checkpoints that are written while the training goes on."""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    Recorder,
    digits,
    engine_of,
    loop_of,
    make_spec,
    ordinary_kernels,
)

from pipeline.board.writer import Board
from pipeline.data.dataset import Dataset
from pipeline.home.paths import RunPaths
from pipeline.training import checkpoint
from pipeline.training.saver import HostMemory, Saver


class SlowDisk:
    """In place of `checkpoint.save`: writes when it is let, and counts how many write at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_write, self.num_writing, self.most_writing = threading.Event(), 0, 0
        self.save = checkpoint.save
        monkeypatch.setattr(checkpoint, "save", self)

    def __call__(self, run: RunPaths, state: dict[str, Any], *, is_best: bool) -> None:
        self.num_writing += 1
        self.most_writing = max(self.most_writing, self.num_writing)
        assert self.may_write.wait(60)
        self.save(run, state, is_best=is_best)
        self.num_writing -= 1


def saved(run: RunPaths) -> dict[str, Any]:
    state = checkpoint.load(run.last)
    assert state is not None
    return state


def test_what_is_saved_is_what_was_there_when_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, disk = RunPaths(tmp_path), SlowDisk(monkeypatch)
    weights, metrics = torch.zeros(5), {"test/accuracy": 0.5}
    with Saver(run) as saver:
        saver.save({"model": OrderedDict(w=weights), "metrics": metrics, "position": {"step": 1}}, False)
        assert not run.last.exists()
        weights += 1  # the next step
        metrics["test/accuracy"] = 0.6
        disk.may_write.set()
    assert saved(run)["model"]["w"].tolist() == [0] * 5
    assert saved(run)["metrics"] == {"test/accuracy": 0.5}


def test_one_is_written_at_a_time_and_all_are_written_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, disk = RunPaths(tmp_path), SlowDisk(monkeypatch)
    disk.may_write.set()
    with Saver(run) as saver:
        for step in range(5):
            saver.save({"step": step}, step == 2)
        saver.finish()
        assert saved(run)["step"] == 4
    best, previous = checkpoint.load(run.best), checkpoint.load(run.previous)
    assert best is not None
    assert previous is not None
    assert (best["step"], previous["step"], disk.most_writing) == (2, 3, 1)


def test_what_goes_wrong_is_raised_when_it_is_asked_for_and_at_the_end(tmp_path: Path) -> None:
    gone = RunPaths(tmp_path / "gone")
    saver = Saver(gone)
    saver.check()
    saver.save({"step": 1}, False)
    with pytest.raises(FileNotFoundError):
        saver.finish()
    saver.check()  # once
    with pytest.raises(FileNotFoundError), Saver(gone) as saver:
        saver.save({"step": 1}, False)


def refuse_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk take every checkpoint but that one."""
    real = checkpoint.save

    def save(run: RunPaths, state: dict[str, Any], *, is_best: bool) -> None:
        if state["step"] == step:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(run, state, is_best=is_best)

    monkeypatch.setattr(checkpoint, "save", save)


def test_one_that_was_refused_costs_nothing_where_the_next_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_step(1, monkeypatch)
    with Saver(RunPaths(tmp_path)) as saver:
        saver.save({"step": 1}, False)
        saver.save({"step": 2}, False)
    assert saved(RunPaths(tmp_path))["step"] == 2


def test_what_a_checkpoint_follows_is_written_before_it_and_never_given_up_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(checkpoint, "save", lambda _, state, **__: done.append(f"save {state['step']}"))
    with Saver(RunPaths(tmp_path), before=lambda: done.append("before")) as saver:
        saver.save({"step": 1}, False, lambda: done.append("write 1"))
        saver.save({"step": 2}, False, lambda: (tmp_path / "none" / "file").write_text(""))
        with pytest.raises(FileNotFoundError):
            saver.save({"step": 3}, False)
        saver.save({"step": 4}, False)
    assert done == ["write 1", "before", "save 1", "before", "save 4"]


def test_no_state_is_saved_that_tells_of_a_best_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_step(2, monkeypatch)
    with Saver(RunPaths(tmp_path)) as saver:
        saver.save({"step": 1}, False)
        saver.save({"step": 2}, True)
        with pytest.raises(OSError, match="No space left"):
            saver.save({"step": 3}, False)
    assert saved(RunPaths(tmp_path))["step"] == 1


def test_a_training_hears_of_a_refused_checkpoint_at_its_next_step(digits: Dataset, tmp_path: Path) -> None:
    """And not only at the next checkpoint, an epoch later."""
    steps: list[int] = []
    engine = engine_of(make_spec(), digits)
    refused = OSError(errno.ENOSPC, "No space left on device")

    def check() -> None:
        if engine.step == 25:  # two steps after that epoch's
            raise refused

    with Board(tmp_path, first_step=0) as board:
        loop = loop_of(engine, board, listener=Recorder(engine, steps.append))
        loop.check_saved = check
        with pytest.raises(OSError, match="No space left"):
            loop.train()
    assert steps[-1] == 25


def test_a_disk_that_refuses_the_last_one_does_not_hide_why_the_training_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", refuse)

    def train() -> None:
        with Saver(RunPaths(tmp_path)) as saver:
            saver.save({"step": 1}, False)
            raise KeyError("the reason")

    with pytest.raises(KeyError, match="the reason"):
        train()


def test_a_copy_shares_nothing_with_what_it_is_of() -> None:
    weights = torch.arange(24.0).view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    state = {"list": [weights, {"n": 1}], "tuple": (weights, None), "text": "x"}
    copy = HostMemory().copy(state)
    weights.zero_()
    for tensor in (copy["list"][0], copy["tuple"][0]):
        assert tensor.sum() == 276
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert (copy["list"][1], copy["tuple"][1], copy["text"]) == ({"n": 1}, None, "x")


def test_tensors_of_any_kind_are_copied_and_saved_as_they_are(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.randn(3, 5))
    state = {
        "byte": torch.arange(7, dtype=torch.uint8),
        "parameter": parameter,
        "number": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "turned": torch.randn(2, 3).T,
        "apart": torch.arange(10.0)[::3],
        "repeated": torch.tensor([1.5]).expand(4),
        "half": torch.randn(9).bfloat16(),
        "truth": torch.tensor([True, False]),
        "double": torch.randn(2, dtype=torch.float64),
    }
    copy = HostMemory().copy(state)
    run = RunPaths(tmp_path)
    with Saver(run) as saver:
        saver.save(state, False)
    for found in (copy, saved(run)):
        assert found.keys() == state.keys()
        for name, tensor in state.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name
            assert not found[name].requires_grad


def test_every_copy_uses_the_same_memory() -> None:
    memory = HostMemory()

    def places(*tensors: torch.Tensor) -> list[int]:
        return [tensor.data_ptr() for tensor in memory.copy(tensors)]

    tensors = [torch.ones(100), torch.ones(3, dtype=torch.uint8), torch.ones(1)]
    first, *others = places(*tensors)
    assert [place - first for place in others] == [448, 512]  # 400 bytes and 3, rounded up to 64
    assert places(*tensors) == [first, *others]
    assert places(tensors[0]) == [first], "fewer"
    assert len(places(torch.ones(1000))) == 1, "more"
