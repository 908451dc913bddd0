"""A CUDA graph: what a function launches on a GPU, recorded once, to be launched again as a whole by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def record(function: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Returns what repeats on the GPU what the function launched, and what the function returned.

    The tensors that it returned stay where they are, and each repetition writes to them. Nothing is computed yet. Other
    threads, which copy checkpoints and images, go on meanwhile. Raises RuntimeError where the function does what cannot
    be recorded, or the memory does not suffice.
    """
    torch.cuda.empty_cache()  # a graph has memory of its own, and cannot take what is kept for operations outside
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function()
    return graph.replay, outputs
