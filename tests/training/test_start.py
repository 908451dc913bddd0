"""The start of an attempt: what is not loaded by the end of its first step, as that would take a second or more."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from quick import quick_spec

from pipeline.home.paths import Home
from pipeline.jobfile import frozen

UP_TO_THE_FIRST_STEP = """
import os, sys
from pathlib import Path
from pipeline.home.paths import Home
from pipeline.stop import Stop
from pipeline.training.attempt import Attempt
from pipeline.training.step import EagerStep

take = EagerStep.__call__

def first(self, batches, **options):
    take(self, batches, **options)
    print("LOADED", *sorted(sys.modules), flush=True)
    os._exit(0)

EagerStep.__call__ = first
Attempt(Home(Path(sys.argv[1])), "job", 1, Stop(), print).execute()
"""
NOT_NEEDED = {"torch._dynamo", "torch._inductor", "sympy", "triton", "matplotlib", "torchvision", "pandas", "optuna"}
FEW_BITS = {"weights": {"scheme": "lsq", "bits": 4}, "activations": {"scheme": "lsq", "bits": 8}}


@pytest.mark.parametrize(
    ("optimizer", "quantize", "deterministic"),
    [("sgd", None, False), ("adam", None, False), ("muon", None, False), ("adamw", FEW_BITS, True)],
    ids=["sgd", "adam", "muon", "adamw, few bits, deterministic"],
)
def test_the_first_step_is_taken_without_a_compiler_and_without_what_draws(
    optimizer: str, quantize: dict[str, Any] | None, deterministic: bool, home: Home
) -> None:
    spec = quick_spec(
        model={"name": "net", "quantize": quantize},
        data={"image_size": 32},
        train={"optimizer": {"name": optimizer, "lr": 0.01}, "deterministic": deterministic},
    )
    frozen.save(home.run("job"), spec)
    command = [sys.executable, "-c", UP_TO_THE_FIRST_STEP, str(home.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    said, _, line = done.stdout.partition("LOADED ")
    assert line, said + done.stderr
    loaded = set(line.split())
    assert {"torch", "pipeline.training.engine"} <= loaded
    assert sorted(loaded & NOT_NEEDED) == []
