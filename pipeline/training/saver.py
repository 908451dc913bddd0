"""Checkpoints, and what an epoch leaves for people to see, written by a thread while the training goes on.

What is saved is copied first, so that the next step may change it: into one piece of memory, used for
each, as one is written at a time. What a checkpoint follows is written before it, so that none is ever without. The
training asks after each step whether the last one went wrong, and there is no result before it is on the disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.errors import Interrupted
from pipeline.home.paths import RunPaths
from pipeline.training import checkpoint
from pipeline.training.checkpoint import State


class Saver:
    """Saves the checkpoints of an attempt, and what comes before them. When it is closed, it waits for the last one."""

    def __init__(self, run: RunPaths, *, before: Callable[[], None] = lambda: None) -> None:
        """before: is called by the thread right before it saves a checkpoint, and may raise what that may."""
        self.run, self.before = run, before
        self._memory = HostMemory()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._writing: Future[None] | None = None
        self._is_needed = False  # what is being written

    def save(self, state: State, is_best: bool, write: Callable[[], None] | None = None) -> None:
        """Begin to save a state as it is now, once the one before has been written.

        write: is called by the thread first, when all is on the CPU that was to be copied there before this call.
        If the one before went wrong and nobody has asked, this one takes its place. Not where it was the best so far:
        then it is raised, as this state says how good the best is, and there would be none. Nor where it had something
        to write, which this one has not.
        """
        if self._writing is not None:
            wait([self._writing])
            if self._is_needed:
                self.finish()
        copy, copied = self._memory.copy(state), None
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._is_needed = is_best or write is not None
        self._writing = self._thread.submit(self._write, copy, copied, is_best, write)

    def _write(
        self, state: State, copied: torch.cuda.Event | None, is_best: bool, write: Callable[[], None] | None
    ) -> None:
        if copied is not None:
            with torch.cuda.device(copied.device):  # a new thread's is the first one, which may be somebody else's
                copied.synchronize()
        if write is not None:
            write()
        self.before()
        checkpoint.save(self.run, state, is_best=is_best)

    def check(self) -> None:
        """Raises what has gone wrong with a checkpoint or before it, an OSError as a rule; waits for nothing."""
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
        """Where an error is under way already, that one is told, and none of the last checkpoint's.

        But where a training that was asked to stop turns out to have diverged, it is not to go on.
        """
        quiet = () if error is None else (OSError,) if isinstance(error, Interrupted) else (Exception,)
        with self._thread, contextlib.suppress(*quiet):
            self.finish()


class HostMemory:
    """One piece of the machine's memory to copy a state's tensors to, used again for each state.

    It is pinned where a GPU is in use: then no copy waits for it.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def copy(self, state: Any) -> Any:
        """Returns a copy of dicts, lists and tuples, their tensors in this memory. The copy before it is overwritten.

        Of tensors on a GPU it is under way when this returns, in the order of the current stream.
        """
        tensors: list[torch.Tensor] = []
        _each_tensor(state, tensors.append)
        rooms = [_room(tensor) for tensor in tensors]
        if len(self._memory) < sum(rooms):
            is_pinned = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            self._memory = torch.empty(sum(rooms), dtype=torch.uint8, pin_memory=is_pinned)
        pieces = iter(torch.split(self._memory[: sum(rooms)], rooms))
        return _each_tensor(state, lambda tensor: _copy(tensor.detach(), next(pieces)))


def _each_tensor(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """Returns the same dicts, lists and tuples, with what a function gives for each of their tensors."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _each_tensor(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each_tensor(item, function) for item in value)
    return value


def _room(tensor: torch.Tensor) -> int:
    """Bytes, with what aligns the next tensor for any type and vector instruction."""
    return -(-tensor.nbytes // 64) * 64


def _copy(tensor: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Returns a copy in `memory`, of the same order of dimensions, and with a storage of its own to be saved by."""
    if not tensor.numel():
        return torch.empty_like(tensor, device="cpu")
    like = torch.empty_like(tensor, device="meta")
    values = torch.frombuffer(memory.numpy(), dtype=tensor.dtype, count=tensor.numel())
    return values.as_strided(like.shape, like.stride()).copy_(tensor, non_blocking=True)
