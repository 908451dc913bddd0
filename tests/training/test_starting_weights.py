"""model.init, freeze_epochs and backbone_lr: what is taken of other weights, and what is trained of a network."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (
    assert_identical,
    digits,  # noqa: F401 - a fixture
    engine_of,
    make_spec,
    of_size,
    ordinary_kernels,  # noqa: F401 - a fixture
    take,
    weights,
)
from own_code import spec_with
from quick import quick_spec
from safetensors.torch import save_file

from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import checkpoint, starting_weights
from pipeline.training.attempt import Attempt
from pipeline.training.engine import Engine
from pipeline.training.features import last_layer

SMALL = {"name": "vgg", "widths": [4, "M", 8]}


def execute(home: Home, job_id: str, spec: Spec) -> tuple[Result, list[str]]:
    lines: list[str] = []
    frozen.save(home.run(job_id), spec)
    return Attempt(home, job_id, 1, Stop(), lines.append).execute(), lines


def job(name: str, model: dict[str, Any] | None = None, **more: Any) -> Spec:
    return quick_spec(name, model={**SMALL, **(model or {})}, **more)


@pytest.fixture
def first(home: Home) -> Path:
    """The best weights of a run that is called `first`."""
    assert execute(home, "first", job("first", epochs=2))[0].outcome == "succeeded"
    return home.run("first").best


def test_a_job_begins_with_the_best_weights_of_a_run(home: Home, first: Path) -> None:
    result, lines = execute(home, "second", job("second", {"init": "first"}, train={"optimizer": {"lr": 1e-9}}))
    assert result.outcome == "succeeded", result.why
    told = next(line for line in lines if "begins with" in line)
    assert f"of {first}" in told
    before, after = (torch.load(run, weights_only=True)["model"] for run in (first, home.run("second").last))
    learned = [name for name in before if "running" not in name and "num_batches" not in name]
    for name in learned:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-5)
    begun = json.loads(home.run("second").manifest.read_text())["begun_with"]
    assert begun == {
        "file": str(first),
        "sha256": hashlib.sha256(first.read_bytes()).hexdigest(),
        "tensors": len(before),
    }


@pytest.mark.parametrize("kind", [".pt", ".safetensors", "of others.pt"])
def test_a_file_of_weights_will_do(home: Home, first: Path, tmp_path: Path, kind: str) -> None:
    state = checkpoint.load(first)
    assert state is not None
    file = tmp_path / f"weights{kind}"
    if kind == ".safetensors":
        save_file({name: value.contiguous() for name, value in state["model"].items()}, file)
    else:
        torch.save({"state_dict": state["model"]} if kind == "of others.pt" else state["model"], file)
    result, lines = execute(home, "second", job("second", {"init": str(file)}))
    assert result.outcome == "succeeded", result.why
    assert f"begins with {len(state['model'])} of {len(state['model'])} tensors" in "\n".join(lines)


def test_a_folder_may_be_called_as_those_of_runs_are(home: Home, first: Path, tmp_path: Path) -> None:
    """As that of torch.hub is."""
    state = checkpoint.load(first)
    assert state is not None
    file = tmp_path / "hub" / "checkpoints" / "weights.pth"
    file.parent.mkdir(parents=True)
    torch.save(state["model"], file)
    result, _ = execute(home, "second", job("second", {"init": str(file)}))
    assert result.outcome == "succeeded", result.why


def test_a_backbone_that_has_learned_nothing_is_told_of(home: Home) -> None:
    _, lines = execute(home, "job", job("job", {"freeze_epochs": 1}))
    assert "keeps a backbone that has learned nothing" in "\n".join(lines)


def test_what_does_not_fit_is_told_and_stays_as_it_was_made(home: Home, first: Path) -> None:
    assert first.is_file()
    wider = {"widths": [4, "M", 16], "init": "first"}
    result, lines = execute(home, "second", job("second", wider))
    assert result.outcome == "succeeded", result.why
    told = next(line for line in lines if "as it was made" in line)
    assert "(16, 4, 3, 3) (there (8, 4, 3, 3))" in told


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("nobody", "model.init: nobody: no run's id begins so; a file is given with its whole path"),
        ("~no-such-user/weights.pt", "model.init: ~no-such-user/weights.pt: "),
        ("/nowhere/weights.pt", "model.init: there is no file /nowhere/weights.pt"),
        ("{tmp}/text.pt", "cannot be read"),
        ("{tmp}/empty.pt", "holds no weights"),
        ("{tmp}/other.pt", "fits this model"),
        ("{tmp}/text.safetensors", "cannot be read"),
    ],
)
def test_what_is_no_weights_for_the_model_fails_the_job(home: Home, tmp_path: Path, init: str, said: str) -> None:
    (tmp_path / "text.pt").write_text("none")
    (tmp_path / "text.safetensors").write_text("none")
    torch.save({"a": 3}, tmp_path / "empty.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    result, _ = execute(home, "second", job("second", {"init": init.format(tmp=tmp_path)}))
    assert result.outcome == "failed"
    assert said in result.why


def test_a_frozen_backbone_learns_nothing_and_then_it_does(digits: Dataset) -> None:
    model = {"name": "vgg", "widths": [4, "M", 8], "batch_norm": True, "freeze_epochs": 1}
    engine = engine_of(make_spec(model, {"batch_size": 300}, train={"epochs": 2}), digits)
    head = {f"{name}.{part}" for name, module in engine.model.named_modules() for part in ("weight", "bias")
            if module is last_layer(engine.model)}  # fmt: skip
    at_first = weights(engine)
    take(engine, engine.steps_per_epoch)
    frozen_for_an_epoch = weights(engine)
    changed = {name for name, value in frozen_for_an_epoch.items() if not torch.equal(value, at_first[name])}
    assert changed == head
    engine.end_epoch()
    take(engine, 1)
    later = weights(engine)
    assert {name for name, value in later.items() if not torch.equal(value, at_first[name])} > head


def test_the_backbone_may_have_a_rate_of_its_own(digits: Dataset) -> None:
    ends = {}
    for scale in (1.0, 1e-6):
        train = {"optimizer": {"name": "sgd", "lr": 0.1}, "precision": "fp32"}
        engine = engine_of(make_spec({**SMALL, "backbone_lr": scale}, train=train), digits)
        before = weights(engine)
        take(engine, 2)
        ends[scale] = {name: float((value - before[name]).abs().max()) for name, value in weights(engine).items()}
    names = [name for name in ends[1.0] if name.endswith("weight")]
    assert ends[1e-6][names[0]] < 1e-3 * ends[1.0][names[0]]
    assert ends[1e-6][names[-1]] > 0.1 * ends[1.0][names[-1]]


# What a network computes from training images

LEARNS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, channels, image_size):
        super().__init__()
        self.register_buffer("seen", torch.zeros(channels, image_size, image_size))
        self.fc = nn.Linear(channels * image_size**2, num_classes)
        self.fc.bias.requires_grad_(False)

    def initialize_from_images(self, images):
        print("given", *images.shape, images.dtype, torch.is_grad_enabled())
        self.seen.copy_(images.mean(0))
        self.fc.bias.fill_(3.0)

    def forward(self, images):
        return self.fc((images - self.seen).flatten(1))
"""


def own(root: Path, code: str = LEARNS, **model: Any) -> Spec:
    return spec_with(root, {"mine.py": code}, model={"name": "mine:Net", **model})


def test_a_network_is_given_training_images_when_a_job_begins_and_never_again(
    home: Home, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    num = len(digits.train)
    given = f"given {num} 1 8 8 torch.float32 False"
    result, lines = execute(home, "job", own(tmp_path))
    assert result.outcome == "succeeded", result.why
    assert capsys.readouterr().out.split("\n") == ["given 2 1 8 8 torch.float32 False", given, ""]  # it is rehearsed
    assert f"begins with what the network computes from {num:,} training images" in "\n".join(lines)
    state = checkpoint.load(home.run("job").last)
    assert state is not None
    mean = digits.normalization.tensors()
    pixels = (digits.train.read(range(num)).permute(0, 3, 1, 2) / 255 - mean[0]) / mean[1]
    torch.testing.assert_close(state["model"]["seen"], pixels.mean(0), rtol=0, atol=1e-5)
    assert torch.equal(state["model"]["fc.bias"], torch.full((10,), 3.0)), "it is not trained"

    again: list[str] = []
    assert Attempt(home, "job", 2, Stop(), again.append).execute().outcome == "succeeded"
    assert any("resumed at step" in line for line in again)
    assert capsys.readouterr().out.split("\n") == ["given 2 1 8 8 torch.float32 False", ""]


def test_the_weights_of_a_run_override_what_the_network_computes(home: Home, tmp_path: Path) -> None:
    assert execute(home, "first", own(tmp_path))[0].outcome == "succeeded"
    other = LEARNS.replace("fill_(3.0)", "fill_(5.0)")
    result, lines = execute(home, "second", own(tmp_path, other, init="first"))
    assert result.outcome == "succeeded", result.why
    state = checkpoint.load(home.run("second").last)
    assert state is not None
    assert torch.equal(state["model"]["fc.bias"], torch.full((10,), 3.0))
    computed, taken = (at for at, line in enumerate(lines) if "begins with" in line)
    assert "computes" in lines[computed]
    assert "tensors of" in lines[taken]


@pytest.mark.parametrize("num", ["2", "1437"])
def test_an_error_in_such_a_method_is_told_as_the_users_own(
    home: Home, digits: Dataset, tmp_path: Path, num: str
) -> None:
    """In the rehearsal, or with the images themselves."""
    assert len(digits.train) == 1437
    code = LEARNS.replace(
        "self.seen.copy_(", f"if len(images) == {num}: raise OSError('none')\n        self.seen.copy_("
    )
    result, _ = execute(home, "job", own(tmp_path, code))
    assert result.outcome == "invalid"
    assert result.why == (
        f"modules/mine.py:15: in Net.initialize_from_images: given training images of ({num}, 1, 8, 8): OSError: none"
    )


def images_of(num: int, size: int) -> Dataset:
    """Each image has a colour of its own; they lie in the order of their classes."""
    colours = torch.arange(num, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, size, size, 3).contiguous()
    split = Split(colours, torch.arange(num) // (num // 2))
    return Dataset(split, split, ("a", "b"), "0" * 64, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0), ())


def test_the_images_are_drawn_from_all_classes_by_the_seed() -> None:
    dataset = images_of(200, 400)
    drawn = [starting_weights.some_images(dataset, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].shape == (32, 3, 400, 400), "as many values as 5,000 images of 32 pixels have"
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    levels = (255 * drawn[0][:, 2, 0, 0]).round()
    assert len(levels.unique()) == 32
    assert 5 < (levels >= 100).sum() < 27
    torch.testing.assert_close(drawn[0][:, 0, 0, 0], (levels / 255 - 0.5) / 0.5)
    torch.testing.assert_close(drawn[0][:, 1, 0, 0], (levels / 255 - 0.25) / 0.25)


AIRNET = {"name": "airnet", "width": 8}


def whitened(digits: Dataset, home: Home, **model: Any) -> Engine:
    """An engine as a job with this model begins."""
    dataset = of_size(digits, 9)
    spec = make_spec({**AIRNET, **model}, {"image_size": 9, "batch_size": 300}, train={"epochs": 2})
    engine = engine_of(spec, dataset)
    starting_weights.begin(spec, engine.model, dataset, home, log=str)
    return engine


@pytest.mark.parametrize("freeze_epochs", [0, 1])
def test_what_is_not_trained_never_is(digits: Dataset, home: Home, freeze_epochs: int) -> None:
    engine = whitened(digits, home, freeze_epochs=freeze_epochs)
    fixed = {name for name, parameter in engine.model.named_parameters() if not parameter.requires_grad}
    assert len(fixed) == 7
    at_first = weights(engine)
    for _ in range(2):
        take(engine, engine.steps_per_epoch)
        engine.end_epoch()
    later = weights(engine)
    names = {name for name, _ in engine.model.named_parameters()}
    assert {name for name in names if torch.equal(later[name], at_first[name])} == fixed
    assert {name for name, parameter in engine.model.named_parameters() if parameter.grad is None} == fixed


def test_a_training_with_fixed_weights_goes_on_bit_for_bit(digits: Dataset, home: Home) -> None:
    engine = whitened(digits, home)
    take(engine, 3)
    resumed = engine_of(engine.spec, engine.dataset)
    resumed.load_state_dict(copy.deepcopy(engine.state_dict()))
    for each in (engine, resumed):
        take(each, 2)
    assert_identical(weights(resumed), weights(engine))


def test_steps_of_few_bits_begin_by_the_weights_that_were_computed(digits: Dataset, home: Home) -> None:
    engine = whitened(digits, home, quantize={"weights": {"scheme": "lsq", "bits": 4}, "skip": []})
    layer = engine.model.get_submodule("features.whiten")
    expected = 2 * layer.weight.abs().mean() / 7**0.5
    torch.testing.assert_close(layer.weight_quantizer.step, expected)
    before = layer.weight.clone()
    take(engine, 2)
    assert torch.equal(layer.weight, before)
    assert not torch.equal(layer.weight_quantizer.step, expected), "it is trained"
