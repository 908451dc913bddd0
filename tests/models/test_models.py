"""Every model of the catalog takes images and gives logits; the known ones have the parameters that papers report."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.jobfile.catalog import MODELS
from pipeline.models.cnn_bn import CnnBn
from pipeline.models.net import Net
from pipeline.models.resnet import ResNet9, ResNet18
from pipeline.models.vgg import TABLE_1, Vgg


def defaults(name: str) -> dict[str, Any]:
    return {option: field.default for option, (_, field) in MODELS[name].options.items()}


def build(name: str, *, image_size: int, channels: int = 3, num_classes: int = 10, **options: Any) -> torch.nn.Module:
    chosen = {**defaults(name), **options}
    return MODELS[name].load()(num_classes=num_classes, channels=channels, image_size=image_size, **chosen)


def min_size(name: str, **options: Any) -> int:
    return MODELS[name].smallest(SimpleNamespace(**{**defaults(name), **options}))


def num_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("extra", [0, 1, 7])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_logits_and_gradients_from_its_smallest_size_on(name: str, extra: int, channels: int) -> None:
    size = min_size(name) + extra
    model = build(name, image_size=size, channels=channels, num_classes=7)
    logits = model(torch.rand(2, channels, size, size))
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if min_size(name) > 1])
def test_every_model_refuses_images_one_pixel_below_its_smallest_size(name: str) -> None:
    size = min_size(name)
    with pytest.raises(ValueError, match=rf"{size - 1} x {size - 1} pixels are too small"):
        build(name, image_size=size - 1)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_the_same_logits_in_channels_last(name: str) -> None:
    size = min_size(name)
    model = build(name, image_size=size).eval()
    images = torch.rand(3, 3, size, size)
    expected = model(images)
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_starts_with_a_loss_near_that_of_guessing(name: str) -> None:
    torch.manual_seed(0)
    size = max(32, min_size(name))
    loss = F.cross_entropy(build(name, image_size=size)(torch.randn(64, 3, size, size)), torch.arange(64) % 10)
    assert 2.0 < loss.item() < 3.0  # log(10) is 2.303


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Net(num_classes=10, channels=3, image_size=32), 62_006),
        (Net(num_classes=10, channels=1, image_size=28), 44_426),
        (CnnBn(num_classes=10, channels=3, image_size=32), 2_169_066),
    ],
    ids=["net-32", "net-28", "cnn_bn-32"],
)
def test_the_small_networks_have_the_parameters_of_their_originals(model: torch.nn.Module, expected: int) -> None:
    assert num_parameters(model) == expected


# ResNet-9, by hand: weights of convolutions 9 (3·64 + 64·128 + 2·128² + 128·256 + 256·512 + 2·512²) = 6,563,520, batch
# norm 2 (64 + 3·128 + 256 + 3·512) = 4,480, the linear layer 512·10 = 5,120. ResNet-18: torchvision's 11,689,512, less
# its head of 513,000 and the 7,680 by which a 7x7 stem is larger than a 3x3 one, with a head of 5,130.
@pytest.mark.parametrize(
    ("model", "channels", "classes", "expected"),
    [
        (ResNet9, 3, 10, 6_573_120),
        (ResNet9, 1, 10, 6_571_968),
        (ResNet18, 3, 10, 11_173_962),
        (ResNet18, 3, 100, 11_220_132),
    ],
)
def test_the_residual_networks_have_the_parameters_of_their_originals_at_any_size(
    model: type[torch.nn.Module], channels: int, classes: int, expected: int
) -> None:
    for size in (8, 32):
        assert num_parameters(model(num_classes=classes, channels=channels, image_size=size)) == expected


@pytest.mark.parametrize("name", ["resnet9", "resnet18"])
def test_a_width_scales_every_layer_of_a_residual_network(name: str) -> None:
    narrow, wide = (build(name, image_size=32, width=width) for width in (8, 16))
    for few, many in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert many.shape[0] == few.shape[0] * (1 if many.ndim == 2 or many.shape == (10,) else 2)
    assert wide(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet9", "resnet18"])
def test_one_image_of_the_smallest_size_is_too_small_a_batch_for_a_residual_network(name: str) -> None:
    """Which is why the catalog asks for two: batch norm has no variance of one value."""
    assert MODELS[name].min_batch == 2
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        build(name, image_size=min_size(name), width=8)(torch.rand(1, 3, min_size(name), min_size(name)))


# The features of VGG-11, without batch norm, by hand: weights 9 (3·64 + 64·128 + 128·256 + 256² + 256·512 + 3·512²) =
# 9,217,728, biases 64 + 128 + 2·256 + 4·512 = 2,752, together 9,220,480: torchvision's count of 132,863,336 less the
# 123,642,856 of its three linear layers. The head adds 512·10 + 10 = 5,130; batch norm adds twice the biases, which it
# takes the place of.
@pytest.mark.parametrize(
    ("depth", "plain", "batch_norm"),
    [
        (11, 9_225_610, 9_228_362),
        (13, 9_410_122, 9_413_066),
        (16, 14_719_818, 14_724_042),
        (19, 20_029_514, 20_035_018),
    ],
)
def test_vgg_has_the_parameters_of_the_papers_features_and_one_linear_layer(
    depth: int, plain: int, batch_norm: int
) -> None:
    size = {"num_classes": 10, "channels": 3, "image_size": 32}
    assert num_parameters(Vgg(depth=depth, batch_norm=False, **size)) == plain
    assert num_parameters(Vgg(depth=depth, batch_norm=True, **size)) == batch_norm


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_is_named_after_its_weight_layers(depth: int) -> None:
    convolutions = sum(width != "M" for width in TABLE_1[depth])
    assert convolutions + 3 == depth  # the paper's head has three linear layers
    assert TABLE_1[depth].count("M") == 5


def test_vgg_layers_are_named_by_block_and_place() -> None:
    model = Vgg(num_classes=10, channels=3, image_size=4, widths=(8, 8, "M", 16, "M"), batch_norm=True)
    assert list(model.features._modules) == [
        *("conv1_1", "bn1_1", "relu1_1", "conv1_2", "bn1_2", "pool1", "relu1_2"),
        *("conv2_1", "bn2_1", "pool2", "relu2_1"),
    ]


def test_widths_stand_in_the_place_of_the_depth() -> None:
    widths = (8, "M", 16, "M")
    assert min_size("vgg", widths=widths) == 4
    model = build("vgg", image_size=4, widths=widths, depth=19)
    assert num_parameters(model) == (9 * 3 * 8 + 8) + (9 * 8 * 16 + 16) + (16 * 10 + 10)
    assert model(torch.rand(2, 3, 4, 4)).shape == (2, 10)
    with pytest.raises(ValueError, match="3 x 3 pixels are too small"):
        build("vgg", image_size=3, widths=widths)


def test_widths_without_a_convolution_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        build("vgg", image_size=32, widths=("M",))


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    model = build("vgg", image_size=8, widths=(64, "M"), dropout=0.5)
    images = torch.rand(2, 3, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("depth", [11, 19])
def test_without_batch_norm_the_first_layer_of_vgg_gets_as_much_gradient_as_the_last(depth: int) -> None:
    """PyTorch's own initialization loses a factor of two a layer and more: 300 at depth 11, and it does not learn."""
    torch.manual_seed(0)
    widths = tuple(width if width == "M" else width // 4 for width in TABLE_1[depth])
    model = build("vgg", image_size=32, widths=widths)
    F.cross_entropy(model(torch.randn(16, 3, 32, 32)), torch.arange(16) % 10).backward()
    biases = [layer.bias for layer in model.features if isinstance(layer, torch.nn.Conv2d)]
    first, last = (bias.grad.norm().item() for bias in (biases[0], biases[-1]))
    assert 0.1 < first / last < 10


# ReLU and max pooling; biases and batch norm


def with_relu_first(model: nn.Module) -> int:
    """Has each ReLU that comes after a max pooling come before it; returns how many these are."""
    swapped = 0
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        layers = list(sequence._modules.items())
        for at, ((_, layer), (_, behind)) in enumerate(itertools.pairwise(list(layers))):
            if isinstance(layer, nn.MaxPool2d) and isinstance(behind, nn.ReLU):
                layers[at], layers[at + 1] = layers[at + 1], layers[at]
                swapped += 1
        sequence._modules = OrderedDict(layers)
    return swapped


@pytest.mark.parametrize(
    ("name", "options", "poolings"),
    [
        ("net", {}, 2),
        ("cnn_bn", {}, 2),
        ("resnet9", {"width": 8}, 3),
        ("vgg", {"widths": (8, "M", 16, 16, "M", "M", 8, "M")}, 3),
        ("vgg", {"widths": (8, "M", 16, 16, "M", "M", 8, "M"), "batch_norm": True}, 3),
    ],
)
def test_relu_after_max_pooling_gives_the_same_bits_as_before_it(
    name: str, options: dict[str, Any], poolings: int
) -> None:
    """Logits and all gradients, on images half of which are of one colour, so that most windows have ties."""
    torch.manual_seed(0)
    images = torch.randn(8, 3, 32, 32)
    images[4:] = images[4:, :, :1, :1]
    ours = build(name, image_size=32, **options)
    before = build(name, image_size=32, **options)
    before.load_state_dict(ours.state_dict())
    assert with_relu_first(before) == poolings
    found = []
    for model in (ours, before):
        given = images.clone().requires_grad_()
        logits = model(given)
        F.cross_entropy(logits, torch.arange(8)).backward()
        found.append([logits, given.grad, *(parameter.grad for parameter in model.parameters())])
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)
    assert not with_relu_first(before), "nothing is left to swap"


def test_relu_and_max_pooling_have_the_same_gradients_where_values_tie_and_at_0() -> None:
    """All windows of four values from -1 to 2; the first of the largest gets the gradient, and at 0 nothing does."""
    windows = torch.cartesian_prod(*[torch.arange(-1.0, 3)] * 4).view(-1, 1, 2, 2)
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    found = []
    for first, second in ((relu, pool), (pool, relu)):
        x = windows.clone().requires_grad_()
        y = second(first(x))
        (y * torch.arange(1.0, 257).view(-1, 1, 1, 1)).sum().backward()
        found.append((y, x.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def layers_before_batch_norm(model: nn.Module) -> list[Any]:
    pairs = [
        pair
        for sequence in model.modules()
        if isinstance(sequence, nn.Sequential)
        for pair in itertools.pairwise(sequence)
    ]
    return [layer for layer, norm in pairs if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))]


@pytest.mark.parametrize(
    ("name", "options"),
    [("cnn_bn", {}), ("resnet9", {"width": 8}), ("vgg", {"widths": (8, "M", 16, "M"), "batch_norm": True})],
)
def test_a_bias_before_batch_norm_would_change_nothing_and_is_not_there(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8)
    ours, biased = build(name, image_size=8, **options), build(name, image_size=8, **options)
    biased.load_state_dict(ours.state_dict())
    assert all(layer.bias is None for layer in layers_before_batch_norm(ours))
    biases = []
    for layer in layers_before_batch_norm(biased):
        layer.bias = nn.Parameter(torch.randn(len(layer.weight)))
        biases.append(layer.bias)
    assert len(biases) >= 2
    logits = [model(images) for model in (ours, biased)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    for each in logits:
        F.cross_entropy(each, torch.arange(16) % 10).backward()
    theirs = dict(biased.named_parameters())
    for parameter_name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[parameter_name].grad, rtol=1e-3, atol=1e-5)
    assert all(float(bias.grad.abs().max()) < 1e-5 for bias in biases)
