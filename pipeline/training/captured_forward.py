"""A pass through the network as one CUDA graph: an evaluation's, whose batches are all of one size but the last."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipeline.training.cuda_graph import CannotRecordError, record

Forward = Callable[[torch.Tensor], torch.Tensor]  # from images (N, C, H, W) to logits (N, classes)


class CapturedForward:
    """Computes what `forward` does: by calling it the first time, in which libraries load, then as a graph.

    The weights must stay where they lie in memory; their values may change. Images of another shape than the first
    ones, and all where the pass cannot be recorded, are computed operation by operation.
    """

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self._shape: torch.Size | None = None
        self._replay: Callable[[], None] | None = None
        self.log: Callable[[str], object] = str  # takes a line where the pass cannot be recorded
        self._is_refused = False
        self._images: torch.Tensor  # where the graph reads
        self._logits: torch.Tensor  # where it writes

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self._is_refused or images.shape != self._shape:
            self._shape = self._shape or images.shape
            return self.forward(images)
        if self._replay is None and not self._is_recorded(images):
            return self.forward(images)
        assert self._replay is not None
        self._images.copy_(images)
        self._replay()
        return self._logits.clone()

    def _is_recorded(self, images: torch.Tensor) -> bool:
        self._images = images.clone()
        try:
            self._replay, self._logits = record(lambda: self.forward(self._images))
        except CannotRecordError as error:
            self.log(
                f"the evaluation cannot be captured as a CUDA graph: {error}; its operations are launched one by one"
            )
            self._is_refused = True
            del self._images
        return not self._is_refused
