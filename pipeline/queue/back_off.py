"""How long a job that is tried again waits: longer with each time, and until when in `control/<id>.wait`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.home import durable
from pipeline.home.records import Record

BACK_OFF_S = (1, 2, 4, 8, 16, 32, 60)  # before the first retry, the second, ...; the last for all that follow


@dataclass(frozen=True)
class Wait(Record):
    until: float = 0.0  # seconds since the epoch


def delay_s(times: int) -> float:
    """Before the next try of a job that was tried again so many times already."""
    return BACK_OFF_S[min(times, len(BACK_OFF_S) - 1)]


def hold(path: Path, delay_s: float) -> None:
    """Writes until when the job is left to wait."""
    durable.replace_json(path, Wait(until=time.time() + delay_s).to_json())


def must_wait(path: Path) -> bool:
    """Whether a job's time has not come. Raises OSError where that cannot be read now.

    Neither a clock that was set back nor a damaged file holds a job for long.
    """
    wait = Wait.read(path) or Wait()
    return 0 < wait.until - time.time() <= 2 * BACK_OFF_S[-1]
