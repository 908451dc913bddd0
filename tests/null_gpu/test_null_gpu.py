"""PyTorch's own CUDA backend, without a GPU: what a training launches, copies and waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from null_gpu import CannotBuild, environment

HERE = Path(__file__).parent
REQUIRED = "PIPELINE_REQUIRE_NULL_GPU"  # environment variable


def test_a_training_on_a_gpu_waits_for_nothing_that_it_need_not_wait_for(tmp_path: Path) -> None:
    try:
        started_on = environment(tmp_path)
    except CannotBuild as error:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(str(error))
    tests = HERE.parent
    env = {**os.environ, **started_on, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests), str(HERE)])}
    command = [sys.executable, "-m", "pytest", HERE / "on_null_gpu.py", "-q", "-p", "no:cacheprovider", "-W", "default"]
    done = subprocess.run(command, env=env, cwd=tests.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
