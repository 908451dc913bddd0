"""Networks of few bits for other programs: their integers in every format, and what reads them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.numpy
import torch
from onnx import numpy_helper
from PIL import Image
from quick import quick_spec
from test_export_model import make_run
from torch import nn

from pipeline.data import digits
from pipeline.data.splits import Split
from pipeline.errors import PipelineError
from pipeline.home.paths import Home
from pipeline.jobfile import catalog, frozen
from pipeline.models.quantized import QuantizedLayer
from pipeline.models.weight_quantizers import WeightQuantizer
from pipeline.results.classifier import Classifier, load
from pipeline.results.export_model import check, export
from pipeline.results.model_formats import FORMATS, OPSET, OPSET_OF_INT16, quiet
from pipeline.stop import Stop
from pipeline.training.attempt import Attempt

Pipeline = Callable[..., subprocess.CompletedProcess[str]]
Quantize = dict[str, Any]
ROOT = Path(__file__).parents[2]

LSQ8 = {"scheme": "lsq", "bits": 8}
RUNS: dict[str, Quantize] = {
    "lsq, per channel": {"weights": {"scheme": "lsq", "bits": 4, "per": "channel"}, "activations": LSQ8},
    "lsq, few bits, no layer skipped": {
        "weights": {"scheme": "lsq", "bits": 3},
        "activations": {"scheme": "lsq", "bits": 3},
        "skip": [],
    },
    "symmetric": {"weights": {"scheme": "symmetric"}, "activations": {"scheme": "symmetric"}},
    "affine, per channel": {
        "weights": {"scheme": "affine", "per": "channel"},
        "activations": {"scheme": "affine", "bits": 5},
    },
    "affine, no layer skipped": {"weights": {"scheme": "affine"}, "activations": {"scheme": "affine"}, "skip": []},
    "dorefa": {"weights": {"scheme": "dorefa", "bits": 2}, "activations": {"scheme": "dorefa", "bits": 3}},
    "dorefa, 8 bits": {"weights": {"scheme": "dorefa"}, "activations": {"scheme": "dorefa"}},
    "dorefa, 1 bit": {"weights": {"scheme": "dorefa", "bits": 1}, "activations": {"scheme": "dorefa", "bits": 1}},
    "binary, weights alone": {"weights": {"scheme": "binary", "per": "channel"}},
    "ternary": {"weights": {"scheme": "ternary"}, "activations": LSQ8},
}
DTYPES = {"affine, per channel": np.uint8, "affine, no layer skipped": np.uint8, "dorefa, 8 bits": np.int16}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Classifier]:
    """Gives networks that were trained on the digits for an epoch, by the name of how they were rounded."""
    home = Home(tmp_path_factory.mktemp("home"))
    made: dict[str, Classifier] = {}

    def get(name: str) -> Classifier:
        if name not in made:
            run = home.run(f"run{len(made)}")
            frozen.save(run, quick_spec(model={"quantize": RUNS[name]}, train={"deterministic": False}))
            result = Attempt(home, run.root.name, 1, Stop(), lambda _: None).execute()
            assert result.outcome == "succeeded"
            made[name] = load(run)
        return made[name]

    return get


def quantized(classifier: Classifier) -> dict[str, QuantizedLayer]:
    return {name: layer for name, layer in classifier.network.named_modules() if isinstance(layer, QuantizedLayer)}


def written(classifier: Classifier, format_: str, folder: Path) -> Path:
    path = folder / f"model{FORMATS[format_].suffix}"
    assert "8 sample images" in export(classifier, format_, path)
    return path


def digit_images() -> torch.Tensor:
    split = digits._decode().test
    assert isinstance(split, Split)
    return split.images.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format) / 255


@pytest.mark.parametrize("name", RUNS)
def test_a_reader_of_safetensors_alone_computes_the_weights(
    name: str, trained: Callable[[str], Classifier], tmp_path: Path
) -> None:
    classifier = trained(name)
    path = written(classifier, "safetensors", tmp_path)
    held = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        told = json.loads(file.metadata()["quantization"])
    assert told["weight"] == "weight_scale * (weight - weight_zero_point)"
    assert list(told["layers"]) == list(quantized(classifier))
    for layer_name, layer in quantized(classifier).items():
        values, scale, zero = (held[f"{layer_name}.weight{part}"] for part in ("", "_scale", "_zero_point"))
        shape = (-1, *[1] * (values.ndim - 1))
        floats = scale.reshape(shape) * (values - zero.reshape(shape)).astype(np.float32)
        expected = layer.weight_quantizer(layer.weight).detach().numpy()
        np.testing.assert_allclose(floats, expected, rtol=0, atol=2e-7 if "dorefa" in name else 0)
        assert values.dtype == DTYPES.get(name, np.int8)
        low, high = told["layers"][layer_name]["weight_levels"]
        assert low <= values.min() <= values.max() <= high
        assert f"{layer_name}.weight_quantizer.step" not in held
        assert (scale.shape == (len(values),)) == ("per channel" in name or "weights alone" in name)
        assert (f"{layer_name}.input_scale" in held) == ("activations" in RUNS[name])


@pytest.mark.parametrize("name", RUNS)
def test_onnx_has_integer_weights_and_the_nodes_that_everybody_knows(
    name: str, trained: Callable[[str], Classifier], tmp_path: Path
) -> None:
    classifier = trained(name)
    layers = quantized(classifier)
    graph = (model := onnx.load(written(classifier, "onnx", tmp_path))).graph
    assert model.opset_import[0].version == (OPSET_OF_INT16 if name == "dorefa, 8 bits" else OPSET)
    initializers = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    decoded = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for layer_name, layer in layers.items():
        node = decoded[f"network.{layer_name}.weight"]
        integers = layer.weight_quantizer.integers(layer.weight)
        values, scale, zero_point = (initializers[each] for each in node.input)
        np.testing.assert_array_equal(values, integers.values.numpy())
        np.testing.assert_array_equal(scale, integers.scale.detach().numpy())
        np.testing.assert_array_equal(zero_point, integers.zero_point.numpy())
        assert values.dtype == zero_point.dtype == DTYPES.get(name, np.int8)
        assert {each.name: each.i for each in node.attribute} == ({"axis": 0} if scale.ndim else {})
    kinds = [node.op_type for node in graph.node]
    num_inputs = len(layers) if "activations" in RUNS[name] else 0
    assert kinds.count("QuantizeLinear") == num_inputs
    assert kinds.count("DequantizeLinear") == num_inputs + len(layers)
    bits = RUNS[name].get("activations", {}).get("bits", 8)
    assert kinds.count("Clip") == (num_inputs if bits < 8 else 0)


@pytest.mark.parametrize("name", RUNS)
def test_onnx_runtime_takes_digits_for_what_the_program_takes_them(
    name: str, trained: Callable[[str], Classifier], tmp_path: Path
) -> None:
    """As it is by default, and as it is written: the mean of a logit's difference would show a wrong level anywhere."""
    classifier = trained(name)
    images = digit_images()
    expected = classifier.logits(images)
    path = written(classifier, "onnx", tmp_path)
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        (found,) = onnxruntime.InferenceSession(path, options).run(["logits"], {"images": images.numpy()})
        difference = (torch.from_numpy(found) - expected).abs()
        assert difference.mean() < 1e-3 * expected.abs().max()
        assert (torch.from_numpy(found).argmax(1) == expected.argmax(1)).float().mean() > 0.99


@pytest.mark.parametrize("name", RUNS)
def test_torch_export_holds_the_integers_too(name: str, trained: Callable[[str], Classifier], tmp_path: Path) -> None:
    classifier = trained(name)
    with written(classifier, "torch-export", tmp_path).open("rb") as file, quiet():
        program = torch.export.load(file)
    for layer_name, layer in quantized(classifier).items():
        values = layer.weight_quantizer.integers(layer.weight).values
        assert torch.equal(program.state_dict[f"network.{layer_name}.weight"], values)
    if "dorefa" not in name:  # of which a value at the edge of two levels may be on the other one
        images = digit_images()
        with torch.no_grad():
            assert torch.equal(program.module()(images), classifier.logits(images))


def test_the_files_are_smaller(tmp_path: Path) -> None:
    sizes = {}
    for name, more in (("floats", {}), ("integers", {"quantize": {"activations": {}}})):
        classifier = load(make_run(tmp_path / name, {"name": "cnn_bn", **more}, image_size=16))
        sizes[name] = {each: written(classifier, each, tmp_path).stat().st_size for each in FORMATS}
    for format_ in FORMATS:
        assert sizes["integers"][format_] < 0.4 * sizes["floats"][format_]


# The check of a file whose integers are not what was trained


def scale_off(model: onnx.ModelProto) -> None:
    """A scale of 16 bits has three digits."""
    for each in model.graph.initializer:
        if each.name.endswith("weight_quantizer.scale"):
            rounded = numpy_helper.to_array(each).astype(np.float16) * np.float32(1.001)
            each.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), each.name))


def no_clip(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Clip":
            node.op_type = "Identity"
            del node.input[1:]


def no_rounding(model: onnx.ModelProto) -> None:
    graph = model.graph
    levels = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in levels:
            coarse = levels[node.input[0]]
            node.op_type = coarse.op_type = "Identity"
            del node.input[1:], coarse.input[1:]


def other_step(model: onnx.ModelProto) -> None:
    for each in model.graph.initializer:
        if each.name.endswith("activation_quantizer.scale"):
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each) * np.float32(1.01), each.name))


@pytest.mark.parametrize("change", [scale_off, no_clip, no_rounding, other_step])
def test_a_file_that_rounds_otherwise_fails_its_check(
    change: Callable[[onnx.ModelProto], None], trained: Callable[[str], Classifier], tmp_path: Path
) -> None:
    classifier = trained("lsq, few bits, no layer skipped")
    path = written(classifier, "onnx", tmp_path)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with pytest.raises(PipelineError, match="was written, and then failed its check"):
        check(path, "onnx", classifier)


def test_a_file_whose_integers_are_others_fails_its_check(trained: Callable[[str], Classifier], tmp_path: Path) -> None:
    classifier = trained("ternary")
    path = written(classifier, "safetensors", tmp_path)
    held = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    held["features.conv2.weight"][0, 0, 0, 0] ^= 1
    safetensors.numpy.save_file(held, path, metadata)
    with pytest.raises(PipelineError, match=r"features\.conv2\.weight is not what the checkpoint has"):
        check(path, "safetensors", classifier)


# Networks of a user's own


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, *, num_classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels * image_size**2, 64), nn.Linear(64, 64)
        self.third, self.last = nn.Linear(64, 64), nn.Linear(64, num_classes)
        self.third.weight = self.second.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images.flatten(1)).relu()
        logits: torch.Tensor = self.last(self.third(self.second(x).relu()))
        return logits


class Normed(Tied):
    """A layer whose weight is computed of its length and its direction."""

    def __init__(self, *, num_classes: int, channels: int, image_size: int) -> None:
        super().__init__(num_classes=num_classes, channels=channels, image_size=image_size)
        self.third = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))


class Evasive(Tied):
    """A layer that is never called in training."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images.flatten(1)).relu()
        logits: torch.Tensor = self.last(x if self.training else self.second(x))
        return logits


@pytest.fixture
def own_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[type[nn.Module]], Classifier]:
    def make(network: type[nn.Module]) -> Classifier:
        monkeypatch.setitem(catalog.MODELS, "net", catalog.Model(f"{__name__}:{network.__name__}", "a user's own"))
        model = {"name": "net", "quantize": {"weights": {"bits": 4}, "activations": {}}}
        return load(make_run(tmp_path / "own", model))

    return make


@pytest.mark.parametrize("format_", FORMATS)
def test_layers_that_share_a_weight_have_the_same_integers(
    format_: str, own_model: Callable[[type[nn.Module]], Classifier], tmp_path: Path
) -> None:
    path = written(own_model(Tied), format_, tmp_path)
    if format_ == "safetensors":
        held = safetensors.numpy.load_file(path)
        assert held["second.weight"].dtype == np.int8
        np.testing.assert_array_equal(held["second.weight"], held["third.weight"])
        assert held["second.input_scale"] != held["third.input_scale"]


@pytest.mark.parametrize("format_", FORMATS)
def test_an_input_that_no_training_batch_was_seen_of_is_not_rounded(
    format_: str, own_model: Callable[[type[nn.Module]], Classifier], tmp_path: Path
) -> None:
    path = written(own_model(Evasive), format_, tmp_path)
    if format_ == "safetensors":
        held = safetensors.numpy.load_file(path)
        assert "second.weight_scale" in held
        assert "second.input_scale" not in held
    if format_ == "onnx":
        assert "QuantizeLinear" not in [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_weight_that_is_computed_from_others_is_refused(
    format_: str, own_model: Callable[[type[nn.Module]], Classifier], tmp_path: Path
) -> None:
    path = tmp_path / f"model{FORMATS[format_].suffix}"
    with pytest.raises(
        PipelineError, match=r"the layer 'third' is computed from other parameters.*model\.quantize\.skip"
    ):
        export(own_model(Normed), format_, path)
    assert not path.exists()


# The commands, and the page


def test_the_commands_take_a_run_of_few_bits(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    quantize = {"weights": {"bits": 4, "per": "channel"}, "activations": {}}
    for job_id in ("small", "again"):
        frozen.save(home.run(job_id), quick_spec(model={"quantize": quantize}, train={"deterministic": False}))
        assert Attempt(home, job_id, 1, Stop(), lambda _: None).execute().outcome == "succeeded"
    done = pipeline("export-model", "small", "--format", "onnx")
    path = home.run("small").root / "model.onnx"
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    size, checked = done.stderr.splitlines()
    assert (
        size == f"written: {path.stat().st_size:,} bytes; weights of 4 bits as int8 in 4 layers, inputs of 8 bits in 4"
    )
    assert re.match(r"checked: on 8 sample images the same classes, .* round up and down alike", checked)
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    for command in (["predict", "small", tmp_path / "image.png"], ["compare", "small", "again"], ["report", "small"]):
        done = pipeline(*command)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout


def test_the_python_of_the_page_reads_the_integers(
    trained: Callable[[str], Classifier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    classifier = trained("lsq, per channel")
    written(classifier, "safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "quantization.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(block, found)  # the page's own code
    printed = capsys.readouterr().out
    for name, layer in quantized(classifier).items():
        assert isinstance(layer.weight_quantizer, WeightQuantizer)
        np.testing.assert_array_equal(found["weights"][name], layer.weight_quantizer(layer.weight).detach().numpy())
        assert f"{name}: int8 {tuple(layer.weight.shape)} from -8 to 7" in printed
