"""The levels of quantized weights as TensorBoard's page shows them: spikes, in the dashboard's thirty bins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from dashboards import serving
from quick import wait_until
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from torch import nn

from pipeline.board import histograms, tags
from pipeline.board.writer import Board

TAG = tags.levels("0.weight")
Buckets = Sequence[Sequence[float]]

RANGES = [(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (2, 3, 4)]  # lsq, symmetric
RANGES += [(0, 2**bits - 1) for bits in (2, 3, 4)]  # affine
RANGES += [(-1, 1)]  # binary, ternary
ODD_RANGES = [(-(2**bits - 1), 2**bits - 1) for bits in (2, 3, 4)]  # dorefa, which uses each second level


def shown(buckets: Buckets, num: int = 30) -> list[tuple[float, float]]:
    """The middles of the bins and their heights, as `intermediateToD3` of TensorBoard's histogramCore.ts has them."""
    low, high = min(left for left, _, _ in buckets), max(right for _, right, _ in buckets)
    width, place, bins = (high - low) / num, 0, []
    for index in range(num):
        begin = low + index * width
        end, height = begin + width, 0.0
        while place < len(buckets):
            left, right, count = buckets[place]
            if right - left > 0:
                height += max(0.0, (min(right, end) - max(left, begin)) / (right - left) * count)
            elif begin <= left and (right <= end if end >= high else right < end):
                height += count
            if right > end:
                break
            place += 1
        bins.append((begin + width / 2, height))
    return bins


def shown_in_time_series(buckets: Buckets, num: int = 30) -> list[float]:
    """The heights, as `rebuildBins` of TensorBoard's histogram_util.ts has them, behind the other dashboard."""
    low, high = buckets[0][0], buckets[-1][1]
    width, place, heights, after = (high - low) / num, 0, [], 0.0
    for index in range(num):
        begin = low + index * width
        end, height, after = begin + width, after, 0.0
        while place < len(buckets):
            left, right, count = buckets[place]
            if left <= end and right >= begin:
                if right > left:
                    height += count * (min(right, end) - max(left, begin)) / (right - left)
                elif index < num - 1 and right >= end:
                    after += count
                else:
                    height += count
            if right > end:
                break
            place += 1
        heights.append(height)
    return heights


def written(folder: Path, values: torch.Tensor, low: int, high: int) -> Buckets:
    """The buckets that TensorBoard's reader finds of a weight's levels."""
    with Board(folder, first_step=0) as board:
        levels = {"0.weight": (values, low, high)}
        counted = histograms.count_parameters(nn.Sequential(nn.Linear(2, 2)), levels=levels)
        assert counted is not None
        counted.write(board, step=3)
    reader = EventAccumulator(str(folder))
    reader.Reload()
    assert TAG in reader.PluginTagToContent("histograms")
    (event,) = reader.Tensors(TAG)
    assert event.step == 3
    buckets: Buckets = tensor_util.make_ndarray(event.tensor_proto).tolist()
    return buckets


@pytest.mark.parametrize(("low", "high", "step"), [(*r, 1) for r in RANGES] + [(*r, 2) for r in ODD_RANGES])
def test_each_level_is_a_spike_where_it_belongs_with_gaps_beside_it(low: int, high: int, step: int) -> None:
    """16 levels have one gap too few: the highest two touch."""
    used = range(low, high + 1, step)
    counts = {level: 100 + number for number, level in enumerate(used)}
    buckets = histograms.level_buckets(low, [counts.get(level, 0) for level in range(low, high + 1)]).tolist()
    bins = shown(buckets)
    assert [height for _, height in bins if height] == list(counts.values())
    assert [height for height in shown_in_time_series(buckets) if height] == list(counts.values())
    at = [index for index, (_, height) in enumerate(bins) if height]
    gaps = [after - before - 1 for before, after in itertools.pairwise(at)]
    assert [number for number, gap in enumerate(gaps) if gap == 0] == ([14] if len(used) == 16 else [])
    assert all(abs(bins[index][0] - level) <= 0.27 * step for index, level in zip(at, used, strict=True))


@pytest.mark.parametrize("bits", [5, 6, 7, 8])
def test_more_levels_than_bins_are_a_histogram_without_gaps(bits: int) -> None:
    """Were they spikes, some bins would have twice as many as others."""
    low, num = -(2 ** (bits - 1)), 2**bits
    buckets = histograms.level_buckets(low, [100] * num).tolist()
    assert len(buckets) == num
    heights = [height for _, height in shown(buckets)]
    assert heights == pytest.approx([100 * num / 30] * 30)
    assert shown_in_time_series(buckets) == pytest.approx(heights)


def test_levels_are_counted_as_they_are(tmp_path: Path) -> None:
    values = torch.randint(-8, 8, (3, 1000), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    values[values == 5] = 4  # one that is not in use
    found = {left: count for left, right, count in written(tmp_path, values, -8, 7) if left == right}
    assert found == {level: int((values == level).sum()) for level in range(-8, 8)}


@pytest.mark.parametrize("values", [[7], [-8], [0, 0]], ids=["highest", "lowest", "zeros"])
def test_the_page_shows_the_same_range_whatever_levels_are_in_use(values: list[int], tmp_path: Path) -> None:
    buckets = written(tmp_path, torch.tensor(values, dtype=torch.int16), -8, 7)
    assert (buckets[0][0], buckets[-1][1]) == (pytest.approx(-8.45), pytest.approx(7.01))
    assert sum(height for _, height in shown(buckets)) == len(values)


def test_a_value_that_is_no_level_breaks_nothing(tmp_path: Path) -> None:
    """A weight that is no number has been made any whole one."""
    values = torch.tensor([math.nan, 300.0, -300.0, 1.0]).to(torch.int16)
    assert sum(count for _, _, count in written(tmp_path, values, -2, 1)) == 4


def test_levels_are_counted_in_pieces_as_they_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randint(-2, 2, (100, 10), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    (at_once,) = histograms.count_levels([(values, -2, 1)])
    monkeypatch.setattr(histograms, "GROUP_VALUES", 7)
    (in_pieces,) = histograms.count_levels([(values, -2, 1)])
    assert torch.equal(in_pieces, at_once)
    assert at_once.tolist() == [int((values == level).sum()) for level in range(-2, 2)]


def test_tensorboard_serves_them_beside_the_weight(tmp_path: Path) -> None:
    values = torch.tensor([-2] * 5 + [0] * 7 + [1] * 3, dtype=torch.int16)
    written(tmp_path / "run", values, -2, 1)
    with serving(tmp_path) as board:
        found = wait_until(lambda: board.get("histograms/tags").get("run"), "TensorBoard to have read the run")
        names = sorted(found)
        assert names[names.index(tags.parameter("0.weight")) + 1] == TAG
        assert "from -2 to 1" in found[TAG]["description"]
        query: dict[str, Any] = {"run": "run", "tag": TAG}
        ((_, step, buckets),) = board.get("histograms/histograms", **query)
        ((_, _, distribution),) = board.get("distributions/distributions", **query)
    assert (step, [height for _, height in shown(buckets) if height]) == (3, [5, 7, 3])
    assert dict(distribution)[5000] == 0, "the median"
