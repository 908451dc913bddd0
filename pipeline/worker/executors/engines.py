"""The engines by their names, each loaded when it is asked for."""

from __future__ import annotations

from pipeline.worker.executors.engine import Engine


def make(name: str | None, address: str) -> Engine | None:
    """Returns the engine of that name; None for this machine. Raises UsageError where it cannot be used from here."""
    if name == "slurm":
        from pipeline.worker.executors.slurm import Slurm

        return Slurm()
    if name == "ray":
        from pipeline.worker.executors.ray import Ray

        return Ray(address)
    return None
