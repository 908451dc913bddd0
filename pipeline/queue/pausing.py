"""A queue that is paused: `control/.pause` is there, and no job is claimed. What runs goes on."""

from __future__ import annotations

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.records import now
from pipeline.queue.job_queue import Queue


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
