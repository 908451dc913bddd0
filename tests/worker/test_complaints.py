"""What comes with every turn of the loop is said once a minute, and is not remembered for ever."""

from __future__ import annotations

import pytest

from pipeline.worker import complaints
from pipeline.worker.complaints import Complaints


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Python's monotonic clock, to be moved."""
    now = [1000.0]
    monkeypatch.setattr(complaints.time, "monotonic", lambda: now[0])
    return now


def test_a_line_is_said_again_after_a_minute_and_another_one_at_once(clock: list[float]) -> None:
    said: list[str] = []
    made = Complaints(said.append)
    for _ in range(5 * 60):
        made.make("no room")
        clock[0] += 0.2
    assert said == ["no room"]
    made.make("no lock")
    clock[0] += 1
    made.make("no room")
    assert said == ["no room", "no lock", "no room"]


def test_lines_that_never_come_again_are_forgotten(clock: list[float]) -> None:
    made = Complaints([].append)
    for number in range(10_000):
        made.make(f"line {number}")
        clock[0] += 1
    assert len(made._quiet_until) <= complaints.EVERY_S + 1
