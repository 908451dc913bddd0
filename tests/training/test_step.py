"""One training step: the gradient of its batches, in every precision, and the norm of that gradient."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    assert_identical,
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    take,
    weights,
)

from pipeline.data.dataset import Dataset
from pipeline.data.loader import Batch
from pipeline.jobfile import catalog
from pipeline.training.engine import Engine
from pipeline.training.job_dataset import load_dataset
from pipeline.training.loop import take_steps
from pipeline.training.step import EagerStep, Step


def test_accumulated_batches_make_the_step_of_one_large_batch(digits: Dataset) -> None:
    """Without batch norm, whose statistics are of each batch."""
    model = {"name": "vgg", "widths": [8, "M", 16]}
    ends = []
    for batch_size, accumulate in ((120, 1), (40, 3)):
        spec = make_spec(model, {"batch_size": batch_size}, train={"accumulate": accumulate, "precision": "fp32"})
        engine = engine_of(spec, digits)
        take(engine, 4)
        assert engine.step == 4
        ends.append(weights(engine))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_a_step_is_that_of_a_plain_pytorch_loop(digits: Dataset) -> None:
    spec = make_spec(train={"precision": "fp32", "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-3}})
    engine = engine_of(spec, digits)
    plain = copy.deepcopy(engine.model)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    batches = list(engine.loader.epoch(0))[:3]
    for images, labels in batches:
        sgd.zero_grad()
        F.cross_entropy(plain(images), labels).backward()
        sgd.step()
    take(engine, 3)
    torch.testing.assert_close(engine.model.state_dict(), plain.state_dict())


@pytest.mark.parametrize("name", catalog.MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_model_trains_in_every_precision(
    name: str, precision: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = make_spec({"name": name}, {"image_size": 32}, train={"precision": precision})
    resized = load_dataset(spec, tmp_path_factory.getbasetemp(), log=print)
    engine = engine_of(spec, resized)
    before = weights(engine)
    take(engine, 2)
    engine.means.fold()
    moved = [key for key, value in weights(engine).items() if not torch.equal(value, before[key])]
    trained = {name: parameter.requires_grad for name, parameter in engine.model.named_parameters()}
    assert all(is_trained == (name in moved) for name, is_trained in trained.items())


@pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="torch.compile needs a C compiler"
)
def test_a_compiled_model_trains_and_its_checkpoint_is_the_plain_model_s(digits: Dataset) -> None:
    model = {"name": "vgg", "widths": [4]}
    plain = engine_of(make_spec(model, train={"precision": "fp32"}), digits)
    compiled = engine_of(make_spec(model, train={"precision": "fp32", "compile": True}), digits)
    for engine in (plain, compiled):
        take(engine, 2)
    torch.testing.assert_close(compiled.state_dict()["model"], plain.state_dict()["model"], rtol=1e-4, atol=1e-5)


def test_half_precision_scales_its_loss_and_goes_on_from_its_scale(digits: Dataset) -> None:
    spec = make_spec(train={"precision": "fp16", "clip_grad_norm": 1.0})
    engine = engine_of(spec, digits)
    take(engine, 2)
    resumed = engine_of(spec, digits)
    resumed.load_state_dict(engine.state_dict())
    assert resumed.scaler.get_scale() == engine.scaler.get_scale() > 1


def norm(engine: Engine) -> float:
    gradients = [parameter.grad.double() for parameter in engine.model.parameters() if parameter.grad is not None]
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05), ("fp16", 0.05)])
def test_the_gradient_norm_is_that_of_all_gradients(precision: str, tolerance: float, digits: Dataset) -> None:
    """Not of what a scaler has made of them: of the first step, it is the same in each precision."""
    exact = engine_of(make_spec(train={"precision": "fp32", "accumulate": 2}), digits)
    engine = engine_of(make_spec(train={"precision": precision, "accumulate": 2}), digits)
    take(exact, 1)
    assert take(engine, 1).gradient_norm() == pytest.approx(norm(exact), rel=tolerance)


def test_the_gradient_norm_is_that_before_clipping(digits: Dataset) -> None:
    plain = engine_of(make_spec(train={"precision": "fp32"}), digits)
    clipped = engine_of(make_spec(train={"precision": "fp32", "clip_grad_norm": 0.01}), digits)
    take(plain, 1)
    step = take(clipped, 1)
    assert norm(clipped) == pytest.approx(0.01, rel=1e-3)
    assert step.gradient_norm() == pytest.approx(norm(plain), rel=1e-5)


def test_another_step_can_stand_in_the_place_of_the_eager_one(digits: Dataset) -> None:
    """The loop gives a step its batches, how many they are and the learning rate, and takes the number of images."""
    engine = engine_of(make_spec(train={"accumulate": 10, "schedule": {"name": "one_cycle"}}), digits)
    given: list[tuple[list[int], int, float]] = []

    class Idle(EagerStep):
        def __call__(self, batches: Iterable[Batch], *, num_batches: int, lr: float) -> int:
            sizes = [len(labels) for _, labels in batches]
            given.append((sizes, num_batches, lr))
            return sum(sizes)

    idle: Step = Idle(engine)
    before = weights(engine)
    assert list(take_steps(engine, idle)) == [1, 2, 3]
    sizes = ([64] * 10, [64] * 10, [64, 64, 29])
    assert given == [(size, len(size), engine.schedule(step)) for step, size in enumerate(sizes)]
    assert (engine.num_images, engine.batch, engine.is_epoch_trained) == (1437, 23, True)
    assert_identical(weights(engine), before)
