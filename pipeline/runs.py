"""Finding runs by the beginnings of their ids."""

from __future__ import annotations

from pipeline.paths import Home, RunPaths


def find(home: Home, prefix: str) -> RunPaths:
    """The run whose id begins so; `latest` is the newest. Raises UsageError."""
    raise NotImplementedError
