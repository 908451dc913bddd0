"""A CUDA graph: what a function launches on a GPU, recorded once, to be launched again as a whole by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


class CannotRecordError(Exception):
    """Says why a function cannot be recorded; it keeps nothing of what was tried."""


def record(function: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Returns what repeats on the GPU what the function launched, and what the function returned.

    The tensors that it returned stay where they are, and each repetition writes to them. Nothing is computed yet. Other
    threads, which copy checkpoints and images, go on meanwhile. Raises CannotRecordError where the function does what
    cannot be recorded, or where too little memory would be left: a graph keeps all that it takes for itself, and what
    is launched beside it, a smaller batch say, takes as much again.
    """
    stream = torch.cuda.current_stream()
    torch.cuda.empty_cache()
    free_before, _ = torch.cuda.mem_get_info()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function()
    except Exception as error:  # noqa: BLE001 - whatever the function does not bear
        why = str(error).strip().partition("\n")[0] or type(error).__name__
    else:
        free, _ = torch.cuda.mem_get_info()
        if free >= free_before - free:
            return graph.replay, outputs
        why = f"it would keep {(free_before - free) >> 20} MiB of GPU memory, and leave {free >> 20} MiB"
        del outputs
    # Out of the error's reach, which holds what was allocated.
    del graph, function
    torch.cuda.set_stream(stream)
    torch.cuda.empty_cache()
    raise CannotRecordError(why)
