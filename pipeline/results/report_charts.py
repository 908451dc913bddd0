"""The curves of a run as charts, each with a text for those who do not see it and a table of key values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.board import tags
from pipeline.board.events import Point
from pipeline.results import report_svg
from pipeline.results.report_page import percent

MAX_POINTS = 1000  # that a line is drawn with
MARKED_POINTS = 30  # so few are marked one by one

STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": report_svg.TRAIN, "linewidth": 1.2},
    "val": {"color": report_svg.VAL, "linewidth": 1.8, "linestyle": (0, (1, 1)), "marker": "s"},
    "test": {
        "color": report_svg.TEST,
        "linewidth": 1.8,
        "linestyle": (0, (5, 1.5)),
        "marker": "o",
    },  # told apart in grey, too
}


@dataclass(frozen=True)
class ChartKind:
    """What a chart shows, and how."""

    id: str
    title: str
    series: tuple[tuple[str, str], ...]  # tag, and name
    epoch_means: Mapping[str, str] = field(default_factory=dict)  # of a name: the tag whose values are told of it
    best: Callable[[Sequence[Point]], Point] | None = None
    best_name: str = ""
    format: Callable[[float], str] = "{:.4g}".format
    is_share: bool = False
    may_be_log: bool = False  # on a logarithmic scale, where the values are far apart


def _least(points: Sequence[Point]) -> Point:
    return min(points, key=lambda point: point.value)


def _most(points: Sequence[Point]) -> Point:
    return max(points, key=lambda point: point.value)


KINDS = (
    ChartKind(
        "loss",
        "Loss",
        ((tags.TRAIN_LOSS, "train"), (tags.VAL_LOSS, "val"), (tags.TEST_LOSS, "test")),
        {"train": tags.EPOCH_LOSS},
        best=_least,
        best_name="Lowest",
        may_be_log=True,
    ),
    ChartKind(
        "accuracy",
        "Accuracy",
        ((tags.TRAIN_ACCURACY, "train"), (tags.VAL_ACCURACY, "val"), (tags.TEST_ACCURACY, "test")),
        {"train": tags.EPOCH_ACCURACY},
        best=_most,
        best_name="Highest",
        format=percent,
        is_share=True,
    ),
    ChartKind("learning-rate", "Learning rate", ((tags.LEARNING_RATE, "train"),), best=_most, best_name="Highest"),
    ChartKind(
        "gradient-norm",
        "Gradient norm",
        ((tags.GRADIENT_NORM, "train"),),
        best=_most,
        best_name="Highest",
        may_be_log=True,
    ),
)


@dataclass(frozen=True)
class Chart:
    id: str
    title: str
    summary: str
    svg: Markup | None  # None where no value is finite
    best_name: str
    rows: list[list[str]]  # name, first, best, last: a row a series
    note: str


def charts(curves: Mapping[str, Sequence[Point]], epoch_of: Callable[[int], str]) -> list[Chart]:
    """Returns those that have points. Of the training, all points are drawn, and the mean of each epoch is told."""
    found = []
    for kind in KINDS:
        drawn, told = dict[str, Sequence[Point]](), dict[str, Sequence[Point]]()
        for tag, name in kind.series:
            points, means = curves.get(tag), curves.get(kind.epoch_means.get(name, ""))
            if points or means:
                drawn[name] = points or means or []
                told[f"{name}, mean of each epoch" if means else name] = means or points or []
        if drawn:
            found.append(_chart(kind, drawn, told, epoch_of))
    return found


def _chart(
    kind: ChartKind,
    series: Mapping[str, Sequence[Point]],
    told: Mapping[str, Sequence[Point]],
    epoch_of: Callable[[int], str],
) -> Chart:
    """series: what is drawn, by name. told: what is told of it in words and numbers."""
    rows = [[name, *_key_values(kind, _finite(points), epoch_of)] for name, points in told.items() if _finite(points)]
    steps = [point.step for points in series.values() for point in (points[0], points[-1])]
    summary = f"{kind.title} at each step from {min(steps):,} to {max(steps):,}. " + " ".join(
        f"{name}: {first} first, {kind.best_name.lower()} {best}, {last} at last." for name, first, best, last in rows
    )
    note = " ".join(_not_finite(name, points) for name, points in series.items()).strip()
    values = [point.value for points in series.values() for point in _finite(points)]
    svg = _draw(kind, series, values, summary) if values else None
    return Chart(kind.id, kind.title, summary, svg, kind.best_name, rows, note)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point.value)]


def _key_values(kind: ChartKind, points: Sequence[Point], epoch_of: Callable[[int], str]) -> list[str]:
    """Returns the first, best and last value, in words."""
    best = kind.best(points) if kind.best else points[-1]
    where = f" at step {best.step:,}{epoch_of(best.step)}"
    return [kind.format(points[0].value), kind.format(best.value) + where, kind.format(points[-1].value)]


def _not_finite(name: str, points: Sequence[Point]) -> str:
    bad = [point for point in points if not math.isfinite(point.value)]
    if not bad:
        return ""
    values = "value is" if len(bad) == 1 else "values are"
    return f"{name}: {len(bad):,} {values} no finite number, first at step {bad[0].step:,}, and left out."


def thinned(points: Sequence[Point], limit: int = MAX_POINTS) -> list[tuple[int, float]]:
    """Returns up to `limit` points that keep every peak: of each stretch the lowest and highest. NaN leaves a gap."""
    shown = [(point.step, point.value if math.isfinite(point.value) else math.nan) for point in points]
    if len(shown) <= limit:
        return shown
    kept = []
    stretches = limit // 2
    for index in range(stretches):
        stretch = shown[index * len(shown) // stretches : (index + 1) * len(shown) // stretches]
        finite = [pair for pair in stretch if not math.isnan(pair[1])]
        if finite:
            kept += sorted({min(finite, key=lambda pair: pair[1]), max(finite, key=lambda pair: pair[1])})
        else:
            kept.append(stretch[0])
    return kept


def _draw(kind: ChartKind, series: Mapping[str, Sequence[Point]], finite: list[float], summary: str) -> Markup:
    with report_svg.drawing(kind.id, (5, 3.1)) as figure:
        axes = report_svg.axes(figure, (0.15, 0.16, 0.82, 0.74))
        for name, points in series.items():
            steps, values = zip(*thinned(points), strict=True)
            marker = {} if len(points) <= MARKED_POINTS else {"marker": ""}
            size = {"marker": "o", "markersize": 6} if len(points) == 1 else {"markersize": 3.5}
            axes.plot(steps, values, label=name, **{**STYLES[name], **marker, **size})
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        report_svg.scale_values(axes, finite, is_share=kind.is_share, may_be_log=kind.may_be_log)
        if len(series) > 1:
            axes.legend(
                frameon=False, ncols=len(series), loc="lower right", bbox_to_anchor=(1, 0.97)
            )  # not on the curves
        return report_svg.for_the_page(figure, kind.id, f"{kind.title}, a chart", summary)
