"""A captured pass gives what the pass itself gives. A CUDA graph is stood in for by calling again what was recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pipeline.training import captured_forward
from pipeline.training.captured_forward import CapturedForward
from pipeline.training.cuda_graph import CannotRecordError

Recorded = tuple[Callable[[], None], torch.Tensor]


def record(function: Callable[[], torch.Tensor]) -> Recorded:
    place = torch.full_like(function(), torch.nan)  # nothing is computed while a graph is recorded

    def replay() -> None:
        place.copy_(function())

    return replay, place


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3).requires_grad_(False)


def test_a_captured_pass_is_the_pass_with_the_weights_of_now(layer: nn.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_forward, "record", record)
    forward = CapturedForward(layer)
    batches = [torch.randn(size, 4) for size in (5, 5, 5, 2, 5)]
    for _ in range(2):
        found = [forward(images) for images in batches]
        for logits, images in zip(found, batches, strict=True):
            assert torch.equal(logits, layer(images)), "and none is written over by the next"
        layer.weight.mul_(2)


def test_a_pass_that_cannot_be_captured_is_computed_all_the_same(
    layer: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(function: Callable[[], torch.Tensor]) -> Recorded:
        raise CannotRecordError(f"no room for {function}")

    monkeypatch.setattr(captured_forward, "record", fails)
    forward, images, lines = CapturedForward(layer), torch.randn(5, 4), list[str]()
    forward.log = lines.append
    for _ in range(3):
        assert torch.equal(forward(images), layer(images))
    (line,) = lines
    assert line.startswith("the evaluation cannot be captured as a CUDA graph: no room for")
