"""All campaigns: where each is, and how many cases it tries in CI and in full."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attack.campaign import Scale, Tally, carry_out

MEMORY = Path("/dev/shm")  # homes of some kilobytes, by the thousand: in memory, where the system has such a folder


@dataclass(frozen=True)
class Plan:
    """name: of the module in this folder. few, many: cases in CI and in full, where there are so many."""

    name: str
    few: int
    many: int

    def carry_out(self, cases: int, seed: int, say: Callable[[str], None] = str) -> Tally:
        module = importlib.import_module(f"attack.{self.name}")
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="attack-") as folder:
            return carry_out(self.name, module.attack, Scale(Path(folder), cases, seed), say)


PLANS = (  # the longest first
    Plan("job_files", few=1000, many=100_000),
    Plan("checkpoints", few=6, many=400),
    Plan("torn_files", few=200, many=12_000),
    Plan("image_files", few=16, many=1000),
    Plan("ids_and_paths", few=24, many=1500),
    Plan("foreign_files", few=30, many=400),
    Plan("training_calls", few=2, many=48),
    Plan("system_calls", few=100, many=2500),
    Plan("worker_calls", few=50, many=600),
    Plan("storms", few=3, many=40),
    Plan("sweeps", few=1, many=60),
    Plan("sweep_calls", few=6, many=300),
    Plan("clock", few=3, many=30),
    Plan("bit_flips", few=200, many=2000),
    Plan("queue_model", few=150, many=3000),
    Plan("small_disk", few=120, many=1200),
)


def say(line: str) -> None:
    """Print at once: several campaigns say something, each in a process of its own."""
    print(line, flush=True)  # noqa: T201 - this is a program
