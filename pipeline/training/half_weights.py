"""Copies of the weights in half precision, for a captured step: all are cast by one call, and so are their gradients.

Mixed precision casts each weight where a layer uses it, and each gradient back: two kernels a layer and step, which
wait for each other. The weights themselves stay float32, and so does what is added up in them; what is computed is the
same, bit for bit.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

LAYERS = (nn.Conv2d, nn.Linear)  # whose weights autocast casts; of these classes themselves, as others may do more


class HalfWeights:
    """weights: float32 parameters of `model`, by their names."""

    def __init__(self, model: nn.Module, weights: dict[str, nn.Parameter], dtype: torch.dtype) -> None:
        self.model, self.names = model, [*weights]
        self.weights: list[torch.Tensor] = [*weights.values()]
        self.copies = [torch.empty_like(weight, dtype=dtype).requires_grad_() for weight in self.weights]

    @classmethod
    def of(cls, model: nn.Module, dtype: torch.dtype) -> Self:
        """Takes all weights and biases of linear layers and convolutions that are trained."""
        cast = {id(w) for module in model.modules() if type(module) in LAYERS for w in module.parameters(recurse=False)}
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        return cls(model, {name: weight for name, weight in trained.items() if id(weight) in cast}, dtype)

    @torch.no_grad()
    def renew(self) -> None:
        """To be called when the weights have changed."""
        torch._foreach_copy_(self.copies, [*self.weights])

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns what the model does, computed with the copies."""
        given = dict(zip(self.names, self.copies, strict=True))
        logits: torch.Tensor = torch.func.functional_call(self.model, given, (images,))
        return logits

    def add_gradients(self) -> None:
        """Add the gradients of the copies to those of the weights, in float32, and forget them."""
        pairs = [(w, copy.grad) for w, copy in zip(self.weights, self.copies, strict=True) if copy.grad is not None]
        first = [(weight, gradient) for weight, gradient in pairs if weight.grad is None]
        for weight, gradient in pairs:
            if weight.grad is not None:
                weight.grad.add_(gradient)
        if first:
            begun = [torch.empty_like(weight) for weight, _ in first]
            torch._foreach_copy_(begun, [gradient for _, gradient in first])
            for (weight, _), gradient in zip(first, begun, strict=True):
                weight.grad = gradient
        for copy in self.copies:
            copy.grad = None
