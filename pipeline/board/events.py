"""Scalars read back from a run's event files, each step once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Point:
    step: int
    wall_time: float  # seconds since 1970
    value: float


def read_scalars(folder: Path) -> dict[str, list[Point]]:
    """Every scalar that a run's attempts have written, by tag, by ascending step."""
    raise NotImplementedError
