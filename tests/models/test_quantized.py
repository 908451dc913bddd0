"""Any network can be quantized in place: which layers are, what stays as it was, and that it still learns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.jobfile.catalog import MODELS
from pipeline.models.activation_quantizers import Observing
from pipeline.models.cnn_bn import CnnBn
from pipeline.models.quantized import (
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    begin_steps,
    left_out,
    quantize,
)

LSQ = {"scheme": "lsq", "bits": 4, "per": "channel"}
LSQ8 = {"scheme": "lsq", "bits": 8}
SCHEMES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    (LSQ, LSQ8),
    ({"scheme": "symmetric", "bits": 4, "per": "channel"}, {"scheme": "symmetric", "bits": 8}),
    ({"scheme": "affine", "bits": 4}, {"scheme": "affine", "bits": 8}),
    ({"scheme": "dorefa", "bits": 2}, {"scheme": "dorefa", "bits": 4}),
    ({"scheme": "binary", "bits": 1, "per": "channel"}, None),
    ({"scheme": "ternary", "bits": 2}, None),
]


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return CnnBn(num_classes=10, channels=3, image_size=8)


def quantized_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, QuantizedLayer)]


def images(num: int = 16, size: int = 8) -> torch.Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        (("first", "last"), ["features.conv2", "features.conv3", "features.conv4", "classifier.fc1"]),
        ((), [*(f"features.conv{number}" for number in (1, 2, 3, 4)), "classifier.fc1", "classifier.fc2"]),
        (("last", "features.conv3"), ["features.conv1", "features.conv2", "features.conv4", "classifier.fc1"]),
        (("features",), ["classifier.fc1", "classifier.fc2"]),
    ],
)
def test_all_layers_are_quantized_but_those_that_are_skipped(skip: tuple[str, ...], expected: list[str]) -> None:
    assert quantized_names(quantize(cnn(), weights=LSQ, skip=skip)) == expected


def test_a_layer_stays_the_object_that_it_was_with_its_parameters_hooks_and_name() -> None:
    model, called = cnn(), []
    before, layers = dict(model.named_parameters()), dict(model.named_modules())
    model.get_submodule("features.conv2").register_forward_hook(lambda *_: called.append(1))
    assert quantize(model, weights=LSQ, activations=LSQ8) is model
    after, now = dict(model.named_parameters()), dict(model.named_modules())
    assert all(after[name] is value for name, value in before.items())
    assert all(now[name] is value for name, value in layers.items())
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in after.keys() - before.keys()} == {
        "weight_quantizer",
        "activation_quantizer",
    }
    model(images())
    assert called == [1]


def test_a_layer_computes_with_its_rounded_weight_and_its_rounded_input() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular"), nn.Linear(4, 2))
    plain, x = copy.deepcopy(model), images()
    quantize(model, weights=LSQ, activations=LSQ8, skip=())
    conv, linear = model[0], model[1]
    assert isinstance(conv, QuantizedConv2d)
    assert isinstance(linear, QuantizedLinear)
    found = conv(x)
    assert conv.activation_quantizer is not None
    with torch.no_grad():
        plain[0].weight.copy_(conv.weight_quantizer(conv.weight))
        assert torch.equal(found, plain[0](conv.activation_quantizer(x)))
        assert len(plain[0].weight[0].unique()) <= 16
        values = torch.randn(5, 4)
        found = linear(values)
        plain[1].weight.copy_(linear.weight_quantizer(linear.weight))
        assert linear.activation_quantizer is not None
        assert torch.equal(found, plain[1](linear.activation_quantizer(values)))


@pytest.mark.parametrize(("weights", "activations"), SCHEMES, ids=lambda scheme: str(scheme and scheme["scheme"]))
def test_a_loss_falls_whatever_the_scheme(weights: dict[str, Any], activations: dict[str, Any] | None) -> None:
    model = quantize(cnn(), weights=weights, activations=activations)
    optimizer, x, labels = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), images(32), torch.arange(32) % 10
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_catalog_takes_a_step_that_makes_its_loss_smaller(name: str) -> None:
    torch.manual_seed(0)
    options = {option: field.default for option, (_, field) in MODELS[name].options.items()}
    options |= {"width": 8} if "width" in options else {}
    model = MODELS[name].load()(num_classes=10, channels=3, image_size=32, **options)
    quantize(model, weights=LSQ, activations=LSQ8)
    x, labels = images(size=32), torch.arange(16) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        losses.append(F.cross_entropy(model(x), labels))
        losses[-1].backward()  # type: ignore[no-untyped-call]
        assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
        optimizer.step()
    assert losses[-1] < losses[0]
    assert model.eval()(x).shape == (16, 10)


def test_layers_that_share_a_weight_share_its_quantizer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    quantize(model, weights=LSQ, activations=LSQ8, skip=("last",))
    assert model[0].weight_quantizer is model[2].weight_quantizer
    assert model[0].activation_quantizer is not model[2].activation_quantizer
    model(torch.randn(8, 4)).sum().backward()
    assert model[0].weight_quantizer.step.grad is not None


def test_a_layer_that_is_called_several_times_sees_negative_values_of_any_call() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.inner(x.relu())
            logits: torch.Tensor = self.head(self.inner(x))
            return logits

    torch.manual_seed(0)
    model = quantize(Recurrent(), weights=LSQ, activations=LSQ8, skip=())
    assert isinstance(model, Recurrent)
    x = torch.randn(16, 6)
    F.cross_entropy(model(x), torch.arange(16) % 3).backward()
    assert isinstance(model.inner, QuantizedLinear)
    assert model.inner.activation_quantizer is not None
    assert model.inner.activation_quantizer.is_signed
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_first_training_batch_alone_decides_about_signs() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    quantize(model, weights=LSQ, activations=LSQ8, skip=("last",))
    quantizer = model[0].activation_quantizer
    x = torch.rand(8, 4)
    assert torch.equal(quantizer.eval()(-x), -x)
    model.train()(x)
    assert not model._forward_hooks
    model(-x)
    assert not quantizer.is_signed
    assert quantizer(-x).abs().max() == 0


@pytest.mark.parametrize(("weights", "activations"), SCHEMES, ids=lambda scheme: str(scheme and scheme["scheme"]))
def test_a_state_dict_brings_all_of_it_back(weights: dict[str, Any], activations: dict[str, Any] | None) -> None:
    one, other = (quantize(cnn(), weights=weights, activations=activations) for _ in range(2))
    plain = set(cnn().state_dict())
    one(images())
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(1.1)
    state = one.state_dict()
    assert plain <= set(state)
    assert all("_quantizer." in key for key in set(state) - plain)
    other.load_state_dict(state)
    for is_training in (True, False):
        assert torch.equal(one.train(is_training)(images() + 1), other.train(is_training)(images() + 1))


def test_a_network_that_never_saw_a_batch_gives_what_rounded_weights_give() -> None:
    model = quantize(cnn(), weights=LSQ, activations=LSQ8).eval()
    assert torch.equal(model(images()), quantize(cnn(), weights=LSQ).eval()(images()))


def test_steps_begin_anew_with_weights_that_were_loaded_but_for_those_that_are_known() -> None:
    model = quantize(cnn(), weights=LSQ)
    step = model.get_parameter("features.conv2.weight_quantizer.step")
    before = step.detach().clone()
    with torch.no_grad():
        model.get_parameter("features.conv2.weight").mul_(10)
    begin_steps(model, known={"features.conv2.weight_quantizer.step"})
    assert torch.equal(step, before)
    begin_steps(model, known=())
    torch.testing.assert_close(step.detach(), 10 * before)


def test_a_class_of_somebodys_own_keeps_what_it_has() -> None:
    class Scaled(nn.Linear):
        factor = 3

        def doubled(self) -> int:
            return 2 * self.factor

    class WithItsOwnWay(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    model = nn.Sequential(Scaled(4, 4), WithItsOwnWay(4, 4), nn.Linear(4, 2))
    quantize(model, weights=LSQ, skip=("last",))
    assert quantized_names(model) == ["0"]
    assert isinstance(model[0], Scaled)
    assert model[0].doubled() == 6
    copy.deepcopy(model)(torch.randn(2, 4)).sum().backward()


def test_attention_and_what_pytorch_computes_past_its_layers() -> None:
    """nn.MultiheadAttention takes its layers' weights by itself; so does a whole encoder layer, in evaluation."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    model = quantize(nn.Sequential(encoder, nn.Linear(8, 2)), weights={"scheme": "ternary", "bits": 2}, skip=("last",))
    assert quantized_names(model) == ["0.linear1", "0.linear2"]
    x = torch.randn(2, 5, 8)
    expected = model(x)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), expected)


@pytest.mark.parametrize(
    ("model", "skip", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), (), "no nn.Conv2d and no nn.Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ("first", "last"), "leaves nothing to quantize"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            ("fc",),
            "'fc', and the model has no convolution or linear layer of that name",
        ),
    ],
)
def test_where_there_is_nothing_to_quantize_that_is_said(model: nn.Module, skip: tuple[str, ...], message: str) -> None:
    before = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        quantize(model, weights=LSQ, skip=skip)
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize(("weights", "activations"), SCHEMES, ids=lambda scheme: str(scheme and scheme["scheme"]))
def test_bfloat16_and_channels_last_give_about_the_same(
    weights: dict[str, Any], activations: dict[str, Any] | None
) -> None:
    model = quantize(cnn(), weights=weights, activations=activations)
    model(images())
    expected = model(images())
    as_last = model.to(memory_format=torch.channels_last)
    found = as_last(images().contiguous(memory_format=torch.channels_last))
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.98
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(images().bfloat16()).float()
    found.sum().backward()
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's own
def test_it_can_be_compiled_before_it_has_seen_a_batch() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    quantize(model, weights=LSQ, activations=LSQ8)
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    for _ in range(3):
        torch.testing.assert_close(compiled(images()), plain(images()))
        assert all(isinstance(m, Observing) and m.is_observed for m in model.modules() if isinstance(m, Observing))
    compiled(images()).sum().backward()


def test_it_can_be_exported() -> None:
    model = quantize(cnn(), weights=LSQ, activations=LSQ8)
    model(images())
    model.eval()
    program = torch.export.export(model, (images(),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    torch.testing.assert_close(program.module()(images(5)), model(images(5)))


class Twice(nn.Module):
    """Leaves out one layer in its first batch, takes another one's weight, and keeps a third in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.later, self.taken, self.kept = (nn.Linear(4, 4) for _ in range(4))
        self.num_batches = 0

    def train(self, mode: bool = True) -> Twice:
        super().train(mode)
        self.kept.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.num_batches += 1
        x = F.linear(self.kept(self.first(x)), self.taken.weight)
        return x if self.num_batches == 1 else self.later(x)


@pytest.mark.parametrize("scheme", ["lsq", "symmetric", "affine"])
def test_a_layer_begins_with_the_first_batch_that_it_is_called_in(scheme: str) -> None:
    torch.manual_seed(0)
    model = quantize(Twice(), weights=LSQ, activations={"scheme": scheme, "bits": 8}, skip=()).train()
    model(torch.randn(8, 4))
    assert [line.rpartition(": ")[2] for line in left_out(model)] == ["later, taken", "kept"]
    quantizer = model.get_submodule("later").activation_quantizer
    assert isinstance(quantizer, Observing)
    for number in range(3):
        model(10.0**number * torch.randn(8, 4))
        assert quantizer.has_begun
        assert not quantizer._is_first_batch, "it ended with the batch"
    again = quantize(Twice(), weights=LSQ, activations={"scheme": scheme, "bits": 8}, skip=()).train()
    again.load_state_dict(model.state_dict())
    again.num_batches = 4
    x = torch.randn(8, 4)
    assert torch.equal(again(x), model(x))
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_an_empty_batch_changes_nothing_and_is_no_error() -> None:
    for scheme in ("lsq", "symmetric", "affine", "dorefa"):
        model = quantize(
            nn.Sequential(nn.Linear(4, 2)), weights=LSQ, activations={"scheme": scheme, "bits": 8}, skip=()
        ).train()
        assert model(torch.zeros(0, 4)).shape == (0, 2)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model(torch.zeros(0, 4))
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        model(torch.randn(3, 4))
        model(torch.zeros(0, 4)).sum().backward()


def test_nothing_is_left_out_of_an_ordinary_network() -> None:
    model = quantize(cnn(), weights=LSQ, activations=LSQ8).train()
    model(images())
    assert left_out(model) == []


def test_a_name_to_skip_that_is_nearly_right_is_recognized() -> None:
    with pytest.raises(ValueError, match=r"'frist'.*did you mean 'first'\?"):
        quantize(cnn(), weights=LSQ, skip=("frist",))
