"""Optimizers, as the catalog names them; each takes the parameters and its options."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

Parameters = Iterable[torch.nn.Parameter]


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
