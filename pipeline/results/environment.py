"""What a run computed with and ran on, by its manifest: what may make a difference where job files make none.

A manifest may be missing, of an older version, damaged or edited by hand: what is not there is left out, and nothing
here raises for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipeline.board.conditions import attempts_of, object_at
from pipeline.home import durable
from pipeline.home.paths import RunPaths

PREFIX = "environment."
NUM_DIGITS = 10  # of a commit or a hash
OTHERWISE = {"device", "name", "uuid"}  # of what an attempt computes with: named by `name` alone
ON_A_CPU = {"threads", "onednn"}  # what counts there alone

Fields = dict[str, Any]  # text, numbers and truth values by name, as `environment.precision`


@dataclass(frozen=True)
class Environment:
    """fields: of the latest attempt. changed: what it was in those before, of the fields that have been otherwise."""

    fields: Fields
    changed: dict[str, list[Any]]


def read(run: RunPaths) -> Environment:
    """Raises OSError where the disk does not give the manifest."""
    manifest = durable.read_json(run.manifest) or {}
    *before, latest = [_fields(entry) for entry in attempts_of(manifest)] or [{}]
    changed: dict[str, list[Any]] = {}
    for fields in before:
        for name, value in fields.items():
            if name in latest and value not in (latest[name], *changed.get(name, ())):
                changed.setdefault(name, []).append(value)
    dataset = _known({"dataset": _shortened(object_at(manifest, "dataset").get("sha256"))})
    return Environment(latest | dataset, changed)


def _fields(entry: dict[str, Any]) -> Fields:
    """Returns what may explain a difference; host names, processes and GPUs' numbers do not."""
    code, computes = object_at(entry, "code"), object_at(entry, "computes")
    is_cpu = str(computes.get("device", "cpu")).startswith("cpu")
    left_out = OTHERWISE if is_cpu else OTHERWISE | ON_A_CPU
    return _known(
        {
            "precision": computes.get("precision"),
            "device": computes.get("name") or computes.get("device"),
            "commit": _commit(code),
            "pipeline": code.get("version"),
            **object_at(entry, "packages"),
            "cuda": entry.get("cuda"),
            "python": entry.get("python"),
            "image_digest": _shortened(entry.get("image_digest")),
            **{name: value for name, value in computes.items() if name not in left_out},
        }
    )


def _known(values: dict[str, Any]) -> Fields:
    known = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    return {f"{PREFIX}{name}": value for name, value in known.items() if isinstance(value, str) or math.isfinite(value)}


def _commit(code: dict[str, Any]) -> str | None:
    commit = _shortened(code.get("commit"))
    return f"{commit}-dirty" if commit and code.get("dirty") else commit


def _shortened(digits: object) -> str | None:
    """Returns as much of a commit or a hash as tells it from others."""
    return digits.removeprefix("sha256:")[:NUM_DIGITS] if isinstance(digits, str) else None
