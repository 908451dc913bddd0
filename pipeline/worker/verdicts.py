"""The worker's verdict on an attempt: by what the attempt recorded, why it was asked to stop, and its exit status."""

from __future__ import annotations

import dataclasses
import signal
from dataclasses import dataclass

from pipeline.home.records import Outcome, Progress, Result
from pipeline.stop import NO_ROOM
from pipeline.worker.executors.interface import EngineEnd

KILLED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Verdict:
    """lacked_room: the disk was full. The attempt is no try then, and the worker waits until there is room."""

    result: Result
    lacked_room: bool = False


def judge(
    left: Result | None,
    progress: Progress | None,
    *,
    attempt: int,
    status: int,
    asked: Outcome | None,
    timeout_s: float | None,
    told: EngineEnd | None = None,
) -> Verdict:
    """How an attempt ended.

    left: the run's result.json, which counts if it is of this attempt. status: of its process, negative for a signal.
    asked: what the worker asked it to stop for. told: how whoever ran it says that it ended, which counts where the
    attempt left no result, or was cancelled there.
    """
    has_recorded = left is not None and left.attempt == attempt
    if progress is None or progress.attempt != attempt:
        progress = Progress(attempt)
    found = left if left and has_recorded else _without_result(progress, attempt, status, told)
    if told and told.outcome == "cancelled" and found.outcome == "interrupted":
        found = dataclasses.replace(found, outcome=told.outcome, why=told.why)
    if asked is not None and not (has_recorded and found.outcome in ("succeeded", "failed")):
        return Verdict(dataclasses.replace(found, outcome=asked, why=_why(asked, found, timeout_s)))
    return Verdict(found, lacked_room=status == NO_ROOM and found.outcome == "interrupted")


def _without_result(progress: Progress, attempt: int, status: int, told: EngineEnd | None) -> Result:
    if told is not None:
        return Result.after(progress, attempt=attempt, outcome=told.outcome, why=told.why)
    outcome: Outcome = "lost" if -status in KILLED_FROM_OUTSIDE else "failed"
    if status == NO_ROOM:
        outcome, why = "interrupted", "the disk is full; it goes on from its last checkpoint, once there is room"
    elif status == -signal.SIGKILL:
        why = "its process was killed (SIGKILL); often that is the kernel, out of memory"
    elif status < 0:
        why = f"its process was ended by a signal ({signal.strsignal(-status) or -status}); see the log"
    else:
        why = f"its process left with exit code {status} and no result; see the log"
    return Result.after(progress, attempt=attempt, outcome=outcome, why=why)


def _why(asked: Outcome, left: Result, timeout_s: float | None) -> str:
    if asked == "timed_out":
        return f"ran longer than resources.timeout, {timeout_s or 0:g} s; `retry` goes on from its last checkpoint"
    if asked in ("cancelled", "pruned"):
        return f"{asked} at step {left.step}" if left.step else asked
    return left.why if left.outcome == "interrupted" else "asked to stop; goes on from its last checkpoint"
