"""What all tests share. This module is read before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests run side by side: two processes with a thread a core each wait for one another, and everything takes ten times
# as long. Children inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PIPELINE_HOME", None)

from pipeline.paths import Home  # noqa: E402


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")
