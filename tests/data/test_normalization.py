"""Normalization, in its one place: on images, on rows of pixels, and back."""

from __future__ import annotations

import pytest
import torch

from pipeline.data.normalization import Normalization, PixelNormalizer, normalize

PIXELS = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)


def make(channels: int) -> tuple[Normalization, torch.Tensor]:
    """With every grey level in each channel: uint8 (1, 16, 16, channels)."""
    normalization = Normalization((0.1, 0.5, 0.7)[:channels], (0.2, 0.3, 0.9)[:channels])
    return normalization, PIXELS.expand(1, 16, 16, channels).contiguous()


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_pixels_are_normalized_as_images_are(channels: int) -> None:
    normalization, pixels = make(channels)
    of_rows = PixelNormalizer(normalization, image_size=16, device=torch.device("cpu"), dtype=torch.float32)
    expected = normalize(pixels.permute(0, 3, 1, 2) / 255, *normalization.tensors())
    assert expected.shape == (1, channels, 16, 16)
    torch.testing.assert_close(of_rows(pixels), expected)


def test_a_pixel_is_normalized_by_its_channel() -> None:
    normalization, _ = make(3)
    image = torch.tensor([0.3, 0.2, 0.7]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize(image, *normalization.tensors()).flatten(), torch.tensor([1.0, -1.0, 0.0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_denormalizing_undoes_normalizing(channels: int) -> None:
    normalization, pixels = make(channels)
    seen = normalize(pixels.permute(0, 3, 1, 2) / 255, *normalization.tensors())
    assert torch.equal(normalization.denormalize(seen), pixels)
    assert normalization.denormalize(torch.full((1, channels, 2, 2), 99.0)).max() == 255


def test_the_mean_color_is_a_pixel() -> None:
    assert make(3)[0].mean_color().tolist() == [26, 128, 178]
