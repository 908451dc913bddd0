"""A queue that is paused: `control/.pause` is there, and no job is claimed. What runs goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.records import now
from pipeline.queue.job_queue import Queue

PAUSED = "the queue is paused: `pipeline resume` has its jobs started"


def pause(queue: Queue) -> None:
    """Have no further job started. Raises QueueError."""
    queue.create()
    try:
        durable.replace_json(queue.paths.pause, {"paused_at": now()})
    except OSError as error:
        raise QueueError(f"{queue.paths.pause}: cannot be written: {error.strerror}") from error


def resume(queue: Queue) -> bool:
    """Have jobs started again. Returns whether the queue was paused. Raises OSError."""
    was_paused = queue.is_paused()
    queue.records.clear(queue.paths.pause)
    return was_paused


@dataclass
class PauseNotice:
    """Says when the queue is paused, and when it goes on: once each time."""

    queue: Queue
    say: Callable[[str], None]
    _was_paused: bool = False

    def tick(self) -> None:
        """Look, and say it. Raises OSError."""
        is_paused = self.queue.is_paused()
        if is_paused != self._was_paused:
            self._was_paused = is_paused
            self.say(PAUSED if is_paused else "the queue goes on")
