"""The last features of a network: what its last linear layer or convolution is given."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from pipeline.data.draws import to_device


def last_layer(model: nn.Module) -> nn.Module | None:
    """Returns the last linear layer or convolution, by which a network tells classes apart; None where it has none."""
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return layers[-1] if layers else None


class LastFeatures:
    """While it is entered, keeps what the last layer is given, of some images of a pass over a split.

    model: the module itself; a compiled one does not call hooks that come later. indices: ascending.
    num_views: that the network sees of each image, one after the other; the first one counts.
    """

    def __init__(self, model: nn.Module, indices: list[int], *, num_views: int = 1) -> None:
        self.layer = last_layer(model)
        self.indices = torch.tensor(indices)
        self.kept: list[torch.Tensor] = []
        self.num_seen = self.num_calls = 0
        self.num_views = num_views

    def _keep(self, module: nn.Module, given: Any) -> None:  # noqa: ARG002
        if not given:  # by keyword, which a hook is not told of
            return
        self.num_calls += 1
        if (self.num_calls - 1) % self.num_views:
            return
        values = given[0].detach()
        wanted = self.indices[(self.indices >= self.num_seen) & (self.indices < self.num_seen + len(values))]
        rows = values[to_device(wanted - self.num_seen, values.device)].float()
        self.kept.append(rows.mean((2, 3)) if rows.dim() == 4 else rows.flatten(1))
        self.num_seen += len(values)

    def result(self, num_images: int) -> torch.Tensor | None:
        """float32 (images, values) on the CPU, once the device is waited for; None where the network has no such layer.

        num_images: of the pass. None too where the layer was not given a row of each, once.
        """
        if not self.kept or self.num_seen != num_images:
            return None
        return torch.cat(self.kept).to("cpu", non_blocking=True)

    def __enter__(self) -> Self:
        self.hook = None if self.layer is None else self.layer.register_forward_pre_hook(self._keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.hook is not None:
            self.hook.remove()
