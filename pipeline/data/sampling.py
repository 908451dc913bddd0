"""Images looked at from elsewhere: each pixel taken, bilinearly, from a place that an affine map gives.

Places are whole numbers of 1/256 pixel. With those, bilinear sums of pixels are exact in float32, and the same bits on
every device and in any chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

PLACES = 256  # in a pixel
COEFFICIENTS = 2**16  # in which a map's numbers are counted, so that places are sums of whole numbers
SHIFT = 8  # bits from those to places


def affine_places(matrix: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns where each pixel comes from, columns and rows in 1/256 pixel: int32 (N, height, width) each.

    matrix: float64 (N, 2, 3); it takes a pixel's column and row, counted from the image's centre, and 1, to the column
    and the row that it comes from. Its numbers are rounded: in an image of 1024 pixels, places are off by 1/64 pixel at
    most.
    """
    # Twice the distances from the centre, which are whole, with half the coefficients.
    columns = 2 * torch.arange(width, dtype=torch.int32, device=matrix.device) - (width - 1)
    rows = 2 * torch.arange(height, dtype=torch.int32, device=matrix.device) - (height - 1)
    slopes = (matrix[:, :, :2] * (COEFFICIENTS // 2)).round().int()
    shifts = (matrix[:, :, 2] * COEFFICIENTS).round().int()
    places = []
    for axis, length in enumerate((width, height)):
        start = shifts[:, axis] + (length - 1) * (COEFFICIENTS // 2) + 2 ** (SHIFT - 1)
        by_row = start[:, None] + slopes[:, axis, 1:] * rows
        sums = by_row[:, :, None] + (slopes[:, axis, :1] * columns)[:, None, :]
        places.append(sums >> SHIFT)
    return places[0], places[1]


def sample(planes: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Returns what lies at these places, bilinearly, in whole numbers; outside of the image is `fill`.

    planes: float32 (N, C, H, W) of whole numbers. columns, rows: as of `affine_places`. fill: uint8 (C,).
    """
    height, width = planes.shape[2:]
    side = 1 << (max(height, width, 2) - 1).bit_length()
    color = fill.float().view(-1, 1, 1)
    # grid_sample wants the image to reach from -1 to 1: dividing by its side is exact for a power of two.
    padded = F.pad(planes - color, (0, side - width, 0, side - height))
    grid = torch.stack((columns, rows), dim=3).add_(PLACES // 2 * (1 - side)).float().mul_(2 / (PLACES * side))
    sampled = F.grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.add_(color).round_()
