"""What `auto` is on a CPU is measured, once a home: bfloat16, and how tiny batches are computed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    digits,
    make_spec,
    ordinary_kernels,
    take,
)

from pipeline.data.dataset import Dataset
from pipeline.errors import Interrupted
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import cpu_choice
from pipeline.training.cpu_choice import Found, ways_to_compute
from pipeline.training.device import Setting, choose
from pipeline.training.engine import Engine
from pipeline.training.evaluation import evaluate

HALF, FULL = torch.bfloat16, torch.float32
SETTING = Setting(torch.device("cpu"), HALF, torch.channels_last, fused=True, compile=False, capture=False)
IN_FULL = dataclasses.replace(SETTING, dtype=FULL)
CONTIGUOUS = dataclasses.replace(IN_FULL, memory_format=torch.contiguous_format)
NATIVE = dataclasses.replace(CONTIGUOUS, onednn=False)
Measured = list[object]
Measuring = Callable[..., Measured]


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    """Lets a measurement come to the gains of the ways after the first; gives what was measured."""

    def come_to(*gains: float, is_steady: bool = True) -> Measured:
        measured: Measured = []
        found = Found([1.0, *gains], is_steady)
        monkeypatch.setattr(cpu_choice, "measure", lambda *what: (measured.append(what), found)[1])
        return measured

    return come_to


def settled(digits: Dataset, datasets: Path, *, before: dict[str, Any] | None = None, **changes: Any) -> torch.dtype:
    """What a processor that could take bfloat16 computes in."""
    spec = make_spec(**changes)
    could = dataclasses.replace(choose(spec), device=torch.device("cpu"))
    if spec.train.precision == "auto":
        could = dataclasses.replace(could, dtype=HALF)
    return cpu_choice.settle(could, spec, digits, datasets=datasets, stop=Stop(), before=before).dtype


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


@pytest.mark.parametrize(("before", "dtype"), [("fp32", FULL), ("bf16", HALF)])
def test_a_job_goes_on_in_the_precision_that_it_began_in(
    before: str, dtype: torch.dtype, digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    """Whatever is measured today, and also where the record of it was removed."""
    measured = measuring(0.5 if before == "bf16" else 2.0)
    assert settled(digits, tmp_path, before={"precision": before}) is dtype
    assert measured == []


def test_what_other_programs_disturbed_holds_for_this_attempt_alone(
    digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    measuring(3.0, is_steady=False)
    assert settled(digits, tmp_path) is HALF
    measuring(0.5)
    assert settled(digits, tmp_path) is FULL
    measuring(3.0)
    assert settled(digits, tmp_path) is FULL


def test_of_two_jobs_that_measure_at_once_both_take_what_the_first_one_found(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measuring: Measuring
) -> None:
    measuring(0.5)

    def slowly(*_: object) -> Found:
        monkeypatch.undo()
        measuring(0.5)
        assert settled(digits, tmp_path) is FULL  # another job, which is quicker
        return Found([1.0, 3.0], is_steady=True)

    monkeypatch.setattr(cpu_choice, "measure", slowly)
    assert settled(digits, tmp_path) is FULL


def test_another_network_is_measured_anew(digits: Dataset, tmp_path: Path, measuring: Measuring) -> None:
    measuring(0.5)
    settled(digits, tmp_path)
    measured = measuring(2.0)
    assert settled(digits, tmp_path, model={"name": "vgg", "widths": [8]}) is HALF
    assert settled(digits, tmp_path) is FULL
    assert len(measured) == 1


def test_another_processor_of_the_same_name_is_measured_anew(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measuring: Measuring
) -> None:
    """A virtual machine's `AMD EPYC` is a Zen 4 today and a Zen 5 tomorrow."""
    measuring(0.5)
    for known in ({"cpu_name": "AMD EPYC", "avx_vnni": False}, {"cpu_name": "AMD EPYC", "avx_vnni": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        measured = measuring(0.5)
        settled(digits, tmp_path)
        assert len(measured) == 1
        settled(digits, tmp_path)
        assert len(measured) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"gains": "much"}', '{"gains": [1.0, 9.0], "about": {}}'])
def test_a_record_that_says_nothing_is_made_again(
    content: str, digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    measuring(0.5)
    settled(digits, tmp_path)
    (record,) = (tmp_path / ".cache").glob("measured-*.json")
    record.write_text(content)
    assert settled(digits, tmp_path) is FULL
    assert json.loads(record.read_text())["gains"] == [1.0, 0.5]


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
    assert cpu_choice.settle(choose(spec), spec, digits, datasets=tmp_path, stop=Stop()) == choose(spec)
    assert measured == []


def test_a_step_of_the_network_can_be_measured(digits: Dataset) -> None:
    gains = cpu_choice.measure((IN_FULL, SETTING, CONTIGUOUS, NATIVE), make_spec(), digits, Stop()).gains
    assert gains[0] == 1
    assert min(gains) > 0
    assert torch.backends.mkldnn.enabled


def test_a_measurement_ends_when_the_job_is_asked_to_stop(digits: Dataset) -> None:
    stop = Stop()
    stop.request("asked to stop")
    with pytest.raises(Interrupted, match="asked to stop"):
        cpu_choice.measure((IN_FULL, NATIVE), make_spec(), digits, stop)


class SlowSteps:
    """A clock that moves by how long each step is said to take, and at no other time.

    waited: the share of the time that its threads wait for a processor.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, full: list[float], half: list[float], waited: float = 0
    ) -> None:
        self.now, self.num = 0.0, 0
        left = {FULL: iter(full), HALF: iter(half)}
        autocast = Setting.autocast

        def slowly(setting: Setting) -> AbstractContextManager[None]:
            self.now += next(left[setting.dtype])
            self.num += 1
            return autocast(setting)

        monkeypatch.setattr(Setting, "autocast", slowly)
        monkeypatch.setattr(cpu_choice.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(cpu_choice, "_waited_s", lambda: self.now * waited)


def test_a_step_that_something_else_disturbed_does_not_count(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = SlowSteps(monkeypatch, full=[0.9, 0.03, 0.02, 0.022], half=[0.9, 0.8, 0.7, 0.01])
    assert cpu_choice.measure((IN_FULL, SETTING), make_spec(), digits, Stop()) == ([1.0, pytest.approx(2.0)], False)
    assert steps.num == 8


def test_short_steps_are_measured_often(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = SlowSteps(monkeypatch, full=[0.002] * 1000, half=[0.003] * 1000)
    assert cpu_choice.measure((IN_FULL, SETTING), make_spec(), digits, Stop()) == ([1.0, pytest.approx(2 / 3)], True)
    assert 78 <= steps.num <= 82


@pytest.mark.parametrize(("waited", "is_steady"), [(0.02, True), (0.7, False)])
def test_steps_that_are_even_are_disturbed_where_other_programs_have_the_processor(
    waited: float, is_steady: bool, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowSteps(monkeypatch, full=[0.02] * 100, half=[0.03] * 100, waited=waited)
    assert cpu_choice.measure((IN_FULL, SETTING), make_spec(), digits, Stop()).is_steady is is_steady


def test_a_measurement_that_takes_long_is_cut_short(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = SlowSteps(monkeypatch, full=[2.0] * 9, half=[1.0] * 9)
    assert cpu_choice.measure((IN_FULL, SETTING), make_spec(), digits, Stop()) == ([1.0, pytest.approx(2.0)], True)
    assert steps.num == 4


def test_a_deterministic_job_is_in_float32_on_every_processor() -> None:
    spec = make_spec(train={"deterministic": True})
    assert choose(spec).dtype is FULL


# Tiny batches


def tiny_spec(*, batch_size: int = 4, **train: Any) -> Spec:
    return make_spec(data={"batch_size": batch_size}, train={"deterministic": False, **train})


@pytest.mark.parametrize(
    ("gains", "fastest"),
    [
        ((1.05, 1.09), IN_FULL),
        ((0.9, 1.4), NATIVE),
        ((1.3, 1.2), CONTIGUOUS),
    ],
)
def test_a_tiny_batch_is_computed_the_way_that_is_fastest(
    gains: tuple[float, float], fastest: Setting, digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    spec = tiny_spec()
    measured = measuring(*gains)
    for _ in range(2):
        assert cpu_choice.settle(choose(spec), spec, digits, datasets=tmp_path, stop=Stop()) == fastest
    assert len(measured) == 1


def test_what_other_programs_disturbed_says_nothing_of_tiny_batches(
    digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    spec = tiny_spec()
    measured = measuring(0.9, 3.0, is_steady=False)
    for _ in range(2):
        assert cpu_choice.settle(choose(spec), spec, digits, datasets=tmp_path, stop=Stop()) == IN_FULL
    assert len(measured) == 2
    measuring(0.9, 3.0)
    assert cpu_choice.settle(choose(spec), spec, digits, datasets=tmp_path, stop=Stop()) == NATIVE


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 16},
        {"deterministic": True},
        {"channels_last": True},
        {"channels_last": False},
        {"compile": True},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_any_other_job_has_onednn_unmeasured(changes: dict[str, Any]) -> None:
    spec = tiny_spec(**{"precision": "fp32", **changes})
    setting = choose(spec)
    assert ways_to_compute(setting, spec, image_size=32) == [setting]
    assert setting.onednn


def test_a_batch_is_tiny_by_its_pixels() -> None:
    spec = tiny_spec()
    ways = [len(ways_to_compute(choose(spec), spec, image_size=size)) for size in (8, 32, 45, 46, 224)]
    assert ways == [3, 3, 3, 1, 1]


@pytest.mark.parametrize("began", [IN_FULL, CONTIGUOUS, NATIVE], ids=lambda setting: setting.in_words)
def test_a_job_with_tiny_batches_goes_on_as_it_began(
    began: Setting, digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    measured, spec = measuring(9.0, 9.0), tiny_spec()
    before = json.loads(json.dumps(began.describe()))
    assert cpu_choice.settle(choose(spec), spec, digits, datasets=tmp_path, stop=Stop(), before=before) == began
    assert measured == []


def test_a_job_with_tiny_batches_of_an_earlier_version_goes_on_with_onednn(
    digits: Dataset, tmp_path: Path, measuring: Measuring
) -> None:
    measuring(9.0, 9.0)
    spec = tiny_spec()
    before = {"precision": "fp32"}
    assert cpu_choice.settle(choose(spec), spec, digits, datasets=tmp_path, stop=Stop(), before=before) == IN_FULL


def test_steps_without_onednn_learn_the_same_and_an_evaluation_has_it(digits: Dataset) -> None:
    """The kernels round differently, and nothing else: after some steps the weights are equal but for that."""
    spec = tiny_spec()
    plain, native = (Engine(spec, digits, setting) for setting in (IN_FULL, NATIVE))
    take(plain, 3)
    assert torch.backends.mkldnn.enabled
    take(native, 3)
    assert not torch.backends.mkldnn.enabled
    for ours, theirs in zip(native.model.parameters(), plain.model.parameters(), strict=True):
        assert ours.is_contiguous()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    judged = evaluate(native, Stop())
    assert torch.backends.mkldnn.enabled
    torch.testing.assert_close(judged.logits, evaluate(plain, Stop()).logits, rtol=1e-3, atol=1e-3)
