"""Jobs of some seconds, and waiting for what another process does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.jobfile.spec import Spec

T = TypeVar("T")

NOTHING_SHOWN: dict[str, Any] = dict.fromkeys(
    ("histograms", "images", "graph", "figures", "pr_curves", "embeddings"), False
)
EVERYTHING_SHOWN: dict[str, Any] = dict.fromkeys([*NOTHING_SHOWN, "profile"], True)


def quick_spec(name: str = "quick", *, epochs: int = 1, **sections: dict[str, Any]) -> Spec:
    """A job of some seconds on the digits; `sections` are laid over it, as `resources={"retries": 0}`."""
    given: dict[str, Any] = {
        "model": {"name": "cnn_bn"},
        "data": {"name": "digits", "batch_size": 64},
        "train": {"epochs": epochs, "optimizer": {"name": "adamw", "lr": 3e-3}, "deterministic": True},
        "log": {"every": 10, **NOTHING_SHOWN},
        "resources": {"device": "cpu"},
    }
    merged = {key: {**given.get(key, {}), **sections.get(key, {})} for key in {**given, **sections}}
    return Spec.model_validate_json(json.dumps({"name": name, **merged}))


def wait_until(condition: Callable[[], T], what: str, *, deadline_s: float = 120) -> T:
    """Look until it is so, and give what was found; the deadline is for a broken program, not for a slow machine."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain: {what}"
        time.sleep(0.02)
    return found
