"""The network as a graph, traced from the module as it was written, on the CPU."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings

import torch
from torch import nn

from pipeline.board.writer import Board


def add_graph(board: Board, model: nn.Module, *, channels: int, image_size: int) -> None:
    """Writes the graph of a network. Neither model nor random state changes.

    Raises whatever the tracer does of a network that it cannot follow.
    """
    traced = copy.deepcopy(unwrapped(model)).to("cpu", torch.float32).eval()
    for parameter in traced.parameters():
        parameter.requires_grad_(False)
    images = torch.zeros(1, channels, image_size, image_size)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and TensorBoard's graphs have nothing else
        with contextlib.redirect_stdout(io.StringIO()):  # of a failure it prints what the exception says better
            board.writer.add_graph(traced, images)


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the module inside `torch.compile`, which the tracer refuses, and inside data-parallel wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner
