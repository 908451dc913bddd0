"""Losses, as the catalog names them: the mean over a batch of what its logits are wrong by.

A loss is a function

    name(logits, labels, *, <its options>) -> loss

logits: float32 (N, classes). labels: int64 (N,). loss: a float32 scalar. One that takes `label_smoothing` is given
`train.label_smoothing`, and 0 where held-out images are judged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

SMALLEST = 1e-12  # of 1 - p, whose power has no slope at 0 where gamma is below 1


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: float) -> torch.Tensor:
    """The negative log-likelihood of the labels. Label smoothing is that of Szegedy et al. (2016), arXiv:1512.00567."""
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def focal(logits: torch.Tensor, labels: torch.Tensor, *, gamma: float) -> torch.Tensor:
    """-(1 - p)^gamma log p, where p is the probability of the label: what is easy counts less. gamma 0: cross-entropy.

    Equation 4 of Lin et al. (2017), arXiv:1708.02002, with softmax in place of their sigmoid.
    """
    log_p = -F.cross_entropy(logits, labels, reduction="none")
    return -((-torch.expm1(log_p)).clamp_min(SMALLEST).pow(gamma) * log_p).mean()
