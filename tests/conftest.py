"""What all tests share. This module is read before torch is imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Tests run side by side: two processes with a thread a core each wait for one another, and everything takes ten times
# as long. Children inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PIPELINE_HOME", None)
os.environ.pop("PIPELINE_DATA", None)
os.environ.pop("PIPELINE_NOTIFY", None)
os.environ.pop("PIPELINE_TENSORBOARD_AT", None)
os.environ.pop("PIPELINE_TENSORBOARD_URL", None)
os.environ.pop("PIPELINE_REVISION", None)
os.environ.pop("PIPELINE_IMAGE_DIGEST", None)

from pipeline.home.paths import Home

MINIMAL = """\
name: tiny
model: {name: net}
data: {name: mnist}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def job_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a job file; its text begins as `MINIMAL` unless all of it is given."""

    def write(more: str = "", *, name: str = "job.yaml", text: str = MINIMAL) -> Path:
        path = tmp_path / name
        path.write_text(text + more)
        return path

    return write


@pytest.fixture
def pipeline(home: Home) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the console script as a process; keyword arguments are those of `subprocess.run`."""

    def run(*arguments: str | Path, home: Home = home, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", "--home", home.root, *arguments]
        return subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 120, **options})

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem with room for a few dozen files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small filesystem cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a lease may still be open
