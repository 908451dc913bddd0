"""Texts in Markdown: the job file, the conditions, how well each class was told, what the profiler saw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.records import ClassScore


def code(text: str, language: str = "") -> str:
    fence = "~~~~"
    while fence in text:
        fence += "~"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def conditions(spec: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person needs to know to compare two runs, name and value. spec: as frozen; manifest: `manifest.json`."""
    data, train, dataset = spec["data"], spec["train"], manifest["dataset"]
    attempt = manifest["attempts"][-1]
    computes, code_, packages = attempt["computes"], attempt["code"], attempt["packages"]
    commit = f", commit {code_['commit'][:12]}{' and changes' if code_['dirty'] else ''}" if code_.get("commit") else ""
    return [
        ("model", section(spec["model"])),
        (
            "dataset",
            f"{dataset['name']}: {dataset['train']:,} + {dataset['test']:,} pictures, "
            f"{len(dataset['classes'])} classes",
        ),
        ("dataset fingerprint", f"sha256 {dataset['sha256']}"),
        ("batch size", str(data["batch_size"])),
        ("augmentation", ", ".join(section(entry) for entry in data["augment"]) or "none"),
        ("epochs", str(train["epochs"])),
        ("optimizer", section(train["optimizer"])),
        ("schedule", section(train["schedule"])),
        ("seed", str(train["seed"])),
        ("deterministic", "yes" if train["deterministic"] else "no"),
        ("device", f"{computes['device']} ({computes['name']}), {computes['threads']} threads"),
        ("precision", str(computes["precision"])),
        (
            "versions",
            ", ".join([f"python {attempt['python']}", *(f"{name} {version}" for name, version in packages.items())]),
        ),
        ("code", f"pipeline {code_['version']}{commit}"),
        ("spec", f"sha256 {manifest['spec_sha256']}"),
    ]


def section(options: Mapping[str, Any]) -> str:
    """`sgd (lr 0.1, momentum 0.9)`: a section of a job file in a line; what is None is left out."""
    given = [f"{key} {_value(value)}" for key, value in options.items() if key != "name" and value is not None]
    return str(options["name"]) + (f" ({', '.join(given)})" if given else "")


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def class_report(scores: Sequence[ClassScore]) -> str:
    rows = [(s.name, f"{s.support:,}", _percent(s.precision), _percent(s.recall), _percent(s.f1)) for s in scores]
    return table(("class", "held-out pictures", "precision", "recall", "F1"), rows)


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.2f} %"
