"""Charts of a sweep by its fields: parallel coordinates, and the objective against each field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.markers import TICKRIGHT
from matplotlib.ticker import MaxNLocator, NullLocator

from pipeline.queue.sweeps import SweepView, TrialView
from pipeline.results import report_svg
from pipeline.results.report_svg import Picture
from pipeline.results.sweep_axes import Axis
from pipeline.results.sweep_charts import BEST, GROUPS, drawn, how_many, in_words, is_share, scored
from pipeline.wording import cut, plural

MAX_FIELDS = 8  # that are drawn
MAX_TICKS = 6  # choices that are named on an axis
MAX_LETTERS = 22  # of all choices, to be written side by side
MAX_CHOICE = 14  # letters of one
SIDE_BY_SIDE = 4  # fields whose names fit on a line
MANY = 100  # lines
GOLDEN = 0.618034


def complete(view: SweepView) -> list[TrialView]:
    """Returns the trials that have succeeded with figures, the best first."""
    return [trial for trial in view.ranked if trial.is_complete]


# Parallel coordinates


def parallel(view: SweepView, fields: Sequence[Axis]) -> Picture | None:
    """Draws a line a trial through its values and its objective; of a single field, its slice says the same."""
    (tag, is_high), *_ = view.record.objectives
    ranked = complete(view)
    if not ranked or len(fields) < 2:
        return None
    values = [score.values[0] for _, score in scored(ranked)]
    # As of a range, so that the best is on top whether it is the highest or the lowest.
    scale = Axis(tag, tag, (), min(values), max(values), _is_log(tag, values))
    lines = [
        [*(_height(axis, trial) for axis in fields), _up(scale, score.values[0], is_high=is_high)]
        for trial, score in scored(drawn(ranked))
    ]
    with report_svg.drawing("parallel", (11, 4)) as figure:
        axes = figure.add_axes((0.055, 0.07, 0.875, 0.76))
        axes.set_axis_off()
        axes.set_xlim(0, len(fields))
        axes.set_ylim(0, 1)
        levels = len(report_svg.RAMP)  # most lines have a weak colour, for the best to be seen
        for rank, heights in enumerate(lines):
            better_than = rank / len(lines)
            colour, width = report_svg.RAMP[int(better_than**2 * levels)], 1.2 if len(lines) < MANY else 0.8
            if rank == len(lines) - 1:
                colour, width = report_svg.TEST, 2.8
            pieces = LineCollection(list(_pieces(heights)), colors=[colour], linewidths=[width], clip_on=False)
            axes.add_collection(pieces)
        for place, axis in enumerate(fields):
            ticks = [(axis.share(at), text) for at, text in _ticks(axis)]
            _draw_axis(axes, place, axis.label, ticks, is_high=place % 2 == 1 and len(fields) > SIDE_BY_SIDE)
        ticks = [(_up(scale, at, is_high=is_high), _short_value(tag, at)) for at, _ in _ticks(scale)]
        _draw_axis(axes, len(fields), tag, ticks)
        summary = f"A line for each of {plural(len(lines), 'trial')} through its values of {_and(fields)}, and {tag}. "
        best = ", ".join(f"{axis.label} {_value_in_words(axis, ranked[0])}" for axis in fields)
        summary += f"The best, trial {ranked[0].number:,}: {best}; {tag} {in_words(tag, values[0])}."
        svg = report_svg.for_the_page(figure, "parallel", "Parallel coordinates, a chart", summary)
    caption = (
        "A line is a trial that has succeeded; the better it is, the stronger its colour, and the best one is thick. "
        f"On the axis of {tag}, the best is on top."
    )
    return Picture("parallel", "Parallel coordinates", caption + how_many(ranked), svg)


def _is_log(tag: str, values: Sequence[float]) -> bool:
    return not is_share(tag) and min(values) > 0 and max(values) > report_svg.LOG_SCALE_FROM * min(values)


def _up(scale: Axis, value: float, *, is_high: bool) -> float:
    share = scale.share(value)
    return share if is_high else 1 - share


def _height(axis: Axis, trial: TrialView) -> float | None:
    place = axis.place(trial.values)
    return None if place is None else axis.share(place)


def _pieces(heights: Sequence[float | None]) -> Iterator[list[tuple[float, float]]]:
    """Yields the line from axis to axis; it is broken where a trial has no value."""
    for (place, height), (next_place, next_height) in pairwise(enumerate(heights)):
        if height is not None and next_height is not None:
            yield [(place, height), (next_place, next_height)]


def _draw_axis(
    axes: Axes, place: float, label: str, ticks: Sequence[tuple[float, str]], *, is_high: bool = False
) -> None:
    """is_high: whether its name stands above those of its neighbours, so that long ones do not run into each other."""
    axes.plot([place, place], [0, 1], color=report_svg.INK, linewidth=1, clip_on=False, zorder=4)
    axes.text(place, 1.13 if is_high else 1.05, label, ha="center" if place else "left", va="bottom", fontsize=11)
    for height, text in ticks:
        axes.plot([place], [height], marker=TICKRIGHT, markersize=4, color=report_svg.INK, clip_on=False, zorder=4)
        axes.annotate(
            text, (place, height), (6, 0), textcoords="offset points", va="center", fontsize=9.5, annotation_clip=False
        )


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """Returns some places on an axis, and what is written there."""
    if axis.choices:
        step = math.ceil(len(axis.choices) / MAX_TICKS)
        return [(float(place), cut(text, MAX_CHOICE)) for place, text in enumerate(axis.choices)][::step]
    if axis.low == axis.high:
        return [(axis.low, f"{axis.low:g}")]
    if axis.is_log:
        return [(at, f"{at:g}") for at in _log_ticks(axis.low, axis.high)]
    inner = MaxNLocator(4).tick_values(axis.low, axis.high)
    return [(float(at), f"{at:g}") for at in inner if axis.low <= at <= axis.high]


def _log_ticks(low: float, high: float, most: int = MAX_TICKS) -> list[float]:
    """Returns powers of ten, and both ends where there are hardly any."""
    powers = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return powers[:: math.ceil(len(powers) / most)] if len(powers) > 2 else sorted({low, *powers[1:-1], high})


def _short_value(tag: str, value: float) -> str:
    return f"{100 * value:g} %" if is_share(tag) else f"{value:.3g}"


def _value_in_words(axis: Axis, trial: TrialView) -> str:
    place = axis.place(trial.values)
    if place is None:
        return "not known"
    return axis.choices[int(place)] if axis.choices else f"{place:g}"


def _and(fields: Sequence[Axis]) -> str:
    return ", ".join(axis.label for axis in fields)


# Slices


def slices(view: SweepView, fields: Sequence[Axis]) -> list[Picture]:
    """Draws the first objective against each field, a chart a field."""
    found = (_slice(view, axis, f"slice{number}") for number, axis in enumerate(fields))
    return [picture for picture in found if picture is not None]


def _slice(view: SweepView, axis: Axis, chart_id: str) -> Picture | None:
    (tag, _), *_ = view.record.objectives
    ranked = complete(view)
    points = [
        (trial.number, place, score.values[0])
        for trial, score in scored(drawn(ranked))
        if (place := axis.place(trial.values)) is not None
    ]
    if not points:
        return None
    values = [value for _, _, value in points]
    with report_svg.drawing(chart_id, (3.5, 2.6)) as figure:
        axes = report_svg.axes(figure, (0.2, 0.22, 0.76, 0.72))
        places = [_spread(number, place) if axis.choices else place for number, place, _ in points]
        axes.plot(places, values, linestyle="", alpha=0.7, **GROUPS["succeeded"])
        axes.plot(places[-1:], values[-1:], **BEST)
        if axis.choices:
            _name_choices(axes, axis)
        elif axis.is_log:
            report_svg.scale_log(axes, "x")
            axes.set_xlim(axis.low * 0.8, axis.high * 1.25)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(_log_ticks(axis.low, axis.high, most=4))
        else:
            axes.locator_params(axis="x", nbins=4)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        report_svg.scale_values(axes, values, is_share=is_share(tag))
        axes.set_xlabel(axis.label)
        summary = f"{tag} against {axis.field} of {plural(len(points), 'trial')}. {_best_of_choices(axis, view, tag)}"
        svg = report_svg.for_the_page(figure, chart_id, f"{tag} against {axis.label}, a chart", summary)
    return Picture(chart_id, axis.label, how_many(ranked), svg)


def _spread(number: int, place: float) -> float:
    """Returns a place beside that of the choice, so that trials with the same value do not hide each other."""
    return place + (number * GOLDEN % 1 - 0.5) * 0.4


def _name_choices(axes: Axes, axis: Axis) -> None:
    named = _ticks(axis)
    axes.set_xlim(-0.6, len(axis.choices) - 0.4)
    is_wide = sum(len(text) + 2 for _, text in named) > MAX_LETTERS
    style: dict[str, Any] = {"rotation": 20, "ha": "right", "rotation_mode": "anchor", "fontsize": 9} if is_wide else {}
    axes.set_xticks([place for place, _ in named], [text for _, text in named], **style)
    if is_wide:
        axes.set_position((0.2, 0.34, 0.76, 0.6))


def _best_of_choices(axis: Axis, view: SweepView, tag: str) -> str:
    """Says where the best trial lies; of choices, the best value of each."""
    ranked = complete(view)
    if not axis.choices:
        return f"The best lies at {_value_in_words(axis, ranked[0])}."
    best: dict[str, str] = {}
    for trial, score in scored(ranked):
        best.setdefault(_value_in_words(axis, trial), in_words(tag, score.values[0]))
    return "The best of each: " + ", ".join(f"{choice} {value}" for choice, value in list(best.items())[:20]) + "."
