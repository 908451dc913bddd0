"""Why an attempt has ended, by the error that it ended with, in words that help."""

from __future__ import annotations

from pathlib import Path

from pipeline.home import durable


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
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    out_of_memory = isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    if out_of_memory:
        return f"out of memory; a smaller data.batch_size or data.image_size helps ({text})"
    return f"{text} (the log has the traceback)"
