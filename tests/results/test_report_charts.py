"""The charts of a report: what is drawn, and what is told of it in words and numbers."""

from __future__ import annotations

import math
import re

import pytest

from pipeline.board.events import Point
from pipeline.results import report_charts


def curve(values: list[float]) -> list[Point]:
    return [Point(step, 0.0, value) for step, value in enumerate(values, 1)]


def test_a_long_curve_is_thinned_and_keeps_its_peaks() -> None:
    values = [math.sin(step / 1000) for step in range(100_000)]
    values[12_345], values[54_321] = 50.0, -50.0
    thinned = report_charts.thinned(curve(values))
    assert len(thinned) <= report_charts.MAX_POINTS
    assert [step for step, _ in thinned] == sorted({step for step, _ in thinned})
    assert (12_346, 50.0) in thinned
    assert (54_322, -50.0) in thinned
    charts = report_charts.charts({"train/loss": curve(values), "test/loss": curve(values)}, lambda _: "")
    assert charts[0].rows[0][2] == "-50 at step 54,322"
    assert len(str(charts[0].svg)) < 100_000


def test_values_that_are_no_numbers_leave_a_gap_and_are_said() -> None:
    values = [1.0, 2.0, math.nan, math.inf, 4.0]
    [chart] = report_charts.charts({"train/loss": curve(values)}, lambda _: "")
    assert chart.note == "train: 2 values are no finite number, first at step 3, and left out."
    assert chart.rows == [["train", "1", "1 at step 1", "4"]]
    assert math.isnan(report_charts.thinned(curve([math.nan] * 5000))[0][1])
    [chart] = report_charts.charts({"train/loss": curve([math.nan])}, lambda _: "")
    assert (chart.svg, chart.rows) == (None, [])


@pytest.mark.parametrize("values", [[0.0], [1e38, -1e38], [5.0] * 3, [1e-30, 1.0], [0.0, 0.0]])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    tags = ("train/loss", "train/accuracy", "test/accuracy", "train/learning_rate", "train/gradient_norm")
    charts = report_charts.charts({tag: curve(values) for tag in tags}, lambda _: "")
    assert [chart.svg is not None for chart in charts] == [True] * 4


def test_two_charts_share_no_id() -> None:
    charts = report_charts.charts({"train/loss": curve([1, 2]), "test/accuracy": curve([1, 2])}, lambda _: "")
    found = [re.findall(r'\bid="([^"]+)"', str(chart.svg)) for chart in charts]
    assert set(found[0]).isdisjoint(found[1])
    assert all(found)


def test_of_the_training_the_means_of_the_epochs_are_told_and_every_point_is_drawn() -> None:
    """The last points of the curve are of a few steps, and no figure of the epoch."""
    epochs = [Point(10, 0.0, 2.0), Point(20, 0.0, 1.0), Point(30, 0.0, 1.5)]
    curves = {"train/loss": curve([9.0] * 29 + [0.001]), "train/epoch_loss": epochs, "test/loss": epochs[1:]}
    [chart] = report_charts.charts(curves, lambda step: f" (epoch {step // 10})")
    assert chart.rows == [
        ["train, mean of each epoch", "2", "1 at step 20 (epoch 2)", "1.5"],
        ["test", "1", "1 at step 20 (epoch 2)", "1.5"],
    ]
    assert "train, mean of each epoch: 2 first, lowest 1 at step 20 (epoch 2), 1.5 at last." in chart.summary
    assert "0.001" not in chart.summary
    alone = report_charts.charts({"train/loss": curves["train/loss"], "test/loss": epochs[1:]}, lambda _: "")[0]
    assert alone.rows[0] == ["train", "9", "0.001 at step 30", "0.001"], "of a run of before"
    assert _line_of("train", chart.svg) == _line_of("train", alone.svg)


def _line_of(name: str, svg: object) -> str:
    """The longest line of a chart in the colour of a series."""
    lines = re.findall(rf'<path d="([^"]*)"[^>]*stroke: var\(--{name}\)', str(svg))
    return max(lines, key=len)


def test_the_accuracy_of_epochs_is_told_too() -> None:
    curves = {"train/accuracy": curve([0.5, 1.0]), "train/epoch_accuracy": [Point(2, 0.0, 0.75)]}
    [chart] = report_charts.charts(curves, lambda _: "")
    assert chart.rows == [["train, mean of each epoch", "75.00 %", "75.00 % at step 2", "75.00 %"]]
