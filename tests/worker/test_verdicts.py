"""The worker's verdict on an attempt: the attempt's own word, then why it was stopped, then its exit status."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from pipeline.home.records import Progress, Result
from pipeline.stop import NO_ROOM
from pipeline.worker.verdicts import Verdict, judge

PROGRESS = Progress(2, epoch=3, epochs=9, step=30, metrics={"train/loss": 0.5})


def verdict(
    left: Result | None = None, *, status: int = 0, asked: Any = None, timeout_s: float | None = None
) -> Verdict:
    return judge(left, PROGRESS, attempt=2, status=status, asked=asked, timeout_s=timeout_s)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "interrupted", "lost"])
def test_what_the_attempt_has_recorded_counts(outcome: Any) -> None:
    left = Result(2, outcome, "its own word", step=40)
    assert verdict(left, status=1).result == left


def test_what_an_earlier_attempt_has_recorded_does_not_count() -> None:
    found = verdict(Result(1, "interrupted", "of yesterday"), status=-signal.SIGKILL).result
    assert (found.attempt, found.outcome, found.step) == (2, "lost", 30)


@pytest.mark.parametrize(
    ("status", "outcome", "said"),
    [
        (-signal.SIGKILL, "lost", "killed (SIGKILL)"),
        (-signal.SIGTERM, "lost", "ended by a signal (Terminated)"),
        (-signal.SIGSEGV, "failed", "ended by a signal (Segmentation fault)"),
        (-40, "failed", "ended by a signal (Real-time signal 6)"),
        (7, "failed", "left with exit code 7 and no result"),
        (0, "failed", "left with exit code 0 and no result"),
        (NO_ROOM, "interrupted", "the disk is full"),
    ],
)
def test_without_a_record_the_exit_status_tells(status: int, outcome: str, said: str) -> None:
    found = verdict(status=status).result
    assert (found.outcome, found.epoch, found.step, found.metrics) == (outcome, 3, 30, {"train/loss": 0.5})
    assert said in found.why


def test_only_an_attempt_that_says_so_lacked_room() -> None:
    assert verdict(status=NO_ROOM).lacked_room
    assert verdict(Result(2, "interrupted", "the disk is full"), status=NO_ROOM).lacked_room
    assert not verdict(Result(2, "interrupted", "asked to stop"), status=1).lacked_room
    assert not verdict(Result(2, "failed", "its own fault"), status=NO_ROOM).lacked_room


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_an_end_that_came_before_the_request_stands(outcome: Any) -> None:
    left = Result(2, outcome, "was quicker")
    for asked in ("cancelled", "timed_out", "interrupted"):
        assert verdict(left, asked=asked, timeout_s=5).result == left


def test_what_it_was_asked_to_stop_for_is_how_it_ended() -> None:
    left = Result(2, "interrupted", "asked to stop; step 30 is saved", step=30)
    cancelled = verdict(left, asked="cancelled").result
    assert (cancelled.outcome, cancelled.why) == ("cancelled", "cancelled at step 30")
    late = verdict(left, asked="timed_out", timeout_s=7200).result
    assert (late.outcome, late.why.partition(";")[0]) == ("timed_out", "ran longer than resources.timeout, 7200 s")
    assert verdict(left, asked="interrupted").result == left
    killed = verdict(None, status=-signal.SIGKILL, asked="interrupted").result
    assert (killed.outcome, killed.why) == ("interrupted", "asked to stop; goes on from its last checkpoint")
