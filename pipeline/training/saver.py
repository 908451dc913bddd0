"""Checkpoints, written by a thread while the training goes on.

What is saved is copied first, so that the next step may change it. One is written at a time; the training asks after
each step whether the last one went wrong, and there is no result before it is on the disk.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.home.paths import RunPaths
from pipeline.training import checkpoint
from pipeline.training.checkpoint import State


class Saver:
    """Saves the checkpoints of an attempt. When it is closed, it waits for the last one."""

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._writing: Future[None] | None = None

    def save(self, state: State, is_best: bool) -> None:
        """Begin to save a state as it is now, once the one before has been written.

        If that went wrong and nobody has asked, it does not matter any more: this one takes its place.
        """
        if self._writing is not None:
            wait([self._writing])
        copy, copied = copy_to_host(state), None
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._writing = self._thread.submit(self._write, copy, copied, is_best)

    def _write(self, state: State, copied: torch.cuda.Event | None, is_best: bool) -> None:
        if copied is not None:
            with torch.cuda.device(copied.device):  # a new thread's is the first one, which may be somebody else's
                copied.synchronize()
        checkpoint.save(self.run, state, is_best=is_best)

    def check(self) -> None:
        """Raises what has gone wrong with a checkpoint, an OSError as a rule; waits for nothing."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait until what was begun is on the disk. Raises what went wrong with it, once."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Where an error is under way already, that one is told, and none of the last checkpoint's."""
        with self._thread, contextlib.nullcontext() if error is None else contextlib.suppress(Exception):
            self.finish()


def copy_to_host(value: Any) -> Any:
    """Returns a copy on the CPU of all that a state has, in dicts, lists and tuples.

    Of tensors on a GPU it is under way when this returns, in the order of the current stream: into pinned memory, which
    torch keeps for the next copy.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", non_blocking=True) if value.is_cuda else value.detach().clone()
    if isinstance(value, dict):
        return {key: copy_to_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copy_to_host, value))
    return value
