"""Optimizers, as the catalog names them; each takes the parameters and its options.

They are PyTorch's, and Muon of `muon.py`, but do not load its compiler. `torch.optim` keeps its methods out of what
`torch.compile` makes of a program, by decorators that import `torch._dynamo`, and with it sympy, when such a method is
called: 1.3 s, at the start of every job. No compiled code calls an optimizer here, so these have the methods as they
are without decorators.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

from pipeline.training import muon as of_muon
from pipeline.training.parameter_groups import LR_SCALE

Parameters = Iterable[torch.nn.Parameter]
Kind = TypeVar("Kind", bound=Optimizer)

DECORATED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
"""Methods that are left out of compiled code, and no more; `step` is also to compute without gradients."""


def without_compiler(kind: type[Kind]) -> type[Kind]:
    """Returns the same optimizer as a class that does not load the compiler."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in DECORATED}
    step = torch.no_grad()(inspect.unwrap(kind.step))  # they are not differentiable
    return type(kind.__name__, (kind,), {**methods, "step": step})


SGD = without_compiler(torch.optim.SGD)
Adam = without_compiler(torch.optim.Adam)
AdamW = without_compiler(torch.optim.AdamW)
Muon = without_compiler(of_muon.Muon)


def sgd(
    parameters: Parameters, *, fused: bool, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> Optimizer:
    return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)


def adam(
    parameters: Parameters, *, fused: bool, lr: float, betas: tuple[float, float], weight_decay: float
) -> Optimizer:
    return Adam(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)


def adamw(
    parameters: Parameters, *, fused: bool, lr: float, betas: tuple[float, float], weight_decay: float
) -> Optimizer:
    return AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)


def muon(
    parameters: Iterable[Any],
    *,
    fused: bool,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    adamw_lr: float,
    betas: tuple[float, float],
) -> Optimizer:
    """Muon for hidden matrices and filters, AdamW for all others, whose learning rate follows the same schedule.

    parameters: or groups of them; see `muon.parted` for what is orthogonalized.
    """
    groups = of_muon.parted(parameters)
    for group in groups:
        if not group[of_muon.ORTHOGONALIZED]:
            group[LR_SCALE] = group.get(LR_SCALE, 1.0) * adamw_lr / lr
    adamw = functools.partial(AdamW, lr=adamw_lr, betas=betas, weight_decay=weight_decay, fused=fused)
    return Muon(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, others=adamw)


def lay_out_state(optimizer: Optimizer) -> None:
    """Give what an optimizer keeps of each parameter the parameter's order of dimensions in memory.

    It may come from a run whose weights were contiguous, to one whose are channels_last. A fused optimizer goes through
    both side by side, whatever their strides, and would take the momentum of one weight for that of another.
    """
    for parameter, kept in optimizer.state.items():
        for name, values in kept.items():
            if isinstance(values, torch.Tensor) and values.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=values.dtype, requires_grad=False).copy_(values)
