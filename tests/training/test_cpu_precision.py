"""Where `auto` could be bfloat16 on a CPU, that is measured, once a home."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import digits, make_spec  # noqa: F401 - digits is a fixture

from pipeline.data.dataset import Dataset
from pipeline.training import cpu_precision
from pipeline.training.device import Setting, choose

HALF, FULL = torch.bfloat16, torch.float32
Measured = list[object]
Measuring = Callable[[float], Measured]


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    """Lets a measurement come to a gain; gives what was measured."""

    def come_to(gain: float) -> Measured:
        measured: Measured = []
        monkeypatch.setattr(cpu_precision, "measure", lambda *what: (measured.append(what), gain)[1])
        return measured

    return come_to


def settled(digits: Dataset, datasets: Path, **changes: Any) -> torch.dtype:
    """What a processor that could take bfloat16 computes in."""
    spec = make_spec(**changes)
    could = dataclasses.replace(choose(spec), device=torch.device("cpu"))
    if spec.train.precision == "auto":
        could = dataclasses.replace(could, dtype=HALF)
    return cpu_precision.settle(could, spec, digits, datasets=datasets).dtype


@pytest.mark.parametrize(("gain", "dtype"), [(0.2, FULL), (1.0, FULL), (1.09, FULL), (1.1, HALF), (3.0, HALF)])
def test_bfloat16_is_taken_where_it_is_faster(
    gain: float, dtype: torch.dtype, digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    measuring(gain)
    assert settled(digits, tmp_path) is dtype


def test_what_was_measured_holds_for_later_attempts(digits: Dataset, tmp_path: Path, measuring: Measuring) -> None:
    measured = measuring(0.5)
    assert settled(digits, tmp_path) is FULL
    assert len(measured) == 1
    measured = measuring(2.0)  # the machine has got faster at it since
    assert settled(digits, tmp_path) is FULL
    assert measured == []


def test_another_network_is_measured_anew(digits: Dataset, tmp_path: Path, measuring: Measuring) -> None:
    measuring(0.5)
    settled(digits, tmp_path)
    measured = measuring(2.0)
    assert settled(digits, tmp_path, model={"name": "vgg", "widths": [8]}) is HALF
    assert settled(digits, tmp_path) is FULL
    assert len(measured) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bf16_gain": "much"}', '{"bf16_gain": 9.0, "about": {}}'])
def test_a_record_that_says_nothing_is_made_again(
    content: str, digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    measuring(0.5)
    settled(digits, tmp_path)
    (record,) = (tmp_path / ".cache").glob("precision-*.json")
    record.write_text(content)
    assert settled(digits, tmp_path) is FULL
    assert '"bf16_gain": 0.5' in record.read_text()


def test_a_folder_that_cannot_be_written_stops_nobody(digits: Dataset, tmp_path: Path, measuring: Measuring) -> None:
    (tmp_path / ".cache").write_text("a file where the folder should be")
    measuring(0.5)
    assert settled(digits, tmp_path) is FULL


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_the_job_file_says_is_not_measured(
    precision: str, digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    measured = measuring(0.5)
    spec = make_spec(train={"precision": precision})
    assert cpu_precision.settle(choose(spec), spec, digits, datasets=tmp_path) == choose(spec)
    assert measured == []


def test_a_step_of_the_network_can_be_measured(digits: Dataset) -> None:
    spec = make_spec()
    setting = Setting(torch.device("cpu"), HALF, torch.channels_last, fused=True, compile=False)
    assert cpu_precision.measure(setting, spec, digits) > 0
