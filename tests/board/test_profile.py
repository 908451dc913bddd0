"""Steps under PyTorch's profiler, from a job file's `log.profile`."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    train_engine,
)
from quick import NOTHING_SHOWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.autograd import DeviceType

from pipeline.board import tags
from pipeline.board.profile import Profile
from pipeline.data.dataset import Dataset
from pipeline.errors import Interrupted
from pipeline.home.paths import Home
from pipeline.jobfile.spec import Spec


def profiled(*, batch_size: int, epochs: int = 1, accumulate: int = 1) -> Spec:
    return make_spec(
        {"name": "vgg", "widths": [4]},
        {"batch_size": batch_size},
        train={"epochs": epochs, "accumulate": accumulate, "precision": "fp32"},  # autocast counts an operator twice
        log={**NOTHING_SHOWN, "profile": True},
    )


def trace(path: Path) -> list[dict[str, Any]]:
    """The operators in it."""
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    return [event for event in events if event.get("cat") == "cpu_op"]


def count(operators: list[dict[str, Any]], name: str) -> int:
    return sum(event["name"] == name for event in operators)


@pytest.mark.parametrize(
    ("spec", "steps", "file", "batches"),
    [
        (profiled(batch_size=64), 23, "steps-11-15", 5),
        (profiled(batch_size=120), 12, "steps-8-12", 5),
        (profiled(batch_size=360), 4, "steps-1-4", 4),
        (profiled(batch_size=2000), 1, "steps-1-1", 1),
        (profiled(batch_size=240, epochs=3), 18, "steps-11-15", 6),  # and an evaluation
        (profiled(batch_size=64, accumulate=2), 12, "steps-8-12", 9),  # the last step has one
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_the_steps_that_were_promised_are_recorded(
    spec: Spec, steps: int, file: str, batches: int, digits: Dataset, tmp_path: Path
) -> None:
    engine = engine_of(spec, digits)
    train_engine(engine, tmp_path)
    assert engine.num_steps == engine.step == steps
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == f"{file}.pt.trace.json.gz"
    operators = trace(path)
    first, last = map(int, re.findall(r"\d+", file))
    assert all(event["dur"] >= 0 for event in operators)
    assert count(operators, "aten::conv2d") == batches
    assert count(operators, "aten::_fused_sgd_") == last - first + 1


def table(folder: Path) -> tuple[int, list[list[str]]]:
    """The step that the text is at, and its rows."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    (text,) = reader.Tensors(tags.TOP_OPERATORS)
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return text.step, rows


def test_the_operators_that_took_longest_come_first(digits: Dataset, tmp_path: Path) -> None:
    train_engine(engine_of(profiled(batch_size=64), digits), tmp_path)
    step, (header, _, *rows) = table(tmp_path)
    assert (step, header) == (15, ["operator", "calls", "own CPU time, ms", "share"])
    assert len(rows) == 20
    times, shares = [float(row[2]) for row in rows], [float(row[3].removesuffix(" %")) for row in rows]
    assert times == sorted(times, reverse=True)
    assert times[0] > 0
    assert sum(shares) <= 100.5
    operators = trace(next((tmp_path / "profile").iterdir()))
    calls = {row[0].strip("`"): int(row[1]) for row in rows}
    assert calls["aten::mkldnn_convolution"] == count(operators, "aten::mkldnn_convolution") >= 5


def test_an_attempt_that_is_stopped_while_it_records_leaves_no_trouble(digits: Dataset, tmp_path: Path) -> None:
    """The one after it records some of its own steps, and the one after that no more."""
    spec = profiled(batch_size=64)
    saved: list[tuple[dict[str, Any], bool]] = []
    for stop_at in (12, 10):
        with pytest.raises(Interrupted):
            train_engine(engine_of(spec, digits), tmp_path, stop_at=stop_at, saved=saved)
        assert not (tmp_path / "profile").exists()
    resumed = engine_of(spec, digits)
    resumed.load_state_dict(saved[-1][0])
    train_engine(resumed, tmp_path)
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["steps-19-23.pt.trace.json.gz"]
    again = engine_of(spec, digits)
    again.load_state_dict(saved[0][0])
    train_engine(again, tmp_path)
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["steps-19-23.pt.trace.json.gz"]


def test_of_a_gpu_s_time_only_operators_are_listed() -> None:
    """Its kernels have entries of their own, with the time that the operators they are of have too."""

    @dataclass
    class Event:
        key: str
        device_type: object
        self_device_time_total: float
        count: int = 1

    class Recorded:
        def key_averages(self) -> list[Event]:
            cpu, cuda = DeviceType.CPU, DeviceType.CUDA
            return [Event("aten::mm", cpu, 30), Event("gemm_kernel", cuda, 30), Event("aten::add", cpu, 10)]

    profile = Profile(None, first_step=0, num_steps=20, device=torch.device("cuda"))  # type: ignore[arg-type]
    lines = profile._table(Recorded()).splitlines()  # type: ignore[arg-type]
    assert lines[0] == "| operator | calls | own GPU time, ms | share |"
    assert lines[2:] == ["| `aten::mm` | 1 | 0.03 | 75.0 % |", "| `aten::add` | 1 | 0.01 | 25.0 % |"]


def test_the_profiler_prints_nothing(
    home: Home, job_file: Callable[..., Path], pipeline: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    text = "name: quiet\nmodel: {name: cnn_bn}\ndata: {name: digits}\ntrain: {epochs: 2}\nlog: {profile: true}\n"
    done = pipeline("run", job_file(text=text))
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    own = r"\d\d:\d\d:\d\d  |makes a new home: |quiet-0001: begins|the run is in |its report is "
    assert [line for line in lines if not re.match(own, line)] == []
    assert len(list(home.runs.glob("*/profile/steps-11-15.pt.trace.json.gz"))) == 1
