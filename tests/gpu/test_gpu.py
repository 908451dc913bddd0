"""Jobs on a GPU, from end to end; all skip without one. `make gpu` runs these, and measures."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_images import FILL, random_images, smooth_images
from in_process import assert_identical, digits, make_spec, weights  # noqa: F401 - digits is a fixture
from PIL import Image
from quick import EVERYTHING_SHOWN, quick_spec

from pipeline.data import loader as loaders
from pipeline.data.dataset import Dataset
from pipeline.data.draws import EpochDraws
from pipeline.home import durable
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Result
from pipeline.jobfile import catalog, frozen
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import captured_step, checkpoint, device, loop
from pipeline.training.attempt import Attempt
from pipeline.training.captured_forward import CapturedForward
from pipeline.training.engine import Engine
from pipeline.training.evaluation import evaluate
from pipeline.training.step import EagerStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
GPU = {"device": "cuda"}
Pipeline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def ordinary_kernels() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def attempt_of(home: Home, spec: Spec, name: str = "job") -> tuple[Result, list[str]]:
    """Trains a job in this process; its result, and the lines of its log."""
    lines: list[str] = []
    frozen.save(home.run(name), spec)
    return Attempt(home, name, 1, Stop(), lines.append).execute(), lines


def engine_on(on: str, digits: Dataset, spec: Spec) -> Engine:
    """The same job on one device or the other."""
    value = spec.model_dump(mode="json") | {"resources": {"device": on}}
    spec = Spec.model_validate_json(durable.to_json(value))
    return Engine(spec, digits, device.choose(spec))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_a_job_trains_in_every_precision_with_every_optimizer_and_shows_everything(
    precision: str, name: str, home: Home
) -> None:
    train = {"epochs": 3, "precision": precision, "optimizer": {"name": name, "lr": 3e-3}, "deterministic": False}
    result, lines = attempt_of(home, quick_spec(train=train, log=EVERYTHING_SHOWN, resources=GPU))
    assert result.outcome == "succeeded", lines
    assert result.metrics["test/accuracy"] > 0.5
    assert not [line for line in lines if "cannot be shown" in line]
    manifest = durable.read_json(home.run("job").manifest)
    assert manifest is not None
    assert manifest["attempts"][0]["computes"]["device"].startswith("cuda")
    assert list((home.run("job").root / "profile").glob("*.gz"))


def test_a_checkpoint_of_a_gpu_goes_on_on_a_cpu_and_the_other_way_round(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(train={"deterministic": False})
    run = RunPaths(tmp_path)
    for here, there in (("cuda", "cpu"), ("cpu", "cuda")):
        trained = engine_on(here, digits, spec)
        for _ in zip(range(3), loop.take_steps(trained, EagerStep(trained)), strict=False):
            pass
        checkpoint.save(run, trained.state_dict())
        state = checkpoint.load(run.last)
        assert state is not None
        again = engine_on(there, digits, spec)
        again.load_state_dict(state)
        for _ in loop.take_steps(again, EagerStep(again)):
            pass
        assert again.is_epoch_trained


CAPTURED = [
    *itertools.product(
        ["fp32", "bf16", "fp16"],
        ["sgd", "adamw"],
        [{}, {"accumulate": 3, "clip_grad_norm": 0.5}, {"mixup": 0.4, "cutmix": 1.0}],
    ),
    ("bf16", "sgd", {"compile": True}),
    *itertools.product(["fp32", "bf16", "fp16"], ["muon"], [{}]),
    ("bf16", "sgd", {"lookahead": {"every": 2}}),
    ("bf16", "muon", {"ema": {"decay": 0.9}}),
]


@pytest.mark.parametrize(("precision", "name", "more"), CAPTURED, ids=str)
def test_a_captured_training_is_the_eager_one_bit_for_bit(
    precision: str, name: str, more: dict[str, Any], digits: Dataset
) -> None:
    train = {"precision": precision, "optimizer": {"name": name, "lr": 3e-3}, "schedule": {"name": "one_cycle"}, **more}
    model = {"name": "vgg", "widths": [16, "M", 32], "batch_norm": True, "dropout": 0.5}
    found = []
    for is_captured in (False, True):
        spec = make_spec(model, train={"deterministic": True, "epochs": 3, "capture": is_captured, **train})
        device.make_deterministic()
        trained = engine_on("cuda", digits, spec)
        step = captured_step.choose(trained, log=pytest.fail)
        assert isinstance(step, captured_step.CapturedStep) is is_captured
        for _ in range(2):
            for _ in loop.take_steps(trained, step):
                pass
            means, norm = trained.means.read_epoch(num_images=trained.loader.num_images), step.gradient_norm()
            evaluation = evaluate(trained, Stop())
            trained.end_epoch()
        found.append((weights(trained), means, norm, evaluation))
    (ours, our_means, our_norm, evaluation), (theirs, their_means, their_norm, captured_evaluation) = found
    assert_identical(ours, theirs)
    assert (our_means, our_norm) == (their_means, their_norm)
    assert torch.equal(evaluation.logits, captured_evaluation.logits)
    assert isinstance(trained.forward, CapturedForward)
    assert trained.forward._replay is not None


def test_a_step_that_cannot_be_captured_goes_on_as_an_eager_one(digits: Dataset) -> None:
    """Its error comes in the middle of the recording, and drop-out is drawn after it."""
    found, lines = [], list[str]()
    for is_captured in (False, True):
        model = {"name": "vgg", "widths": [16, "M", 32], "batch_norm": True, "dropout": 0.5}
        capture = "auto" if is_captured else False
        spec = make_spec(model, train={"deterministic": True, "epochs": 3, "precision": "bf16", "capture": capture})
        device.make_deterministic()
        trained = engine_on("cuda", digits, spec)
        trained.model.get_submodule("features").register_forward_hook(
            lambda _, __, values: values.sum().item() and None
        )
        stream, step = torch.cuda.current_stream(), captured_step.choose(trained, log=lines.append)
        for _ in loop.take_steps(trained, step):
            pass
        assert torch.cuda.current_stream() == stream
        found.append(weights(trained))
    assert_identical(*found)
    assert len(lines) == 1
    assert "cannot be captured as a CUDA graph" in lines[0]


def test_a_model_of_a_gpu_predicts_on_a_cpu(home: Home, digits: Dataset, pipeline: Pipeline, tmp_path: Path) -> None:
    result, lines = attempt_of(home, quick_spec(epochs=5, resources=GPU))
    assert result.outcome == "succeeded", lines
    Image.fromarray(digits.test.read([0])[0, :, :, 0].numpy()).save(tmp_path / "digit.png")
    done = pipeline("predict", "job", tmp_path / "digit.png")
    assert done.returncode == 0, done.stderr
    assert str(int(digits.test.labels[0])) in done.stdout


def test_images_that_do_not_fit_the_gpu_give_the_same_batches(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(data={"augment": ["flip", {"name": "crop", "padding": 1}]})
    fitting = list(engine_on("cuda", digits, spec).loader.epoch(1))
    monkeypatch.setattr(loaders, "_fits", lambda *_: False)
    monkeypatch.setattr(loaders, "COPIED_VALUES", 8 * 8 * 64 * 3)
    copied = list(engine_on("cuda", digits, spec).loader.epoch(1))
    for (images, labels), (expected, expected_labels) in zip(copied, fitting, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "otherwise"),
    [
        *((name, {}) for name in catalog.AUGMENTATIONS),
        ("crop", {"padding_mode": "reflect"}),
        ("flip", {"alternate": True}),
    ],
)
def test_every_augmentation_has_the_bits_of_the_cpu(name: str, otherwise: dict[str, Any], channels: int) -> None:
    entry = catalog.AUGMENTATIONS[name]
    options = {option: field.default for option, (_, field) in entry.options.items()} | otherwise
    images = torch.cat((random_images(300, 28, 28, channels), smooth_images(300, 28, 28, channels)))
    ours, theirs = (
        entry.load()(
            images.to(on), draws=EpochDraws((0, 0, 0), 600, on).of(0, 600), fill=FILL[:channels].to(on), **options
        ).cpu()
        for on in (torch.device("cuda", 0), torch.device("cpu"))
    )
    assert torch.equal(ours, theirs)


def test_a_job_that_does_not_fit_says_what_helps(home: Home) -> None:
    with contextlib.ExitStack() as stack:
        torch.cuda.set_per_process_memory_fraction(0.01)
        stack.callback(torch.cuda.set_per_process_memory_fraction, 1.0)
        data = {"batch_size": 1437, "image_size": 128}
        result, _ = attempt_of(home, quick_spec(data=data, model={"name": "vgg", "depth": 16}, resources=GPU))
    assert result.outcome == "failed"
    assert "out of memory" in result.why
    assert "data.batch_size" in result.why


def test_a_gpu_is_opened_before_pytorch_asks_for_it() -> None:
    """In a process of its own, in which nobody has used the GPU."""
    code = """
import ctypes
import torch
from pipeline.training.gpu_driver import open_early

open_early("auto").join()
driver, flags, is_active = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint(), ctypes.c_int()
assert driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(is_active)) == 0
assert is_active.value == 1 and not torch.cuda.is_initialized()
assert torch.ones(2, device="cuda").sum().item() == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)
