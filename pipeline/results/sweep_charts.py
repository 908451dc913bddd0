"""Charts of a sweep as a whole: its history, the curves of its trials, the front of several objectives, importances."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, combinations
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.board.events import Point
from pipeline.queue.sweeps import Score, SweepView, TrialView, value_of
from pipeline.results import report_svg
from pipeline.results.report_charts import thinned
from pipeline.results.report_page import percent
from pipeline.results.report_svg import Picture
from pipeline.results.sweep_axes import Axis
from pipeline.wording import plural

MAX_DRAWN = 300  # trials in one chart; of more, the best ones
MAX_BARS = 15
MAX_CURVE_POINTS = 8000  # of all trials together
WIDE = (11, 3.6)
PLACE = (0.075, 0.16, 0.91, 0.72)  # of the axes in a wide chart
BEST: dict[str, Any] = {"marker": "*", "markersize": 13, "color": report_svg.TEST, "linestyle": "", "zorder": 5}
GROUPS: Mapping[str, dict[str, Any]] = {
    "succeeded": {"marker": "o", "color": report_svg.TRAIN, "markersize": 4.5},
    "pruned": {"marker": "v", "color": report_svg.VAL, "markersize": 5.5, "markerfacecolor": "none"},
    "not ended, or ended otherwise": {
        "marker": "D",
        "color": report_svg.SOFT,
        "markersize": 4.5,
        "markerfacecolor": "none",
    },
}
"""Told apart by their shapes, too."""


def is_share(tag: str) -> bool:
    return tag.endswith("accuracy")


def in_words(tag: str, value: float) -> str:
    """Returns a value of an objective, for people."""
    if is_share(tag):
        return percent(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def scored(trials: Sequence[TrialView]) -> list[tuple[TrialView, Score]]:
    """Returns the trials that have figures, each with them."""
    return [(trial, trial.score) for trial in trials if trial.score is not None]


def drawn(ranked: Sequence[TrialView]) -> list[TrialView]:
    """Returns the best trials, as many as can be told apart in a chart; the best is the last, on top of the others."""
    return list(ranked[:MAX_DRAWN])[::-1]


def how_many(trials: Sequence[TrialView]) -> str:
    """Says which of the trials are drawn, where not all are."""
    return f" Of {len(trials):,} trials, the {MAX_DRAWN} best are drawn." if len(trials) > MAX_DRAWN else ""


# History


def history(view: SweepView) -> Picture | None:
    """Draws each trial's value by its number, and the best so far."""
    (tag, is_high), *_ = view.record.objectives
    known = scored(view.trials)
    if not known:
        return None
    complete = sorted((trial.number, score.values[0]) for trial, score in known if trial.is_complete)
    best = list(accumulate((value for _, value in complete), max if is_high else min))
    summary = f"{tag} of {plural(len(known), 'trial')} by their numbers. "
    summary += _history_in_words(tag, complete, best, "highest" if is_high else "lowest")
    with report_svg.drawing("history", WIDE) as figure:
        axes = report_svg.axes(figure, PLACE)
        _draw_trials(axes, view.trials)
        if best:
            numbers = [number for number, _ in complete]
            axes.plot(numbers, best, label="best so far", color=report_svg.TEST, drawstyle="steps-post", linewidth=1.6)
            axes.plot([numbers[best.index(best[-1])]], [best[-1]], **BEST)
        report_svg.scale_values(axes, [score.values[0] for _, score in known], is_share=is_share(tag))
        _count(axes, "trial")
        axes.set_ylabel(tag)
        _legend(axes)
        svg = report_svg.for_the_page(figure, "history", "History, a chart", summary)
    caption = f"{tag} of each trial in its best epoch, in the order in which they were asked for."
    return Picture("history", "History", caption, svg)


def _draw_trials(axes: Axes, trials: Sequence[TrialView]) -> None:
    """Draws a mark a trial; those that ended without a value lie on the lower edge."""
    for name, style in GROUPS.items():
        group = [(trial.number, score.values[0]) for trial, score in scored(trials) if _group(trial) == name]
        if group:
            axes.plot(*zip(*group, strict=True), label=name, linestyle="", **style)
    without = [trial.number for trial in trials if trial.score is None and trial.job and trial.job.outcome]
    if without:
        style = {"marker": "x", "color": report_svg.SOFT, "markersize": 6, "linestyle": "", "clip_on": False}
        edge = axes.get_xaxis_transform()
        axes.plot(without, [0.0] * len(without), label="without a value", transform=edge, **style)


def _history_in_words(tag: str, complete: Sequence[tuple[int, float]], best: Sequence[float], better: str) -> str:
    if not complete:
        return "None has succeeded."
    last = best.index(best[-1])
    first, found = complete[0], complete[last]
    return (
        f"The first that succeeded, trial {first[0]:,}, has {in_words(tag, first[1])}; the {better} value, "
        f"{in_words(tag, found[1])}, was found by trial {found[0]:,}."
    )


def _group(trial: TrialView) -> str:
    return trial.outcome if trial.outcome in GROUPS else list(GROUPS)[-1]


def _count(axes: Axes, name: str) -> None:
    axes.set_xlabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))


def _legend(axes: Axes, *, columns: int = 6) -> None:
    """Writes each name once, above the chart and on the left, where a phone shows it first."""
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = sorted(handles, key=lambda label: [*GROUPS, label].index(label))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 0.98), "borderaxespad": 0.2, "borderpad": 0}
    spaces: dict[str, Any] = {"frameon": False, "ncols": columns, "columnspacing": 1.3}
    axes.legend([handles[label] for label in order], order, **place, **spaces)


# Curves


def curves(view: SweepView) -> Picture | None:
    """Draws the first objective after each epoch of each trial."""
    (tag, _), *_ = view.record.objectives
    ranked = [*view.ranked, *(trial for trial in view.trials if trial.score is None)]
    found = [(trial, points) for trial in drawn(ranked) if (points := _points(trial, tag))]
    longest = max((points[-1].step for _, points in found), default=0)
    if longest < 2:  # the history says the same
        return None
    pruned = sum(trial.outcome == "pruned" for trial, _ in found)
    summary = f"{tag} after each epoch of {plural(len(found), 'trial')}, up to epoch {longest:,}."
    summary += f" Pruned: {pruned:,}." if pruned else ""
    best = next((trial.number for trial in view.ranked if trial.is_complete), None)
    with report_svg.drawing("curves", WIDE) as figure:
        axes = report_svg.axes(figure, PLACE)
        for trial, points in found:
            limit = max(10, MAX_CURVE_POINTS // len(found))
            _draw_curve(axes, trial, thinned(points, limit), is_best=trial.number == best)
        report_svg.scale_values(axes, [p.value for _, points in found for p in points], is_share=is_share(tag))
        _count(axes, "epoch")
        axes.set_ylabel(tag)
        _legend(axes)
        svg = report_svg.for_the_page(figure, "curves", "Learning curves, a chart", summary)
    caption = f"{tag} after each epoch."
    caption += " A curve that ends early, in a triangle, is that of a trial that was pruned." if pruned else ""
    return Picture("curves", "Learning curves", caption + how_many(ranked), svg)


def _points(trial: TrialView, tag: str) -> list[Point]:
    values = ((epoch, value_of(metrics, tag)) for epoch, metrics in trial.epochs.items())
    return [Point(epoch, 0.0, value) for epoch, value in values if value is not None]


def _draw_curve(axes: Axes, trial: TrialView, points: Sequence[tuple[int, float]], *, is_best: bool) -> None:
    name = _group(trial)
    style = {"color": GROUPS[name]["color"], "linewidth": 0.9, "alpha": 0.65}
    if name != "succeeded":
        style["linestyle"] = (0, (4, 1.5))
    if is_best:
        name, style = "the best", {"color": report_svg.TEST, "linewidth": 2.4, "zorder": 5}
    if len(points) == 1:
        style |= {"marker": "o", "markersize": 3}
    axes.plot(*zip(*points, strict=True), label=name, **style)
    if trial.outcome == "pruned":
        axes.plot(*points[-1], **{**GROUPS["pruned"], "markersize": 4})


# Several objectives


def fronts(view: SweepView, best: Sequence[TrialView]) -> list[Picture]:
    """Draws each pair of the objectives against each other."""
    complete = [pair for pair in scored(view.trials) if pair[0].is_complete]
    objectives = list(enumerate(view.record.objectives))
    if len(objectives) < 2 or not complete:
        return []
    numbers = {trial.number for trial in best}
    return [_front(complete, numbers, pair, is_all=len(objectives) == 2) for pair in combinations(objectives, 2)]


def _front(
    complete: Sequence[tuple[TrialView, Score]],
    best: Collection[int],
    pair: Sequence[tuple[int, tuple[str, bool]]],
    *,
    is_all: bool,
) -> Picture:
    """best: numbers of the trials on the front. is_all: whether there are no other objectives, so that it is a line."""
    (one, (tag_x, x_is_high)), (other, (tag_y, y_is_high)) = pair
    chart_id = f"front{one}{other}"
    points = {t.number: (s.values[one], s.values[other]) for t, s in complete}
    front = sorted(points[number] for number in best if number in points)
    with report_svg.drawing(chart_id, (5.5, 3.8)) as figure:
        axes = report_svg.axes(figure, (0.16, 0.14, 0.81, 0.75))
        rest = [point for number, point in points.items() if number not in best]
        if rest:
            axes.plot(*zip(*rest, strict=True), label="other trials", linestyle="", **GROUPS["succeeded"], alpha=0.7)
        line: dict[str, Any] = {"linewidth": 1.4} if is_all else {"linestyle": ""}
        style: dict[str, Any] = {"color": report_svg.TEST, "marker": "D", "markersize": 6, **line}
        axes.plot(*zip(*front, strict=True), label="front", **style)
        axes.locator_params(axis="x", nbins=5)
        report_svg.scale_values(axes, [x for x, _ in points.values()], is_share=is_share(tag_x), which="x")
        report_svg.scale_values(axes, [y for _, y in points.values()], is_share=is_share(tag_y))
        axes.set_xlabel(_wanted(tag_x, x_is_high))
        axes.set_ylabel(_wanted(tag_y, y_is_high))
        _legend(axes)
        told = "; ".join(f"{in_words(tag_x, x)} and {in_words(tag_y, y)}" for x, y in front[:10])
        summary = f"{tag_y} against {tag_x} of {plural(len(points), 'trial')}; {len(front):,} on the front: {told}."
        title = f"{tag_y} against {tag_x}"
        svg = report_svg.for_the_page(figure, chart_id, f"{title}, a chart", summary)
    return Picture(chart_id, title, "", svg)


def _wanted(tag: str, is_high: bool) -> str:
    return f"{tag} {'↑' if is_high else '↓'}"


# Importances


def importance_bars(axes_of: Sequence[Axis], shares: Mapping[str, Mapping[str, float]]) -> Picture | None:
    """Draws a bar a field and objective, the most important field on top. shares: by objective, then by field."""
    if not shares:
        return None
    first = next(iter(shares.values()))
    labels = {axis.field: axis.label for axis in axes_of}
    fields = sorted(first, key=lambda field: first[field])[-MAX_BARS:]
    count, height = len(shares), 0.8 / len(shares)
    colours = (report_svg.TRAIN, report_svg.TEST, report_svg.VAL)
    size = (5.5, 0.6 + (0.32 if count == 1 else 0.25 + 0.2 * count) * max(len(fields), 2))
    above = 0.1 if count == 1 else 0.25 * count  # where the legend is
    with report_svg.drawing("importances", size) as figure:
        axes = report_svg.axes(figure, (0.34, 0.4 / size[1], 0.58, 1 - (0.4 + above) / size[1]))
        for index, (tag, share_of) in enumerate(shares.items()):
            places = [row + (count - 1) / 2 * height - index * height for row in range(len(fields))]
            widths = [share_of.get(field, 0.0) for field in fields]
            bars = axes.barh(places, widths, height=0.9 * height, color=colours[index % 3], label=tag)
            axes.bar_label(bars, [f"{100 * width:.0f} %" for width in widths], padding=3, fontsize=10)
        axes.grid(visible=False)
        axes.set_yticks(range(len(fields)), [labels.get(field, field) for field in fields])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.12 * max(max(share_of.values()) for share_of in shares.values()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        if count > 1:
            _legend(axes, columns=1)
        summary = "; ".join(
            f"of {tag}: " + ", ".join(f"{f} {100 * share_of.get(f, 0):.0f} %" for f in reversed(fields))
            for tag, share_of in shares.items()
        )
        svg = report_svg.for_the_page(figure, "importances", "Importances, a chart", f"Importance {summary}.")
    return Picture("importances", "Importances", "", svg)
