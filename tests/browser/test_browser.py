"""TensorBoard in a real browser: what a person sees of a run on each dashboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from chromium import browser, chromium, is_colored, is_drawn, page, wait_for  # noqa: F401 - three are fixtures
from dashboards import LAST_STEP, VGG_LAST_STEP, Board, Runs, board, runs, serving  # noqa: F401 - two are fixtures
from quick import wait_until
from torch import nn

from pipeline.board import histograms, tags
from pipeline.board.projector import NUM_IMAGES
from pipeline.board.writer import Board as Events
from pipeline.home.records import Result

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.usefixtures("chromium")  # before the runs that would be looked at are trained


def show_only(page: Page, tag: str) -> None:
    page.locator("paper-input").filter(has_text="Filter tags").locator("input").fill(f"^{tag}")


def card(page: Page, kind: str, tag: str, run: str = "") -> Locator:
    """The card of a tag, and of a run where each has its own."""
    found = page.locator(kind).filter(has=page.get_by_text(f"tag: {tag}", exact=True))
    return found.filter(has_text=run) if run else found


def colors(lines: Locator) -> set[str]:
    found: list[str] = lines.evaluate_all("lines => lines.map(line => getComputedStyle(line).stroke)")
    return set(found)


def test_time_series(page: Page, board: Board) -> None:
    """What opens first."""
    page.goto(board.url)
    page.get_by_role("combobox", name="Filter tags").fill("accuracy$")
    page.keyboard.press("Escape")  # the list of tags that lies over the first cards
    for tag in (tags.TEST_ACCURACY, tags.BEST_ACCURACY, tags.TRAIN_ACCURACY, tags.EPOCH_ACCURACY):
        chart = page.locator("scalar-card").filter(has_text=tag).locator("line-chart").first
        wait_for(chart)
        wait_until(lambda chart=chart: is_drawn(chart.screenshot(), is_colored), f"lines in {tag}")  # type: ignore[misc]


def test_scalars(page: Page, board: Board) -> None:
    page.goto(f"{board.url}/#scalars")
    for tag in (tags.TEST_ACCURACY, tags.TEST_LOSS):
        lines = card(page, "tf-scalar-card", tag).locator("path.line[d*=L]")
        wait_for(lines, 2)
        assert len(colors(lines)) == 2, "a line a run"
    show_only(page, tags.TRAIN_LOSS)  # its group is closed at first
    wait_for(card(page, "tf-scalar-card", tags.TRAIN_LOSS).first.locator("path.line[d*=L]"), 2)


def test_custom_scalars(page: Page, board: Board) -> None:
    page.goto(f"{board.url}/#custom_scalars")
    cards = page.locator("tf-custom-scalar-multi-line-chart-card")
    for title in ("loss", "accuracy"):
        lines = cards.filter(has=page.get_by_text(title, exact=True)).locator("path.line[d*=L]")
        wait_for(lines, 4)  # the means of the epochs in training, and those of the test, of two runs
        assert len(colors(lines)) == 2


def test_images(page: Page, board: Board, runs: Runs) -> None:
    page.goto(f"{board.url}/#images")
    for tag in (tags.CONFUSION, tags.PREDICTIONS, tags.MISTAKES, tags.FIRST_BATCH, tags.SAMPLES):
        image = card(page, "tf-image-loader", tag, runs.cnn).locator("img")
        image.scroll_into_view_if_needed()
        page.wait_for_function("image => image.naturalWidth > 100", arg=image.element_handle())
    wait_for(card(page, "tf-image-loader", tags.PREDICTIONS, runs.cnn).locator("#steps"))  # a slider over the epochs


def test_graph(page: Page, board: Board) -> None:
    page.goto(f"{board.url}/#graphs")
    for name in ("input", "CnnBn", "output"):
        wait_for(page.locator(f"g.node[data-name='{name}'] text").first)
    page.locator("g.node[data-name='CnnBn']").dblclick()
    page.locator("g.node[data-name='CnnBn/Sequential[features]']").dblclick()
    for name in ("Conv2d[conv1]", "BatchNorm2d[bn1]"):
        wait_for(page.locator(f"g.node[data-name='CnnBn/Sequential[features]/{name}'] text").first)


@pytest.mark.parametrize(
    ("dashboard", "loader", "shape"),
    [
        ("distributions", "tf-distribution-loader", "path.area[d*=L]"),
        ("histograms", "tf-histogram-loader", "path.outline"),
    ],
    ids=["distributions", "histograms"],
)
def test_parameters(page: Page, board: Board, runs: Runs, dashboard: str, loader: str, shape: str) -> None:
    page.goto(f"{board.url}/#{dashboard}")
    wait_for(card(page, loader, tags.parameter("classifier.fc2.weight"), runs.cnn).locator(shape), 3)
    show_only(page, tags.gradient("classifier.fc2.weight"))
    wait_for(card(page, loader, tags.gradient("classifier.fc2.weight"), runs.cnn).first.locator(shape), 3)


@pytest.mark.parametrize(("low", "high"), [(-2, 1), (-8, 7), (-15, 15)], ids=["2 bits", "4 bits", "4 bits dorefa"])
def test_levels_of_quantized_weights(page: Page, tmp_path: Path, low: int, high: int) -> None:
    """Each level is a spike as high as it is often, none is lost; dorefa has each second one alone."""
    used = torch.arange(low, high + 1, 2 if high == 15 else 1)
    counts = torch.arange(1, len(used) + 1)
    with Events(tmp_path / "run", first_step=0) as events:
        levels = {"0.weight": (used.repeat_interleave(counts), low, high)}
        counted = histograms.count_parameters(nn.Sequential(nn.Linear(1, 1)), levels=levels)
        assert counted is not None
        counted.write(events, step=1)
    with serving(tmp_path) as board:
        wait_until(lambda: board.get("histograms/tags").get("run"), "TensorBoard to have read the run")
        page.goto(f"{board.url}/#histograms")
        outline = card(page, "tf-histogram-loader", tags.levels("0.weight")).locator("path.outline")
        wait_for(outline)
        path = str(outline.get_attribute("d"))
    heights = [float(y) for _, y in re.findall(r"([-.\de]+),([-.\de]+)", path)]
    spikes = [max(heights) - height for height in heights if height < max(heights)]
    assert [height / spikes[0] for height in spikes] == pytest.approx(counts.tolist())


def test_projector(page: Page, board: Board) -> None:
    page.goto(f"{board.url}/#projector")
    frame = page.frame_locator("iframe").frame_locator("iframe")
    points = frame.get_by_text(re.compile(rf"Points: {NUM_IMAGES}\b"))
    wait_for(points)
    chosen = frame.locator("paper-item[aria-selected=true]")
    features = re.compile(rf"features at step ({LAST_STEP}|{VGG_LAST_STEP})")
    chosen.filter(has_text=features).wait_for(state="attached")
    wait_for(frame.get_by_text("Total variance described").first)  # of the projection
    canvas = frame.locator("vz-projector canvas").first
    wait_until(lambda: is_drawn(canvas.screenshot(), lambda pixels: pixels.max(2) < 60), "the black of the digits")


def test_pr_curves(page: Page, board: Board) -> None:
    page.goto(f"{board.url}/#pr_curves")
    for digit in ("0", "9"):
        curve = card(page, "tf-pr-curve-card", tags.pr_curve(digit))
        curve.scroll_into_view_if_needed()
        wait_for(curve.locator("path.line[d*=L]"), 2)


def test_text(page: Page, board: Board, runs: Runs) -> None:
    page.goto(f"{board.url}/#text")

    def texts(tag: str) -> Locator:
        return page.locator("tf-text-loader").filter(has_text=tag).filter(has_text=runs.vgg)

    conditions = texts(tags.CONDITIONS).locator("tr")
    wait_for(conditions.filter(has_text="optimizer").filter(has_text="sgd (lr 0.05, momentum 0.9").last)
    wait_for(conditions.filter(has_text="batch size").filter(has_text="64").last)
    wait_for(texts(tags.JOB_FILE).locator("pre").filter(has_text="name: vgg").first)
    for tag, word in ((tags.CLASS_REPORT, "precision"), (tags.TOP_OPERATORS, "operator")):
        show_only(page, tag)
        wait_for(texts(tag).first.locator("th").filter(has_text=word).first)


def test_hparams(page: Page, board: Board, runs: Runs) -> None:
    page.goto(f"{board.url}/#hparams")
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content")
    for run, model in ((runs.cnn, "cnn_bn"), (runs.vgg, "vgg")):
        result = Result.read(runs.home.run(run).result)
        assert result is not None
        wait_for(cells.get_by_text(run).first)
        wait_for(cells.get_by_text(model, exact=True).first)
        wait_for(cells.get_by_text(f"{result.metrics[tags.TEST_ACCURACY]:#.5g}").first)
    page.get_by_text("Parallel coordinates view").click()
    plot = page.locator("tf-hparams-parallel-coords-plot")
    wait_for(plot.locator("g.axis text").filter(has_text="model.name"))
    wait_for(plot.locator("g.axis text").filter(has_text=tags.TEST_ACCURACY))
    assert plot.locator("path[d*=L]").count() >= 2, "a line a run"
