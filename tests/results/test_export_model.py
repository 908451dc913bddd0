"""Models for other programs: every ready model in every format, the check before the file has its name, the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image
from quick import quick_spec
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.errors import PipelineError, UsageError
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import catalog, frozen
from pipeline.results.classifier import Classifier, load
from pipeline.results.export_model import check, destination, export, sample_images
from pipeline.results.model_formats import FORMATS, OPSET, as_text, facts
from pipeline.stop import Stop
from pipeline.training import checkpoint, device, manifest
from pipeline.training.attempt import Attempt
from pipeline.training.engine import Engine

Pipeline = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]

SMALL_VGG = {"name": "vgg", "widths": [8, "M", 16], "batch_norm": True, "dropout": 0.5}
MODELS = {
    "net-smallest": ({"name": "net"}, 1, 16),
    "net-odd": ({"name": "net"}, 3, 19),
    "cnn_bn-smallest": ({"name": "cnn_bn"}, 1, 4),
    "cnn_bn-odd": ({"name": "cnn_bn"}, 3, 13),
    "vgg11": ({"name": "vgg", "batch_norm": True, "dropout": 0.5}, 3, 32),
    "vgg-plain-odd": ({"name": "vgg", "widths": [8, "M", 16]}, 1, 5),
    "resnet9-smallest": ({"name": "resnet9", "width": 8}, 3, 8),
    "resnet18-odd": ({"name": "resnet18", "width": 8}, 1, 9),
    "airnet-smallest": ({"name": "airnet", "width": 8}, 3, 9),
    "airnet-odd": ({"name": "airnet", "width": 8}, 1, 19),
}


def make_run(root: Path, model: dict[str, Any], channels: int = 1, image_size: int = 8, seed: int = 0) -> RunPaths:
    """What a short training leaves: checkpoints, spec, manifest; of random images in seven classes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (32, image_size, image_size, channels), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(32) % 7)
    classes = tuple(f"class {letter} ü" for letter in "abcdefg")
    source = Dataset(split, split, classes, "0" * 64, (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels], ())
    spec = quick_spec(
        model=model,
        data={"image_size": image_size},
        train={"deterministic": False, "precision": "fp32", "seed": seed},
    )
    setting, run = device.choose(spec), RunPaths(root)
    engine = Engine(spec, source, setting)
    engine.model.train()
    with torch.no_grad():
        for batch, _ in engine.loader.epoch(0):
            engine.model(batch)  # so that batch norm has something to keep
    frozen.save(run, spec)
    checkpoint.save(run, {**engine.state_dict(), "metrics": {"test/accuracy": 0.5}}, is_best=True)
    manifest.write(run, spec, source, setting, job_id="job", attempt=1)
    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load(make_run(tmp_path_factory.mktemp("runs") / "small", SMALL_VGG))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """The same network with other weights."""
    return load(make_run(tmp_path_factory.mktemp("runs") / "small", SMALL_VGG, seed=1))


@pytest.mark.parametrize("name", MODELS)
def test_every_ready_model_is_exported_in_every_format_and_its_check_passes(name: str, tmp_path: Path) -> None:
    model, channels, image_size = MODELS[name]
    run = make_run(tmp_path / "run", model, channels, image_size)
    for format_ in FORMATS:
        path = destination(run, format_, None)
        assert "8 sample images" in export(load(run), format_, path)
        assert path.stat().st_size > 1000
    assert {path.name for path in run.root.iterdir() if "model" in path.name} == {
        "model.safetensors",
        "model.onnx",
        "model.pt2",
    }


def test_the_ready_models_are_all_among_those() -> None:
    assert {model["name"] for model, _, _ in MODELS.values()} >= catalog.MODELS.keys()


@pytest.mark.parametrize("format_", FORMATS)
def test_the_metadata_says_what_one_must_know(format_: str, small: Classifier, tmp_path: Path) -> None:
    path = tmp_path / f"model{FORMATS[format_].suffix}"
    export(small, format_, path)
    told = FORMATS[format_].load(path, small).metadata
    assert told == as_text(facts(small))
    assert json.loads(told["classes"])[2] == "class c ü"
    assert json.loads(told["model"])["widths"] == [8, "M", 16]
    assert {key: told[key] for key in ("job_id", "checkpoint", "channels", "image_size", "test_accuracy")} == {
        "job_id": "small",
        "checkpoint": "best",
        "channels": "1",
        "image_size": "8",
        "test_accuracy": "0.5",
    }
    assert (json.loads(told["mean"]), json.loads(told["std"])) == ([0.4], [0.2])


@pytest.mark.parametrize("format_", ["onnx", "torch-export"])
def test_a_file_names_no_place_on_this_machine(format_: str, small: Classifier, tmp_path: Path) -> None:
    path = tmp_path / f"model{FORMATS[format_].suffix}"
    export(small, format_, path)
    assert str(ROOT).encode() not in path.read_bytes()


def test_onnx_has_one_file_named_tensors_and_a_free_batch(small: Classifier, tmp_path: Path) -> None:
    import onnx

    export(small, "onnx", tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    ((images,), (logits,)) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    for tensor, rest in ((images, [1, 8, 8]), (logits, [7])):
        first, *others = tensor.type.tensor_type.shape.dim
        assert first.dim_param
        assert [each.dim_value for each in others] == rest
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [each.version for each in model.opset_import] == [OPSET]


# The check


@pytest.mark.parametrize(
    ("format_", "said"),
    [
        ("safetensors", "is not what the checkpoint has"),
        ("onnx", "its logits differ from the checkpoint's by"),
        ("torch-export", "its logits differ from the checkpoint's by"),
    ],
)
def test_a_file_with_other_weights_fails_its_check(
    format_: str, said: str, small: Classifier, other: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / f"model{FORMATS[format_].suffix}"
    export(small, format_, path)
    assert check(path, format_, small)
    with pytest.raises(PipelineError, match=said):
        check(path, format_, other)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("cut", [0, 100, -1000], ids=["empty", "its beginning", "all but its end"])
def test_a_file_that_is_not_whole_fails_its_check(format_: str, cut: int, small: Classifier, tmp_path: Path) -> None:
    path = tmp_path / f"model{FORMATS[format_].suffix}"
    export(small, format_, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(PipelineError, match="cannot be loaded back"):
        check(path, format_, small)


@pytest.mark.parametrize("format_", ["onnx", "torch-export"])
def test_weights_that_changed_a_little_on_the_way_fail_the_check(
    format_: str, small: Classifier, tmp_path: Path
) -> None:
    """As a batch norm does whose epsilon was lost, or a file that kept 16 bits of each number."""
    path = tmp_path / f"model{FORMATS[format_].suffix}"
    run = make_run(tmp_path / "small", SMALL_VGG)
    rounded = load(run)
    with torch.no_grad():
        for parameter in rounded.network.parameters():
            parameter.copy_(parameter.bfloat16().float())
    export(rounded, format_, path)
    with pytest.raises(PipelineError, match="its logits differ"):
        check(path, format_, small)


class Moody(nn.Module):
    """Answers otherwise from call to call, which neither weights nor a traced graph can show."""

    mood: ClassVar = [0.0]

    def __init__(self, *, num_classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.flat = nn.Linear(channels * image_size**2, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.flat(images.flatten(1)) + self.mood[0]
        self.mood[0] += 1
        return logits


class Choosy(nn.Module):
    """Decides by what it sees, which cannot be traced."""

    def __init__(self, *, num_classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.flat = nn.Linear(channels * image_size**2, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.flat(images.flatten(1))
        return logits if logits.sum() > 0 else -logits


@pytest.fixture
def own_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[type[nn.Module]], Classifier]:
    """A trained network of a user's own."""

    def make(network: type[nn.Module]) -> Classifier:
        entry = catalog.Model(f"{__name__}:{network.__name__}", "a user's own")
        monkeypatch.setitem(catalog.MODELS, "net", entry)
        return load(make_run(tmp_path / "own", {"name": "net"}, image_size=8, channels=1))

    return make


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_that_fails_its_check_never_has_its_name(
    format_: str, own_model: Callable[[type[nn.Module]], Classifier], tmp_path: Path
) -> None:
    path = tmp_path / "out" / f"model{FORMATS[format_].suffix}"
    path.parent.mkdir()
    path.write_text("the one from before")
    with pytest.raises(PipelineError, match="failed its check, so it was removed"):
        export(own_model(Moody), format_, path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "the one from before"


@pytest.mark.parametrize("format_", ["onnx", "torch-export"])
def test_a_network_that_cannot_be_traced_is_told_so(
    format_: str, own_model: Callable[[type[nn.Module]], Classifier], tmp_path: Path
) -> None:
    choosy = own_model(Choosy)
    path = tmp_path / f"model{FORMATS[format_].suffix}"
    with pytest.raises(PipelineError, match=r"cannot follow the code of model 'net' \(--format safetensors works"):
        export(choosy, format_, path)
    assert not path.exists()
    export(choosy, "safetensors", tmp_path / "model.safetensors")


def test_answers_that_are_no_numbers_are_not_exported(tmp_path: Path) -> None:
    model = load(make_run(tmp_path / "small", SMALL_VGG))
    model.network.get_buffer("features.bn1_1.running_mean").fill_(torch.nan)
    with pytest.raises(PipelineError, match="not finite"):
        export(model, "safetensors", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_the_sample_images_are_pixels_and_differ_from_one_another() -> None:
    batches = sample_images(3, 9)
    assert [tuple(batch.shape) for batch in batches] == [(1, 3, 9, 9), (3, 3, 9, 9), (4, 3, 9, 9)]
    images = torch.cat(batches)
    assert 0 <= images.min() <= images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 8


# Where it goes


def test_the_file_goes_into_the_run_unless_told_otherwise(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    assert destination(run, "onnx", None) == tmp_path / "model.onnx"
    assert destination(run, "onnx", tmp_path / "mine.onnx") == tmp_path / "mine.onnx"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("folder", r"folder: is a folder; name a file in it, as .*folder/model\.onnx"),
        ("nowhere/model.onnx", r"there is no folder .*nowhere; make it first"),
        ("model.safetensors", r"a file of the format onnx has a name that ends in \.onnx"),
        ("checkpoints/best.pt", r"ends in \.onnx"),
        ("pipe.onnx", r"is not a regular file"),
        ("to_pipe.onnx", r"is not a regular file"),
        ("circle.onnx", r"leads nowhere"),
    ],
)
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "to_pipe.onnx").symlink_to("pipe.onnx")
    (tmp_path / "circle.onnx").symlink_to("circle.onnx")
    with pytest.raises(UsageError, match=said):
        destination(RunPaths(tmp_path), "onnx", tmp_path / out)


def test_a_link_is_followed(small: Classifier, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "model.safetensors"
    link.symlink_to("there/mine")
    export(small, "safetensors", destination(RunPaths(tmp_path), "safetensors", link))
    assert link.is_symlink()
    assert (tmp_path / "there" / "mine").stat().st_size > 1000
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]


def test_a_full_disk_is_told_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    model = load(make_run(tmp_path / "run", {"name": "cnn_bn"}))
    path = small_disk / "model.safetensors"
    with pytest.raises(PipelineError, match=r"model\.safetensors: cannot be written: No space left"):
        export(model, "safetensors", path)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("format_", "package"), [(name, package) for name, kind in FORMATS.items() for package in kind.packages]
)
def test_a_package_that_is_not_installed_is_named(
    format_: str, package: str, small: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PipelineError, match=rf"{format_} needs the package {package} .*pipeline\[export\]"):
        export(small, format_, tmp_path / "model")


# The command


@pytest.mark.parametrize("format_", FORMATS)
def test_export_model_prints_the_path_and_says_what_was_written_and_checked(
    pipeline: Pipeline, home: Home, format_: str
) -> None:
    """And no library says anything."""
    run = make_run(home.run("small").root, SMALL_VGG)
    done = pipeline("export-model", "small", "--format", format_)
    assert (done.returncode, done.stdout) == (0, f"{run.root}/model{FORMATS[format_].suffix}\n")
    size, line = done.stderr.splitlines()
    assert size == f"written: {(run.root / f'model{FORMATS[format_].suffix}').stat().st_size:,} bytes"
    assert re.match(r"checked: .*8 sample images", line)


def test_export_model_says_what_was_typed_wrongly(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    make_run(home.run("small").root, SMALL_VGG)
    done = pipeline("export-model", "small", "--format", "onnx", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}: is a folder; name a file in it, as {tmp_path}/model.onnx\n"


def test_the_python_of_the_operations_page_loads_each_export_and_they_agree(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen.save(home.run("digits"), quick_spec(train={"deterministic": False}))
    assert Attempt(home, "digits", 1, Stop(), lambda _: None).execute().outcome == "succeeded"
    model = load(home.run("digits"))
    monkeypatch.chdir(tmp_path)
    (image,) = (255 * sample_images(1, 8)[0][0]).round().to(torch.uint8)
    Image.fromarray(image.numpy()).save("image.png")
    for format_, kind in FORMATS.items():
        export(model, format_, Path(f"model{kind.suffix}"))
    page = (ROOT / "docs" / "operations.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})  # the page's own code
    ((_, guesses),) = model.classify([Path("image.png")], top=1)
    assert not isinstance(guesses, Exception)
    assert capsys.readouterr().out.split() == [guesses[0][0]] * 3
