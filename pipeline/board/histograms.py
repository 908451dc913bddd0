"""Histograms of every parameter and its gradient, counted on the device.

`SummaryWriter.add_histogram` copies each tensor and sorts it into some 1,550 bins, 11 ms for two million values. Here
64 bins are counted where the tensors lie, of all tensors by the same few calls, and the device is waited for once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from pipeline.board import tags
from pipeline.board.writer import Board

NUM_BINS = 64
ROW = 1024  # values that are counted together; each tensor begins a row of its own


def add_parameters(board: Board, model: nn.Module, *, step: int) -> None:
    """Writes a histogram of each parameter, and of each gradient that the latest step left."""
    parameters = dict(model.named_parameters())
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    add(board, {tags.parameter(name): parameter.detach() for name, parameter in parameters.items()}, step=step)
    add(board, {tags.gradient(name): gradient for name, gradient in gradients.items()}, step=step)


def add(board: Board, tensors: Mapping[str, torch.Tensor], *, step: int) -> None:
    """Writes a histogram of the finite values of each tensor, by its tag; where there is none, nothing."""
    if not tensors:
        return
    for tag, (low, high, sum_, sum_squares, *counts) in zip(tensors, count([*tensors.values()]).tolist(), strict=True):
        if not any(counts):
            continue
        if low == high:
            low, high = low - 0.5, high + 0.5
        board.writer.add_histogram_raw(
            tag,
            min=low,
            max=high,
            num=int(sum(counts)),
            sum=sum_,
            sum_squares=sum_squares,
            bucket_limits=torch.linspace(low, high, NUM_BINS + 1, dtype=torch.float64)[1:].tolist(),
            bucket_counts=counts,
            global_step=step,
        )


def count(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns a row a tensor, float64 (T, 4 + NUM_BINS), on the device, and waits for nothing.

    It has the lowest and the highest of its finite values, their sum, their sum of squares, and how many of them lie in
    each bin between the lowest and the highest.
    """
    values, owner = _in_rows(tensors)  # (R, ROW), and int64 (R,)
    finite = values.isfinite()
    num = len(tensors)
    low = _reduced(torch.where(finite, values, torch.inf).amin(1), owner, num, "amin")
    high = _reduced(torch.where(finite, values, -torch.inf).amax(1), owner, num, "amax")
    known = torch.where(finite, values, 0.0)
    sums = _reduced(known.sum(1, dtype=torch.float64), owner, num, "sum")
    squares = _reduced(torch.linalg.vector_norm(known, dim=1, dtype=torch.float64).square(), owner, num, "sum")

    is_flat = low == high
    first, span = torch.where(is_flat, low - 0.5, low), torch.where(is_flat, 1.0, high - low)
    bins = (known - first[owner, None]) * (NUM_BINS / span)[owner, None]  # NaN where the span is too small to divide by
    bins = bins.nan_to_num_(0.0).clamp_(0, NUM_BINS - 1)
    bins = torch.where(finite, bins, NUM_BINS).long()  # the last is for what is not finite
    bins += owner[:, None] * (NUM_BINS + 1)
    counts = bins.new_zeros(num * (NUM_BINS + 1))
    counts.scatter_add_(0, bins.flatten(), counts.new_ones(1).expand(bins.numel()))
    columns = torch.stack((low.double(), high.double(), sums, squares), dim=1)
    return torch.cat((columns, counts.view(num, -1)[:, :NUM_BINS].double()), dim=1)


def _in_rows(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """All values as rows, float32 (R, ROW), filled up with NaN, and which tensor each row is of, int64 (R,)."""
    device = tensors[0].device
    filling = torch.full((ROW,), torch.nan, device=device)
    pieces, rows = [], []
    for tensor in tensors:
        values = tensor.float().flatten()
        pieces += [values, filling[: -len(values) % ROW]]
        rows.append(-(-len(values) // ROW))
    owner = torch.repeat_interleave(torch.arange(len(tensors)), torch.tensor(rows))
    if device.type == "cuda":
        owner = owner.pin_memory()
    return torch.cat(pieces).view(-1, ROW), owner.to(device, non_blocking=True)


def _reduced(values: torch.Tensor, owner: torch.Tensor, num: int, how: str) -> torch.Tensor:
    """(num,): of what each owns, the lowest, the highest or the sum."""
    start = {"amin": torch.inf, "amax": -torch.inf, "sum": 0.0}[how]
    return values.new_full((num,), start).scatter_reduce_(0, owner, values, how)
