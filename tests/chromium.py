"""Chromium as a person would use it, for tests that look at TensorBoard.

PIPELINE_SCREENSHOTS names a folder for an image of each; with PIPELINE_REQUIRE_BROWSER a missing browser is a failure.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = "/usr/bin/chromium"
WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
DEADLINE_MS = 60_000  # for a broken page, not for a slow machine


@pytest.fixture(scope="session")
def chromium() -> str:
    """Before the runs that would be looked at are trained."""
    if not (missing := missing_part()):
        return CHROMIUM
    if os.environ.get("PIPELINE_REQUIRE_BROWSER"):
        pytest.fail(f"PIPELINE_REQUIRE_BROWSER is set, and {missing}")
    pytest.skip(missing)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *WEBGL])
        yield browser
        browser.close()


def missing_part() -> str:
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed: `make` installs it"
    return "" if shutil.which(CHROMIUM) else f"there is no {CHROMIUM}: apt-get install chromium"


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of its own for each test; what goes wrong in it fails the test, and its end is kept as an image."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(DEADLINE_MS)
    wrong: list[str] = []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: answer.status >= 400 and wrong.append(f"{answer.status} {answer.url}"))
    yield page
    if folder := os.environ.get("PIPELINE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "_", request.node.name.removeprefix("test_"))
        page.screenshot(path=Path(folder) / f"{name}.png")
    page.close()
    assert wrong == []


def wait_for(locator: Locator, count: int = 1) -> None:
    """Until there are so many, all that is asked for of them being in sight."""
    locator.nth(count - 1).wait_for(state="visible")


def is_drawn(png: bytes, ink: Callable[[NDArray[np.int_]], NDArray[np.bool_]]) -> bool:
    """Whether a part of what is seen has that ink; a canvas has nothing else to look at. ink: of (H, W, 3), (H, W)."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int(ink(pixels).sum()) > 100


def is_colored(pixels: NDArray[np.int_]) -> NDArray[np.bool_]:
    """As lines of runs are; grids and texts are grey."""
    return np.asarray(np.ptp(pixels, axis=2) > 25)
