"""model.quantize: a job that trains with few bits, from its file to its result."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    Saved,
    assert_identical,
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    take,
    train_engine,
    train_killed_before_a_checkpoint,
    weights,
)
from job_texts import errors, read
from own_code import MODEL
from quick import EVERYTHING_SHOWN, quick_spec
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from pipeline.board import tags
from pipeline.board.conditions import describe_conditions
from pipeline.board.hparams import flatten
from pipeline.data.dataset import Dataset
from pipeline.errors import DataError, Interrupted, OwnCodeError
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.jobfile import frozen, own_modules
from pipeline.jobfile.spec import Spec
from pipeline.models.quantized import QuantizedLayer
from pipeline.results import classifier
from pipeline.stop import Stop
from pipeline.training.attempt import Attempt
from pipeline.training.parts import build_model

W4A8 = {"weights": {"bits": 4, "per": "channel"}, "activations": {"bits": 8}}
SIZE = {"num_classes": 10, "channels": 1, "image_size": 8}


def spec_of(quantize: dict[str, Any] | None, **changes: Any) -> Spec:
    return make_spec({"name": "cnn_bn", "quantize": quantize}, **changes)


def execute(home: Home, job_id: str, spec: Spec) -> tuple[float, list[str]]:
    """The accuracy of its best epoch, and what was logged."""
    lines: list[str] = []
    frozen.save(home.run(job_id), spec)
    result = Attempt(home, job_id, 1, Stop(), lines.append).execute()
    assert result.outcome == "succeeded", result.why
    return classifier.load(home.run(job_id)).test_accuracy or 0.0, lines


def quantized_names(model: torch.nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, QuantizedLayer)]


# What a job file may say


@pytest.mark.parametrize(
    ("quantize", "expected"),
    [
        ("{}", {"scheme": "lsq", "bits": 8, "per": "tensor"}),
        ("{weights: {scheme: binary}}", {"scheme": "binary", "bits": 1, "per": "tensor"}),
        ("{weights: {scheme: ternary, per: channel}}", {"scheme": "ternary", "bits": 2, "per": "channel"}),
        ("{weights: {scheme: dorefa, bits: 1}}", {"scheme": "dorefa", "bits": 1, "per": "tensor"}),
    ],
)
def test_what_is_not_said_has_its_default(quantize: str, expected: dict[str, Any]) -> None:
    section = read(text=f"name: x\nmodel: {{name: net, quantize: {quantize}}}\ndata: {{name: mnist}}\n").model.quantize
    assert section is not None
    assert section.weights.options() == expected
    assert section.activations is None
    assert section.skip == ("first", "last")


@pytest.mark.parametrize(
    ("quantize", "message"),
    [
        (
            "{weights: {scheme: binary, bits: 4}}",
            "weights.bits: 'binary' weights have 1 bit, not 4; leave bits out, or set 1",
        ),
        (
            "{weights: {scheme: ternary, bits: 8}}",
            "weights.bits: 'ternary' weights have 2 bits, not 8; leave bits out, or set 2",
        ),
        (
            "{weights: {bits: 1}}",
            "weights.bits: 1 is too few for 'lsq' weights, at least 2; weights of one bit are 'binary' or 'dorefa'",
        ),
        (
            "{weights: {scheme: dorefa, per: channel}}",
            "weights.per: 'dorefa' weights have one scale; set per: tensor",
        ),
        (
            "{activations: {bits: 1}}",
            "activations.bits: 1 is too few for 'lsq' activations, at least 2; those of one bit are 'dorefa'",
        ),
        ("{weights: {bits: 9}}", "weights.bits: 9 should be at most 8"),
        (
            "{activations: {scheme: binary}}",
            "activations.scheme: 'binary' is not allowed (known: affine, dorefa, lsq, symmetric)",
        ),
        ("{skip: first}", "skip: 'first' should be a list; write [first]"),
        ("{weights: 4}", "weights: 4 should be a mapping of fields, as {scheme: lsq}"),
    ],
)
def test_what_does_not_fit_is_told_at_its_field(quantize: str, message: str) -> None:
    text = f"name: x\nmodel: {{name: net, quantize: {quantize}}}\ndata: {{name: mnist}}\n"
    assert errors(text=text) == [f"job.yaml:2: model.quantize.{message}"]


def test_a_conflict_is_told_beside_other_mistakes() -> None:
    text = "name: x\nmodel: {name: net, quantize: {weights: {bits: 1}}}\ndata: {name: mnist, batch_size: 0}\n"
    assert [message.split(": ")[1] for message in errors(text=text)] == [
        "model.quantize.weights.bits",
        "data.batch_size",
    ]


def test_a_field_inside_can_be_searched_and_set() -> None:
    spec = read("", "model.quantize.weights.bits=3", "model.quantize.activations.scheme=dorefa")
    assert spec.model.quantize is not None
    assert spec.model.quantize.weights.num_bits == 3
    searched = read("search: {space: {model.quantize.weights.bits: [2, 4, 8]}, sampler: grid}\n")
    assert searched.search is not None


# What is built


def test_a_job_without_it_has_the_layers_that_it_had() -> None:
    assert quantized_names(build_model(spec_of(None), **SIZE)) == []
    names = quantized_names(build_model(spec_of(W4A8), **SIZE))
    assert names == ["features.conv2", "features.conv3", "features.conv4", "classifier.fc1"]


def test_a_layer_that_is_not_there_cannot_be_skipped() -> None:
    with pytest.raises(
        DataError, match=r"model\.quantize: skip names 'conv9', and the model has no convolution or linear"
    ):
        build_model(spec_of({"skip": ["conv9"]}), **SIZE)


def test_a_model_of_the_users_own_is_quantized_too(tmp_path: Path) -> None:
    (tmp_path / "my_layers.py").write_text("from torch import nn\n\n\nclass Swish(nn.SiLU):\n    pass\n")
    (tmp_path / "mine.py").write_text(MODEL)
    with own_modules.using(own_modules.Modules("modules", tmp_path)):
        spec = make_spec({"name": "mine:SmallNet", "quantize": {"skip": ["last"]}})
        assert quantized_names(build_model(spec, **SIZE)) == ["layers.0"]
        with pytest.raises(OwnCodeError, match=r"model\.quantize: skip leaves nothing"):
            build_model(make_spec({"name": "mine:SmallNet", "quantize": {}}), **SIZE)


# What is trained


@pytest.mark.parametrize(
    "quantize",
    [
        W4A8,
        {"weights": {"scheme": "affine", "bits": 4}, "activations": {"scheme": "symmetric", "bits": 4}},
        {"weights": {"scheme": "binary"}, "activations": {"scheme": "affine"}},
        {"weights": {"scheme": "dorefa", "bits": 2}, "activations": {"scheme": "dorefa", "bits": 4}},
    ],
    ids=["lsq", "measured", "binary", "dorefa"],
)
def test_a_job_stopped_and_resumed_ends_with_the_same_bits(
    quantize: dict[str, Any], digits: Dataset, tmp_path: Path
) -> None:
    spec = spec_of(quantize)
    alone = engine_of(spec, digits)
    told = train_engine(alone, tmp_path / "alone")
    saved: Saved = []
    with pytest.raises(Interrupted):
        train_engine(engine_of(spec, digits), tmp_path / "stopped", stop_at=7, saved=saved)
    resumed = engine_of(spec, digits)
    resumed.load_state_dict(saved[-1][0])
    told_again = train_engine(resumed, tmp_path / "resumed")
    assert_identical(weights(resumed), weights(alone))
    assert [epoch["train/epoch_loss"] for epoch in told_again.epochs] == [e["train/epoch_loss"] for e in told.epochs]


def test_a_frozen_backbone_keeps_its_steps(digits: Dataset) -> None:
    engine = engine_of(make_spec({"name": "cnn_bn", "quantize": W4A8, "freeze_epochs": 1}), digits)
    before = weights(engine)
    take(engine, 5)
    after = weights(engine)
    steps = [name for name in before if name.endswith("weight_quantizer.step")]
    assert steps
    assert all(torch.equal(before[name], after[name]) for name in steps)


def test_four_bits_learn_the_digits_about_as_well_as_float32(home: Home) -> None:
    plain, _ = execute(home, "plain", quick_spec("plain", epochs=4))
    few, _ = execute(home, "few", quick_spec("few", epochs=4, model={"quantize": W4A8}))
    assert plain > 0.95
    assert few > plain - 0.02


def test_a_job_begins_with_the_weights_of_one_in_float32_and_shows_everything(home: Home) -> None:
    plain, _ = execute(home, "plain", quick_spec("plain", epochs=2))
    model = {"quantize": W4A8, "init": "plain"}
    tiny = {"optimizer": {"lr": 1e-6}}
    few, lines = execute(home, "few", quick_spec("few", model=model, train=tiny, log=EVERYTHING_SHOWN))
    told = "\n".join(lines)
    assert "as it was made: features.conv2.weight_quantizer.step (not there)" in told
    assert "left out" not in told
    assert few > plain - 0.05
    state = classifier.load(home.run("few")).network.state_dict()
    weight, step = state["features.conv2.weight"], state["features.conv2.weight_quantizer.step"]
    torch.testing.assert_close(step, 2 * weight.abs().mean((1, 2, 3)) / 7**0.5, rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("weights", "activations", "is_as_learned"),
    [
        ({"bits": 4, "per": "channel"}, {}, True),
        ({"bits": 3, "per": "channel"}, {"bits": 4}, False),
        ({"bits": 4}, {"scheme": "symmetric"}, False),
        ({"bits": 4, "scheme": "symmetric", "per": "channel"}, {"scheme": "affine"}, False),
    ],
    ids=["the same", "fewer bits", "others", "none learned"],
)
def test_what_quantizers_learned_is_taken_where_bits_and_scheme_are_the_same(
    weights: dict[str, Any], activations: dict[str, Any], is_as_learned: bool, home: Home
) -> None:
    before, _ = execute(home, "first", quick_spec("first", epochs=3, model={"quantize": W4A8}))
    model = {"quantize": {"weights": weights, "activations": activations}, "init": "first"}
    after, lines = execute(home, "next", quick_spec("next", model=model, train={"optimizer": {"lr": 1e-6}}))
    assert after > before - 0.1
    assert ("begin anew" in "".join(lines)) is not is_as_learned
    old, new = (classifier.load(home.run(name)).network.state_dict() for name in ("first", "next"))
    for key in ("features.conv2.weight_quantizer.step", "features.conv2.activation_quantizer.step"):
        same = key in new and torch.allclose(new[key], old[key], rtol=1e-3)
        assert same is is_as_learned, key


# What is seen of it


LAYERS = ("features.conv2", "features.conv3", "features.conv4", "classifier.fc1")
LEVELS = [tags.levels(f"{layer}.weight") for layer in LAYERS]
STEP_SIZES = [tags.step_size(f"{layer}.{what}") for layer in LAYERS for what in ("weight", "activation")]
EPOCH = 23  # steps of one, of 64 digits each


def points(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Steps and values of each tag, as TensorBoard's server reads them."""
    reader = EventAccumulator(str(folder), tensor_size_guidance=defaultdict(int))
    reader.Reload()
    return {
        tag: [(point.step, tensor_util.make_ndarray(point.tensor_proto)) for point in reader.Tensors(tag)]
        for tag in reader.Tags()["tensors"]
    }


def test_each_epoch_shows_levels_and_each_point_of_the_curves_step_sizes(digits: Dataset, tmp_path: Path) -> None:
    engine = engine_of(spec_of(W4A8, log={"every": EPOCH}), digits)
    train_engine(engine, tmp_path)
    found = points(tmp_path)
    for tag in (*LEVELS, *STEP_SIZES):
        assert [step for step, _ in found[tag]] == [EPOCH, 2 * EPOCH], tag
    assert sorted(tag for tag in found if "quantize/" in tag or tag.endswith("_levels")) == sorted(
        (*LEVELS, *STEP_SIZES, tags.MODEL_BITS, tags.MODEL_BITS_IN_FP32)
    )
    layer = engine.model.get_submodule("features.conv2")
    last = {tag: value[-1][1] for tag, value in found.items() if tag in (*LEVELS, *STEP_SIZES)}
    step_size = layer.weight_quantizer.step.detach().mean()
    assert float(last[tags.step_size("features.conv2.weight")]) == pytest.approx(float(step_size))
    step_size = layer.activation_quantizer.step.detach()
    assert float(last[tags.step_size("features.conv2.activation")]) == pytest.approx(float(step_size))
    whole = layer.weight_quantizer.integers(layer.weight).values
    shown = {left: count for left, right, count in last[tags.levels("features.conv2.weight")] if left == right}
    assert shown == {level: int((whole == level).sum()) for level in range(-8, 8)}


def test_step_sizes_have_a_point_as_often_as_the_job_asks(digits: Dataset, tmp_path: Path) -> None:
    train_engine(engine_of(spec_of(W4A8, log={"every": 5, "histograms": False}), digits), tmp_path)
    found = points(tmp_path)
    assert [step for step, _ in found[STEP_SIZES[0]]] == list(range(5, 2 * EPOCH, 5))
    assert not found.keys() & {*LEVELS}


def test_a_job_that_is_not_quantized_shows_none_of_it(digits: Dataset, tmp_path: Path) -> None:
    train_engine(engine_of(spec_of(None), digits), tmp_path)
    assert not [tag for tag in points(tmp_path) if "quantize" in tag or "levels" in tag]


def test_a_job_that_is_stopped_and_killed_has_each_point_once(digits: Dataset, tmp_path: Path) -> None:
    """The point at the end of an epoch too, that was trained by one attempt and evaluated by two others."""
    train_killed_before_a_checkpoint(spec_of(W4A8, log={"every": EPOCH}), digits, tmp_path, step=EPOCH)
    found = points(tmp_path)
    for tag in (*LEVELS, *STEP_SIZES):
        assert [step for step, _ in found[tag]] == [EPOCH, 2 * EPOCH], tag
    assert [step for step, _ in found[tags.MODEL_BITS]] == [0]


def test_the_result_says_the_size_in_bits(home: Home) -> None:
    _, lines = execute(home, "few", quick_spec("few", model={"quantize": W4A8}))
    result = Result.read(home.run("few").result)
    assert result is not None
    values = 9 * (32 * 32 + 32 * 64 + 64 * 64) + 256 * 512  # of weights that are quantized
    channels, others = 32 + 64 + 64 + 512, 8_234  # scales of weights; biases, batch norm, first and last layer
    assert result.metrics[tags.MODEL_BITS_IN_FP32] == 32 * (values + others)
    assert result.metrics[tags.MODEL_BITS] == 4 * values + 32 * (channels + len(LAYERS) + others)
    assert any(line.endswith("quantized: 1.07 Mbit of 6.52 Mbit in fp32, 6.1 times smaller") for line in lines)


# What is said of it


def test_conditions_and_hparams_have_it() -> None:
    spec = spec_of({**W4A8, "skip": ["last"]})
    rows = dict(describe_conditions(spec.model_dump(mode="json"), {}))
    assert rows["Model"] == "cnn_bn"
    assert rows["Quantized weights"] == "scheme lsq, bits 4, per channel"
    assert rows["Quantized activations"] == "scheme lsq, bits 8"
    assert rows["Not quantized"] == "last"
    assert not any("uantized" in key for key in dict(describe_conditions(spec_of(None).model_dump(mode="json"), {})))
    found = dict(flatten(spec))
    assert found["model.quantize.weights.bits"] == 4.0
    assert found["model.quantize.skip"] == "last"
    assert not any(key.startswith("model.quantize") for key in dict(flatten(spec_of(None))))
