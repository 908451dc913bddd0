"""Charts as SVG that stands in the page itself.

matplotlib draws with stand-ins for colours, which become variables of the page's style: so a chart follows its light
and its dark colours. Whatever is a name of somebody else's is only text: no markup, no formula.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

LOG_SCALE_FROM = 50.0  # times that the highest value is the lowest one
INK, GRID, TRAIN, TEST, VAL, SOFT = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
RAMP = tuple(f"#0103{level:02x}" for level in range(6))
"""From the worst to the best, from near the page's colour to far from it."""
STAND_INS = {
    INK: "currentColor",
    GRID: "var(--line)",
    TRAIN: "var(--train)",
    TEST: "var(--test)",
    VAL: "var(--val)",
    SOFT: "var(--soft)",
    **{stand_in: f"var(--ramp{level})" for level, stand_in in enumerate(RAMP)},
}


@dataclass(frozen=True)
class Picture:
    """A chart with what is written above and below it."""

    id: str
    title: str
    caption: str
    svg: Markup


@contextlib.contextmanager
def drawing(salt: str, size: tuple[float, float]) -> Iterator[Figure]:
    """Draws with the settings of the page. size: in inches, of which a chart's text has 11/72."""
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False}
    settings |= {"font.size": 11, "font.family": "sans-serif", "text.color": INK, "axes.edgecolor": INK}
    settings |= {"xtick.color": INK, "ytick.color": INK, "axes.labelcolor": INK}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that its own font lacks; the browser's has them
        figure = Figure(figsize=size)
        figure.patch.set_visible(False)
        yield figure


def axes(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    """Returns axes at a place: left, bottom, width and height, as shares of the figure."""
    added = figure.add_axes(place)
    added.patch.set_visible(False)
    added.grid(color=GRID, linewidth=0.6)
    added.spines[["top", "right"]].set_visible(False)
    return added


def scale_values(
    axes: Axes, values: Sequence[float], *, is_share: bool, may_be_log: bool = True, which: Literal["x", "y"] = "y"
) -> None:
    """Has an axis show shares in percent, and values that are far apart on a logarithmic scale."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    if is_share:
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    elif may_be_log and min(values) > 0 and max(values) > LOG_SCALE_FROM * min(values):
        scale_log(axes, which)


def scale_log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Has an axis be logarithmic, with numbers that need no typesetting."""
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(_Few(minor_thresholds=(1, 0.4)))


class _Few(LogFormatter):
    """Names values between powers of ten where hardly any power is in sight."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def for_the_page(figure: Figure, chart_id: str, title: str, summary: str) -> Markup:
    """Takes off what a file of its own needs; gives ids that no other chart has, a title, and text to be read out."""
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(file)
    svg = file.getvalue()
    head, body = svg[svg.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'(<[^>]*?\bid="|href="#|url\(#)', rf"\g<1>{chart_id}-", body)
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), body)  # finer than a pixel
    for stand_in, colour in STAND_INS.items():
        body = body.replace(stand_in, colour)
    ids = f"{chart_id}-title", f"{chart_id}-text"
    opening = (
        f'<svg class="chart" {box[0] if box else ""} role="img" aria-labelledby="{ids[0]}" aria-describedby="{ids[1]}">'
    )
    texts = f'<title id="{ids[0]}">{Markup.escape(title)}</title><desc id="{ids[1]}">{Markup.escape(summary)}</desc>'
    return Markup(opening + texts + body)  # matplotlib has escaped the names in it
