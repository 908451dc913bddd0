"""airnet: its first layer whitens, its convolutions begin as identities, and it computes what the paper says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models.airnet import WHITENING_EPS, AirNet, patch_covariance


def airnet(channels: int = 3, size: int = 32, *, classes: int = 10, width: int = 64) -> AirNet:
    torch.manual_seed(0)
    return AirNet(num_classes=classes, channels=channels, image_size=size, width=width)


def correlated(num: int, channels: int, size: int, seed: int = 0) -> torch.Tensor:
    """Images whose neighbouring pixels, and channels, are alike."""
    images = torch.randn(num, channels, size, size, generator=torch.Generator().manual_seed(seed))
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1) + 0.1 * images
    return 3 * blurred + blurred.mean(1, keepdim=True) + 0.2


def parameter(model: nn.Module, name: str) -> torch.Tensor:
    return model.get_parameter(f"features.{name}")


# By hand, for c channels, k classes and width w: the first layer (4 c + 1) 8 c; weights of convolutions
# 9 (8 c w + w² + 4 w² + 16 w² + 2 · 16 w²); batch norm 2 · 2 (w + 4 w + 4 w); the linear layer 4 w k.
@pytest.mark.parametrize(
    ("channels", "classes", "expected"), [(3, 10, 1_972_792), (3, 100, 1_995_832), (1, 10, 1_963_304)]
)
def test_it_has_the_parameters_of_the_original_at_any_size(channels: int, classes: int, expected: int) -> None:
    for size in (9, 32):
        model = airnet(channels, size, classes=classes)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_what_is_not_trained_are_the_first_weights_and_the_scales_of_batch_norms() -> None:
    fixed = {name for name, parameter in airnet().named_parameters() if not parameter.requires_grad}
    norms = {f"features.group{group}.bn{number}.weight" for group in (1, 2, 3) for number in (1, 2)}
    assert fixed == {"features.whiten.weight", *norms}


def plain(state: dict[str, torch.Tensor], images: torch.Tensor, *, training: bool) -> torch.Tensor:
    """What the network computes, written from the paper's listing."""
    weights = {name.removeprefix("features."): value.double() for name, value in state.items()}
    x = F.gelu(F.conv2d(images.double(), weights["whiten.weight"], weights["whiten.bias"]))
    for group in ("group1", "group2", "group3"):
        for number in (1, 2):
            x = F.conv2d(x, weights[f"{group}.conv{number}.weight"], padding=1)
            if number == 1:
                x = F.max_pool2d(x, 2)
            mean, var = (weights[f"{group}.bn{number}.running_{name}"] for name in ("mean", "var"))
            if training:
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-12).sqrt()
            x = F.gelu(x + weights[f"{group}.bn{number}.bias"][:, None, None])
    return x.amax((2, 3)) @ weights["classifier.weight"].T / 9


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 9), (3, 19)])
def test_its_logits_are_those_of_a_plain_reference(channels: int, size: int, training: bool) -> None:
    model = airnet(channels, size, classes=7, width=8)
    images = correlated(6, channels, size)
    model.initialize_from_images(images)
    model(2 * images)  # so that batch norm has something to keep
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_()
    model.train(training)
    expected = plain(model.state_dict(), images, training=training)
    assert expected.shape == (6, 7)
    torch.testing.assert_close(model(images).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_its_first_layer_whitens_patches(channels: int) -> None:
    """What it makes of them has the identity as covariance, but for eps: v / (v + eps) of each eigenvalue v."""
    model, images = airnet(channels, 16, width=8), correlated(300, channels, 16)
    model.initialize_from_images(images)
    weight, half = parameter(model, "whiten.weight"), 4 * channels
    assert torch.equal(weight[:half], -weight[half:])
    values = torch.linalg.eigvalsh(torch.cov(F.unfold(images.double(), 2).transpose(0, 1).flatten(1))).flip(0)
    whitened = F.conv2d(images, weight).transpose(0, 1).flatten(1)[:half].double()
    expected = values / (values + WHITENING_EPS)
    torch.testing.assert_close(torch.cov(whitened), expected.diag(), rtol=0, atol=1e-3)
    assert 0.9 < expected.min() <= expected.max() < 1
    assert torch.equal(parameter(model, "whiten.bias"), torch.zeros(2 * half))


@pytest.mark.parametrize(("num", "channels", "size", "patch"), [(1, 3, 9, 2), (700, 3, 16, 2), (3, 1, 600, 3)])
def test_the_covariance_of_patches_is_that_of_all_at_once(num: int, channels: int, size: int, patch: int) -> None:
    images = correlated(num, channels, size)
    expected = torch.cov(F.unfold(images.double(), patch).transpose(0, 1).flatten(1), correction=0)
    torch.testing.assert_close(patch_covariance(images, patch), expected, rtol=1e-9, atol=1e-12)
    strided = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(patch_covariance(strided, patch), expected, rtol=1e-9, atol=1e-12)


def test_images_of_one_colour_leave_finite_weights() -> None:
    model = airnet(3, 9, width=8)
    model.initialize_from_images(torch.full((4, 3, 9, 9), 0.7))
    assert parameter(model, "whiten.weight").isfinite().all()
    assert model(correlated(4, 3, 9)).isfinite().all()


@pytest.mark.parametrize("width", [8, 64])
def test_its_convolutions_begin_as_identities_as_far_as_they_have_inputs(width: int) -> None:
    """Of more outputs than inputs, those that are left begin as PyTorch has them; the inputs that are left, nowhere."""
    model = airnet(width=width)
    images = torch.randn(2, 4 * width, 5, 5)
    for name in ("group1.conv1", "group1.conv2", "group2.conv1", "group2.conv2", "group3.conv1", "group3.conv2"):
        layer = model.get_submodule(f"features.{name}")
        assert isinstance(layer, nn.Conv2d)
        given = images[:, : layer.in_channels]
        both = min(layer.in_channels, layer.out_channels)
        torch.testing.assert_close(layer(given)[:, :both], given[:, :both])
        assert layer.weight[layer.in_channels :].flatten(1).ne(0).all()


def test_one_image_of_the_smallest_size_is_too_small_a_batch() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        airnet(3, 9, width=8)(torch.rand(1, 3, 9, 9))


def test_a_first_layer_that_does_not_whiten_is_trained_like_the_others() -> None:
    network = AirNet(num_classes=10, channels=3, image_size=32, whiten=False)
    before = network.features.whiten.weight.detach().clone()  # type: ignore[union-attr]
    network.initialize_from_images(torch.randn(8, 3, 32, 32))
    assert torch.equal(network.features.whiten.weight, before)  # type: ignore[union-attr]
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert network.features.whiten.weight.grad is not None  # type: ignore[union-attr]
