"""The optimizer Muon: weight matrices and filters are changed by their momentum, orthogonalized.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), kellerjordan.github.io/posts/muon. With
U S V^T the singular value decomposition of a momentum, the weight moves by about U V^T: as far in each of its
directions, however small its gradient is there. What is no hidden matrix (biases, batch norm, the last layer) is left
to another optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

ORTHOGONALIZED = "orthogonalized"  # of a group of parameters: whether it holds hidden matrices and filters, as a bool

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5: singular values in (0, 1] come to 0.7 to 1.2 in few steps
STEPS = 5
EPS = 1e-7  # least norm that a matrix is divided by


def parted(parameters: Iterable[Any]) -> list[dict[str, Any]]:
    """Returns groups, each with the key `orthogonalized`, that hold what these parameters or groups of them do.

    A group without that key is parted by its parameters' dimensions: those with two or more are orthogonalized.
    """
    given = list(parameters)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    return [part for group in groups for part in ([{**group}] if ORTHOGONALIZED in group else _parts(group))]


def _parts(group: dict[str, Any]) -> list[dict[str, Any]]:
    weights = list(group["params"])
    parts = [(is_matrix, [w for w in weights if (w.ndim >= 2) == is_matrix]) for is_matrix in (True, False)]
    return [{**group, "params": part, ORTHOGONALIZED: is_matrix} for is_matrix, part in parts if part]


class Muon(Optimizer):
    """Changes groups that are orthogonalized by Muon, and has the optimizer that `others` makes change all others.

    It is as `torch.optim.Muon` with its default `adjust_lr_fn`, but takes filters too, as matrices
    (out, in * height * width), takes those of one shape together, and can be recorded as a CUDA graph, for which a
    group's `lr` may be a float32 tensor () on the device. A gradient scaler's step waits for nothing if that of the
    others does not.

    groups: as of `parted`. lr: length of a step in each direction, for a matrix with no more rows than columns; others
    take it times sqrt(rows / columns). momentum: in [0, 1). weight_decay: decoupled, times lr. others: is called with
    the groups that are not orthogonalized, if there are any. Raises ValueError where a vector is to be orthogonalized.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        others: Callable[[list[dict[str, Any]]], Optimizer],
    ) -> None:
        of_muon = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        groups = [{**of_muon, **group} if group[ORTHOGONALIZED] else {**group} for group in groups]
        super().__init__(groups, {})
        for group in self.param_groups:
            if group[ORTHOGONALIZED] and any(weight.ndim < 2 for weight in group["params"]):
                raise ValueError("a parameter of fewer than two dimensions cannot be orthogonalized")
        left = [group for group in self.param_groups if not group[ORTHOGONALIZED]]
        self._others = others(left) if left else None  # adds its options to these groups, which are the same dicts
        self._step_supports_amp_scaling = getattr(self._others, "_step_supports_amp_scaling", self._others is None)

    def step(self) -> None:  # type: ignore[override]
        """Change the parameters that have a gradient. A gradient scaler has left `grad_scale` and `found_inf` here."""
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        for group in self.param_groups:
            if group[ORTHOGONALIZED]:
                self._change(group, scale, found_inf)
        if self._others is not None:
            self._others.state = self.state  # both are others after load_state_dict
            self._others.param_groups = [group for group in self.param_groups if not group[ORTHOGONALIZED]]
            self._others.grad_scale, self._others.found_inf = scale, found_inf  # type: ignore[attr-defined]
            self._others.step()

    def _change(self, group: dict[str, Any], scale: torch.Tensor | None, found_inf: torch.Tensor | None) -> None:
        """scale, found_inf: float32 (); what gradients were multiplied by, and above 0 where nothing is to change."""
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        gradients, momenta = [weight.grad for weight in weights], [self._momentum(weight) for weight in weights]
        rate = group["lr"]
        if not isinstance(rate, torch.Tensor):  # filled in on the device, so that both compute with the same float32
            rate = torch.full((), rate, device=weights[0].device)
        if scale is not None:
            torch._foreach_div_(gradients, scale)
        if found_inf is not None:
            rate = rate * (found_inf == 0)
            gradients = [torch.where(found_inf == 0, g, m) for g, m in zip(gradients, momenta, strict=True)]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        found = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        torch._foreach_add_(weights, _changes(weights, found, rate))

    def _momentum(self, weight: torch.Tensor) -> torch.Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum: torch.Tensor = state["momentum_buffer"]
        return momentum


def _changes(
    weights: Sequence[torch.Tensor], momenta: Sequence[torch.Tensor], rate: torch.Tensor
) -> list[torch.Tensor]:
    """Returns what is to be added to each weight, of its shape and strides. rate: float32 ()."""
    matrices = [_as_matrix(values, _order(weight)) for values, weight in zip(momenta, weights, strict=True)]
    by_shape: dict[torch.Size, list[int]] = {}
    for number, matrix in enumerate(matrices):
        by_shape.setdefault(matrix.shape, []).append(number)
    changes = dict[int, torch.Tensor]()
    for (rows, columns), numbers in by_shape.items():  # together, as a GPU is bound by launches
        length = rate * -math.sqrt(max(1, rows / columns))
        found = orthogonalized(torch.stack([matrices[number] for number in numbers])) * length.reshape(1)
        changes |= zip(numbers, found, strict=True)
    return [_like(weight, changes[number]) for number, weight in enumerate(weights)]


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """Returns about U V^T of each matrix U S V^T, with singular values of about 0.7 to 1.2, by Newton and Schulz.

    Where a singular value is less than about a thousandth of the matrix's norm, it stays below that.

    matrices: float (matrices, rows, columns); what is returned is bfloat16, or float32 on a CPU that is slower with
    bfloat16.
    """
    a, b, c = COEFFICIENTS
    norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    found: torch.Tensor = (matrices / norms.clamp(min=EPS)).to(_dtype(matrices.device))
    is_tall = found.shape[1] > found.shape[2]
    if is_tall:
        found = found.transpose(1, 2)
    for _ in range(STEPS):
        gram = found @ found.transpose(1, 2)
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.transpose(1, 2).contiguous() if is_tall else found


def _dtype(device: torch.device) -> torch.dtype:
    """Without oneDNN a CPU multiplies matrices of bfloat16 four times as slowly as those of float32."""
    if device.type != "cpu" or (torch.backends.mkldnn.enabled and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return torch.bfloat16
    return torch.float32


def _order(weight: torch.Tensor) -> list[int]:
    """The dimensions as they lie in memory, from slow to fast, but for the first, which stays first.

    In this order a filter that is channels_last is a matrix without a copy. Its columns come in another order by it,
    and those of the orthogonalized matrix in the same.
    """
    strides = weight.stride()
    return [0, *sorted(range(1, weight.ndim), key=lambda dimension: -strides[dimension])]


def _as_matrix(values: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    return values.permute(*order).flatten(1)


def _like(weight: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The inverse of `_as_matrix`."""
    order = _order(weight)
    sizes = [weight.shape[dimension] for dimension in order]
    return matrix.view(sizes).permute(*(order.index(dimension) for dimension in range(weight.ndim)))
