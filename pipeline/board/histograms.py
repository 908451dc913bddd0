"""Histograms of every parameter and its gradient, and of the levels of quantized weights, counted on the device.

`SummaryWriter.add_histogram` copies each tensor and sorts it into some 1,550 bins, 11 ms for two million values. Here
64 bins are counted where the tensors lie, of all tensors by the same few calls, and the device is not waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata
from tensorboard.util import tensor_util
from torch import nn

from pipeline.board import tags
from pipeline.board.writer import Board

NUM_BINS = 64
ROW = 1024  # values that are counted together; each tensor begins a row of its own
GROUP_VALUES = 2**22  # that are worked on at once, in some 100 MB
SHOWN_BINS = 30  # that TensorBoard's page makes of all buckets of a tag, from the least edge to the greatest

Group = tuple[torch.Tensor, torch.Tensor]  # rows of values, float32 (R, ROW), and whose they are, int64 (R,)

Levels = tuple[torch.Tensor, int, int]  # whole numbers, and the lowest and the highest that there may be


@dataclass(frozen=True)
class ParameterCounts:
    """What the histograms of a network are made of.

    tags: of parameters and gradients. rows: what `count` returns of them. levels: the lowest and the highest of each
    quantized weight, by its name. level_counts: what `count_levels` returns of them. The tensors may still be on their
    way to the CPU.
    """

    tags: list[str]
    rows: torch.Tensor
    levels: dict[str, tuple[int, int]]
    level_counts: list[torch.Tensor]

    def write(self, board: Board, *, step: int) -> None:
        """Writes a histogram of each. The device must have been waited for."""
        _add_rows(board, self.tags, self.rows.tolist(), step=step)
        _add_levels(board, self.levels, [counts.tolist() for counts in self.level_counts], step=step)


def count_parameters(model: nn.Module, *, levels: Mapping[str, Levels]) -> ParameterCounts | None:
    """Counts each parameter, each gradient that the latest step left, and levels, and waits for nothing.

    levels: those of quantized weights, by the names of the weights. Returns None where there is nothing to count.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[tags.parameter(name)] = parameter.detach()
        if parameter.grad is not None:
            tensors[tags.gradient(name)] = parameter.grad
    if not tensors:
        return None
    counts = [count([*tensors.values()]), *count_levels([*levels.values()])]
    rows, *level_counts = (each.to("cpu", non_blocking=True) for each in counts)
    ranges = {name: (low, high) for name, (_, low, high) in levels.items()}
    return ParameterCounts([*tensors], rows, ranges, level_counts)


def _add_levels(board: Board, levels: Mapping[str, tuple[int, int]], counts: Sequence[list[int]], *, step: int) -> None:
    """Writes a histogram a weight, all in one event. `SummaryWriter` would cut off levels that are not in use."""
    found = []
    for (name, (low, high)), counts_of_weight in zip(levels.items(), counts, strict=True):
        buckets = level_buckets(low, counts_of_weight)
        about = metadata.create_summary_metadata("", f"The rounded weight, as whole levels from {low} to {high}.")
        found.append(
            Summary.Value(tag=tags.levels(name), metadata=about, tensor=tensor_util.make_tensor_proto(buckets))
        )
    if found:
        board.add(step, Summary(value=found))


def level_buckets(low: int, counts: Sequence[int]) -> NDArray[np.float32]:
    """Returns buckets for TensorBoard, float32 (K, 3), each with left edge, right edge and count.

    counts: of each level from `low` on.

    TensorBoard's page spreads a bucket over the bins that it overlaps, 30 in all. One without a width falls into one
    bin, so that each level is a spike with gaps beside it, shown within a quarter of where it is. 16 levels need 31
    bins for that: with next to nothing left beyond the highest, it has no gap to the one below it, and all others do.
    The page loses a level that meets the edge of a bin; none does with these margins. More levels than bins cannot be
    told apart there: their buckets are as wide as levels are apart.
    """
    if len(counts) > SHOWN_BINS + 1:
        return np.array([(level - 0.5, level + 0.5, n) for level, n in enumerate(counts, low)], dtype=np.float32)
    rows, left = list[tuple[float, float, float]](), low - 0.45
    for level, n in enumerate(counts, low):
        rows += [(left, level, 0), (level, level, n)]
        left = level
    rows.append((left, left + (0.5 if len(counts) <= SHOWN_BINS / 2 else 0.01), 0))
    return np.array(rows, dtype=np.float32)


def add(board: Board, tensors: Mapping[str, torch.Tensor], *, step: int) -> None:
    """Writes a histogram of the finite values of each tensor, by its tag; where there is none, nothing."""
    if tensors:
        _add_rows(board, tensors, count([*tensors.values()]).tolist(), step=step)


def _add_rows(board: Board, names: Iterable[str], rows: Sequence[list[float]], *, step: int) -> None:
    """rows: as `count` returns them, a row a tag."""
    for tag, (low, high, sum_, sum_squares, *counts) in zip(names, rows, strict=True):
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
    start = torch.zeros(len(tensors), dtype=torch.float64, device=tensors[0].device)
    low, high, sums, squares = start + torch.inf, start - torch.inf, start.clone(), start.clone()
    for values, owner in _groups(tensors):
        finite = values.isfinite()
        known = torch.where(finite, values, 0.0)
        low.scatter_reduce_(0, owner, torch.where(finite, values, torch.inf).amin(1).double(), "amin")
        high.scatter_reduce_(0, owner, torch.where(finite, values, -torch.inf).amax(1).double(), "amax")
        sums.scatter_add_(0, owner, known.sum(1, dtype=torch.float64))
        squares.scatter_add_(0, owner, torch.linalg.vector_norm(known, dim=1, dtype=torch.float64).square())

    is_flat = low == high
    first, scale = torch.where(is_flat, low - 0.5, low), NUM_BINS / torch.where(is_flat, 1.0, high - low)
    counts = torch.zeros(len(tensors) * (NUM_BINS + 1), dtype=torch.int64, device=start.device)
    for values, owner in _groups(tensors):
        bins = ((values - first[owner, None]) * scale[owner, None]).clamp_(0, NUM_BINS - 1)
        bins = torch.where(values.isfinite(), bins, NUM_BINS).long()  # the last is for what is not finite
        bins += owner[:, None] * (NUM_BINS + 1)
        counts.scatter_add_(0, bins.flatten(), counts.new_ones(1).expand(bins.numel()))
    bins_of_each = counts.view(len(tensors), -1)[:, :NUM_BINS].double()
    return torch.cat((torch.stack((low, high, sums, squares), dim=1), bins_of_each), dim=1)


def count_levels(tensors: Sequence[Levels]) -> list[torch.Tensor]:
    """Returns how many values are on each level, a tensor int64 (levels,) each, and waits for nothing."""
    found = []
    for values, low, high in tensors:
        counts = torch.zeros(high - low + 1, dtype=torch.int64, device=values.device)
        one = counts.new_ones(1)
        for part in torch.split(values.flatten(), GROUP_VALUES):
            places = part.long().clamp_(low, high) - low  # what is no number has been made any whole one
            counts.scatter_add_(0, places, one.expand(len(part)))
        found.append(counts)
    return found


def _groups(tensors: Sequence[torch.Tensor]) -> Iterator[Group]:
    """All values as rows, each filled up with NaN, some at a time; which tensor each row is of, by its number."""
    filling = torch.full((ROW,), torch.nan, device=tensors[0].device)
    pieces: list[torch.Tensor] = []
    owners: list[int] = []
    for number, tensor in enumerate(tensors):
        for part in torch.split(tensor.flatten(), GROUP_VALUES):
            pieces += [part.float(), filling[: -len(part) % ROW]]
            owners += [number] * -(-len(part) // ROW)
            if len(owners) >= GROUP_VALUES // ROW:
                yield _group(pieces, owners)
                pieces, owners = [], []
    if owners:
        yield _group(pieces, owners)


def _group(pieces: list[torch.Tensor], owners: list[int]) -> Group:
    owner, device = torch.tensor(owners), pieces[0].device
    if device.type == "cuda":
        owner = owner.pin_memory()
    return torch.cat(pieces).view(-1, ROW), owner.to(device, non_blocking=True)
