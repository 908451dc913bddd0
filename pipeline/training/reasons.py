"""Why an attempt has ended, by the error that it ended with, in words that help."""

from __future__ import annotations

import traceback
from pathlib import Path

from pipeline.home import durable
from pipeline.jobfile.own_code import in_a_line


def disk_full_error(error: BaseException | None) -> OSError | None:
    """Returns the error of a full disk that this one is, or was raised from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in durable.DISK_FULL:
            return error
        error = error.__cause__
    return None


def explain(error: BaseException) -> str:
    """Returns an unforeseen error in a line, with what usually helps."""
    if isinstance(error, OSError) and error.errno in durable.DISK_FULL:
        where = f"{Path(error.filename).parent}: " if error.filename else ""  # a temporary's name would say nothing
        return f"the disk is full: {where}{error.strerror}; it goes on once there is room"
    text = in_a_line(error)
    out_of_memory = isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    if out_of_memory:
        return f"out of memory; a smaller data.batch_size or data.image_size helps ({text})"
    return f"{text} (the log has the traceback)"


def as_text(error: BaseException) -> str:
    """Returns an error with its traceback, as far as it can be told: one of a stranger's class may raise another."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001
        return f"{''.join(traceback.format_tb(error.__traceback__))}{in_a_line(error)}"
