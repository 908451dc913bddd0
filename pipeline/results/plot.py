"""The curves of compared runs as an image, by matplotlib, without a display."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from pipeline.errors import UsageError
from pipeline.results.compare import Comparison
from pipeline.results.compared_run import ComparedRun, as_text
from pipeline.wording import cut

# Okabe and Ito, "Color Universal Design", 2008, without the yellow, which is too light for a line.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", ":", "-.")  # one more for each time that the colours are used up
MAX_MARKED = 60  # points, up to which each is marked
LEGEND_WIDTH = 105  # characters that fit
NAMED_FIELDS = 3  # in a legend's line
ALIKE = 1.02  # times as many steps an epoch: one that is left out, or rounded up


def check_suffix(out: Path) -> None:
    if out.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{out}: a plot's name should end in .png or .svg")


def draw(comparison: Comparison, labels: Mapping[str, str], out: Path, file: BinaryIO) -> None:
    """Writes an image of the metric over what `axis_of` says, a curve a run; `out` says as what. labels: short ids.

    Raises UsageError where no run has the metric.
    """
    metric = comparison.metric
    runs = [run for run in comparison.runs if run.curves.get(metric)]
    if not runs:
        raise UsageError(f"{out}: there is nothing to draw: no run has {metric}")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of each folder that it cannot keep fonts in
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    axis = axis_of(runs)
    names = legend(comparison, runs, labels)
    below = 0.22 * len(runs)  # inches of legend
    figure = Figure(figsize=(8, 4.5 + below), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        points = run.curves[metric]
        axes.plot(
            [point.step if axis == "step" else run.epoch_at(point.step) or 0.0 for point in points],
            [point.value for point in points],
            color=COLORS[number % len(COLORS)],
            linestyle=STYLES[number // len(COLORS) % len(STYLES)],
            marker="o" if len(points) <= MAX_MARKED else None,
            markersize=3.5,
            label=name,
        )
    axes.set_xlabel(axis)
    axes.set_ylabel(metric, parse_math=False)
    if "accuracy" in metric:
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for text in figure.legend(loc="outside lower left", frameon=False, fontsize="small").get_texts():
        text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that its font lacks; a box stands for each
        figure.savefig(file, format=out.suffix.lower().removeprefix("."))


def axis_of(runs: Iterable[ComparedRun]) -> Literal["step", "epoch"]:
    """Returns what the curves of these runs are drawn over: epochs where one is not as many steps in all."""
    share = [run.epoch_at(1) for run in runs]  # of an epoch, that a step is
    known = [value for value in share if value is not None]
    are_alike = len(known) < len(share) or max(known, default=0.0) <= ALIKE * min(known, default=0.0)
    return "step" if are_alike else "epoch"


def legend(comparison: Comparison, runs: list[ComparedRun], labels: Mapping[str, str]) -> list[str]:
    """Names each run by what is its own, `digits: train.optimizer.lr 0.01`, or by its id where that says too little."""
    shown = comparison.differing[:NAMED_FIELDS]
    more = ", ..." if len(comparison.differing) > NAMED_FIELDS else ""
    names = []
    for run in runs:
        own = ", ".join(f"{field} {cut(as_text(run.value(field)), 30)}" for field in shown)
        names.append(f"{run.fields.get('name', run.id)}: {own}{more}" if own else labels[run.id])
    times = Counter(names)
    full = [name if times[name] == 1 else f"{labels[run.id]} {name}" for run, name in zip(runs, names, strict=True)]
    return [cut(name, LEGEND_WIDTH) for name in full]
