"""Checkpoints of the version whose layers before batch norm had a bias: what they compute, and going on from them."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import digits, engine_of, make_spec, ordinary_kernels, take  # noqa: F401 - two are fixtures
from quick import quick_spec
from safetensors.torch import save_file
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.errors import CheckpointError
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.models.cnn_bn import CnnBn
from pipeline.models.vgg import Vgg
from pipeline.results.classifier import load
from pipeline.stop import Stop
from pipeline.training import checkpoint, older_checkpoints, parameter_groups, parts, weight_average
from pipeline.training.attempt import Attempt
from pipeline.training.engine import Engine

SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
ADAMW = {"name": "adamw", "lr": 3e-3}
VGG = {"name": "vgg", "widths": [4, "M", 8, 8, "M"], "batch_norm": True}
FEW_BITS = {"weights": {"bits": 4, "per": "channel"}}
Pipeline = Callable[..., subprocess.CompletedProcess[str]]


class OldCnnBn(nn.Module):
    """`CnnBn` as it was: each layer has a bias, and ReLU comes before max pooling."""

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, width) in enumerate(((channels, 32), (32, 32), (32, 64), (64, 64)), 1):
            layers[f"conv{number}"] = nn.Conv2d(before, width, 3, padding=1)
            layers[f"bn{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{number}"] = nn.ReLU()
            if number % 2 == 0:
                layers[f"pool{number // 2}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        hidden = nn.Linear(64 * (image_size // 4) ** 2, 512)
        self.classifier = nn.Sequential(
            OrderedDict(fc1=hidden, bn1=nn.BatchNorm1d(512), relu1=nn.ReLU(), fc2=nn.Linear(512, 10))
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(images).flatten(1))
        return logits


class OldVgg(nn.Module):
    """`Vgg` of 4, 8 and 8 channels with batch norm, as it was."""

    def __init__(self, channels: int, image_size: int) -> None:  # noqa: ARG002
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, before, width in (("1_1", channels, 4), ("2_1", 4, 8), ("2_2", 8, 8)):
            layers[f"conv{name}"] = nn.Conv2d(before, width, 3, padding=1)
            layers[f"bn{name}"] = nn.BatchNorm2d(width)
            layers[f"relu{name}"] = nn.ReLU()
            if name != "2_1":
                layers[f"pool{name[0]}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


def old_engine(spec: Spec, dataset: Dataset) -> Engine:
    """An engine of the older version: its network has the old one's layers, with biases that are not 0."""
    engine = engine_of(spec, dataset)
    channels, size = dataset.train.channels, dataset.train.image_size
    assert isinstance(engine.model, (CnnBn, Vgg))
    old = OldCnnBn(channels, size) if isinstance(engine.model, CnnBn) else OldVgg(channels, size)
    for name, parameter in old.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    if spec.model.quantize is not None:
        parts._quantize(old, spec.model)
    old.to(memory_format=engine.setting.memory_format)
    engine.model, engine.network, engine.average = old, old, weight_average.of(spec, old)
    engine.trained = list(old.parameters())
    engine.optimizer = parts.build_optimizer(spec, parameter_groups.of(old, spec), fused=engine.setting.fused)
    return engine


def states_of(new: Engine, parameter: nn.Parameter, old: Engine, same: nn.Parameter) -> list[tuple[Any, Any]]:
    """Pairs what the optimizers of two engines keep of a parameter."""
    ours, theirs = new.optimizer.state[parameter], old.optimizer.state[same]
    assert ours.keys() == theirs.keys()
    return [(ours[key], theirs[key]) for key in ours]


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize(
    "model",
    [
        {"name": "cnn_bn"},
        {"name": "cnn_bn", "quantize": FEW_BITS},
        {"name": "cnn_bn", "backbone_lr": 0.5},
        VGG,
        {**VGG, "freeze_epochs": 1},
    ],
    ids=["cnn_bn", "few-bits", "two-groups", "vgg", "frozen"],
)
def test_an_old_checkpoint_computes_the_same_and_its_training_goes_on_alike(
    model: dict[str, Any], optimizer: dict[str, Any], digits: Dataset
) -> None:
    """What the optimizer knows of each parameter is taken exactly, and a further step is the same but for rounding.

    In float64 the gradients differ by 1e-14. In float32 a ReLU may open by the last bit of a sum, and with it all
    pixels of a flat background, of which digits have much: hence the bounds.
    """
    spec = make_spec(model, train={"optimizer": optimizer, "precision": "fp32"})
    old, new = old_engine(spec, digits), engine_of(spec, digits)
    lines: list[str] = []
    take(old, 9)
    state = copy.deepcopy(old.state_dict())
    new.load_state_dict(state, log=lines.append)
    assert lines == [older_checkpoints.NOTE]
    assert len(list(new.model.parameters())) < len(list(old.model.parameters()))

    images = torch.rand(64, 1, 8, 8)
    ours, theirs = (copy.deepcopy(engine.model).eval()(images) for engine in (new, old))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

    of_old = dict(old.model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in new.model.named_parameters()}
    for name, parameter in new.model.named_parameters():
        for mine, theirs in states_of(new, parameter, old, of_old[name]):
            assert torch.equal(mine, theirs), name
    take(old, 1)
    take(new, 1)
    assert old.step == new.step == 10
    for name, parameter in new.model.named_parameters():
        changes = (parameter.detach() - before[name], of_old[name].detach() - before[name])
        for mine, theirs in (changes, *states_of(new, parameter, old, of_old[name])):
            assert float((mine - theirs).norm()) <= 0.2 * float(theirs.norm()), name


def test_inputs_of_few_bits_are_rounded_as_before(digits: Dataset) -> None:
    """All but values at the edge between two levels, which the last bit of a sum takes to the one or the other."""
    spec = make_spec({"name": "cnn_bn", "quantize": {**FEW_BITS, "activations": {"bits": 4}}})
    old, new = old_engine(spec, digits), engine_of(spec, digits)
    take(old, 9)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    images = torch.rand(64, 1, 8, 8)
    ours, theirs = (engine.model.eval()(images) for engine in (new, old))
    assert float(torch.isclose(ours, theirs, rtol=1e-4, atol=1e-4).all(1).float().mean()) > 0.8


def test_the_state_that_was_read_is_left_as_it_is(digits: Dataset) -> None:
    spec = make_spec(train={"optimizer": SGD})
    old = old_engine(spec, digits)
    take(old, 2)
    state = copy.deepcopy(old.state_dict())
    engine_of(spec, digits).load_state_dict(state)
    assert state["optimizer"]["param_groups"] == old.optimizer.state_dict()["param_groups"]
    torch.testing.assert_close(state["model"], old.model.state_dict(), rtol=0, atol=0)


def test_what_this_version_has_saved_is_taken_as_it_is(digits: Dataset) -> None:
    engine = engine_of(make_spec(), digits)
    lines: list[str] = []
    state = engine.state_dict()
    assert older_checkpoints.up_to_date(engine.model, state["model"]) is state["model"]
    engine.load_state_dict(state, log=lines.append)
    assert lines == []


def decaying_in_groups(engine: Engine) -> list[dict[str, Any]]:
    """As optimizers of somebody's own often have it: what has one axis does not decay."""
    wide, others = ([p for p in engine.model.parameters() if (p.ndim > 1) == is_wide] for is_wide in (True, False))
    return [{"params": wide, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


def test_an_optimizer_may_have_the_biases_in_any_one_group(digits: Dataset) -> None:
    spec = make_spec(train={"optimizer": SGD, "precision": "fp32"})
    old, new = old_engine(spec, digits), engine_of(spec, digits)
    for engine in (old, new):
        engine.optimizer = parts.build_optimizer(spec, decaying_in_groups(engine), fused=False)
    take(old, 5)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    theirs = dict(old.model.named_parameters())
    for name, parameter in new.model.named_parameters():
        expected = old.optimizer.state[theirs[name]]["momentum_buffer"]
        assert torch.equal(new.optimizer.state[parameter]["momentum_buffer"], expected), name


def test_an_optimizer_that_keeps_its_parameters_in_an_order_of_its_own_is_refused(digits: Dataset) -> None:
    spec = make_spec(train={"optimizer": SGD})
    old, new = old_engine(spec, digits), engine_of(spec, digits)
    for engine in (old, new):
        backwards = reversed(list(engine.model.parameters()))
        engine.optimizer = parts.build_optimizer(spec, backwards, fused=False)
    take(old, 1)
    with pytest.raises(CheckpointError, match="does not keep its parameters in the order of the network"):
        new.load_state_dict(old.state_dict())


@pytest.mark.parametrize(
    "model", [{**VGG, "batch_norm": False}, {**VGG, "widths": [4, "M", 8, "M"]}, {"name": "cnn_bn"}]
)
def test_a_checkpoint_of_neither_version_is_refused_as_before(model: dict[str, Any], digits: Dataset) -> None:
    lines: list[str] = []
    state = old_engine(make_spec(VGG), digits).state_dict()
    with pytest.raises(CheckpointError, match=r"does not fit the model: RuntimeError: Error.* in loading state_dict"):
        engine_of(make_spec(model), digits).load_state_dict(state, log=lines.append)
    assert lines == []


def test_a_network_of_ones_own_is_left_alone() -> None:
    """Nothing says that the layer behind another one in a list is what it is followed by."""
    own = nn.Sequential(OrderedDict(features=nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3))))
    weights = {**own.state_dict(), "features.0.bias": torch.ones(3)}
    assert older_checkpoints.up_to_date(own, weights) is weights


# Whoever reads a checkpoint


def older(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of `cnn_bn` as the older version had them, whose biases were not 0."""
    found = {}
    for name, value in weights.items():
        found[name] = value
        layer, _, number = name.removesuffix(".weight").rpartition(".")
        if name.endswith(".weight") and number in ("conv1", "conv2", "conv3", "conv4", "fc1"):
            found[f"{layer}.{number}.bias"] = torch.randn(len(value))
    for name in list(found):
        if name.endswith("running_mean"):
            of = name.replace(".bn", ".conv" if name.startswith("features") else ".fc").replace("running_mean", "bias")
            found[name] = found[name] + found[of]
    return found


def execute(home: Home, job_id: str, spec: Spec) -> list[str]:
    lines: list[str] = []
    frozen.save(home.run(job_id), spec)
    result = Attempt(home, job_id, 1, Stop(), lines.append).execute()
    assert result.outcome == "succeeded", result.why
    return lines


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Of one epoch on the digits, with the id `old`."""
    home = Home(tmp_path_factory.mktemp("home"))
    execute(home, "old", quick_spec("old"))
    torch.use_deterministic_algorithms(False)
    return home.run("old")


@pytest.fixture
def old(trained: RunPaths, home: Home) -> RunPaths:
    """A copy of it, whose checkpoints are those of the older version."""
    run = home.run("old")
    shutil.copytree(trained.root, run.root)
    state = checkpoint.load(run.last)
    assert state is not None
    checkpoint.save(run, {**state, "model": older(state["model"])}, is_best=True)
    return run


def test_a_trained_model_in_use_is_the_same_and_says_so(trained: RunPaths, old: RunPaths) -> None:
    images = torch.rand(16, 1, 8, 8)
    ours, theirs = load(trained, "last"), load(old, "last")
    torch.testing.assert_close(theirs.logits(images), ours.logits(images), rtol=1e-5, atol=1e-5)
    assert ours.notes == ()
    assert theirs.notes == (f"{old.last}: {older_checkpoints.NOTE}",)


@pytest.mark.parametrize("command", [["predict", "old", "{image}"], ["export-model", "old", "--format", "safetensors"]])
def test_the_commands_that_use_it_say_so(pipeline: Pipeline, old: RunPaths, tmp_path: Path, command: list[str]) -> None:
    from PIL import Image

    image = tmp_path / "image.png"
    Image.new("L", (8, 8), 100).save(image)
    done = pipeline(*(word.format(image=image) for word in command))
    assert done.returncode == 0, done.stderr
    assert f"{old.best}: {older_checkpoints.NOTE}" in done.stderr
    assert "older version" not in done.stdout


@pytest.mark.parametrize("kind", ["run", ".pt", ".safetensors"])
def test_a_job_begins_with_all_of_its_weights(home: Home, old: RunPaths, tmp_path: Path, kind: str) -> None:
    state = checkpoint.load(old.last)
    assert state is not None
    file = old.best if kind == "run" else tmp_path / f"weights{kind}"
    if kind == ".pt":
        torch.save(state["model"], file)
    elif kind == ".safetensors":
        save_file({name: value.contiguous() for name, value in state["model"].items()}, file)
    lines = execute(home, "new", quick_spec("new", model={"init": "old" if kind == "run" else str(file)}))
    num = len(state["model"]) - 5
    assert any(line.endswith(f"{file}: {older_checkpoints.NOTE}") for line in lines)
    assert any(line.endswith(f"begins with {num} of {num} tensors of {file}") for line in lines)
    assert not any("as it was made" in line for line in lines)


def test_the_best_epoch_of_before_is_tested_at_the_end(home: Home) -> None:
    spec = quick_spec("old", epochs=2, data={"val": 0.2})
    execute(home, "old", spec)
    run = home.run("old")
    state = checkpoint.load(run.best)
    assert state is not None
    torch.save({"format": checkpoint.FORMAT, **state, "model": older(state["model"])}, run.best)
    run.result.unlink()
    lines: list[str] = []
    result = Attempt(home, "old", 2, Stop(), lines.append).execute()
    assert result.outcome == "succeeded", result.why
    assert any(line.endswith(f"{run.best}: {older_checkpoints.NOTE}") for line in lines)
