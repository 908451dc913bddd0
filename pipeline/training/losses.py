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


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: float, class_weights: torch.Tensor | None
) -> torch.Tensor:
    """The negative log-likelihood of the labels. Label smoothing is that of Szegedy et al. (2016), arXiv:1512.00567.

    class_weights: float32 (classes,); the mean is then a weighted one.
    """
    return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)


def focal(
    logits: torch.Tensor, labels: torch.Tensor, *, gamma: float, class_weights: torch.Tensor | None
) -> torch.Tensor:
    """-(1 - p)^gamma log p, where p is the probability of the label: what is easy counts less. gamma 0: cross-entropy.

    Equation 4 of Lin et al. (2017), arXiv:1708.02002, with softmax in place of their sigmoid.
    class_weights: as of `cross_entropy`.
    """
    log_p = -F.cross_entropy(logits, labels, reduction="none")
    losses = -(-torch.expm1(log_p)).clamp_min(SMALLEST).pow(gamma) * log_p
    if class_weights is None:
        return losses.mean()
    weights = class_weights[labels]
    return (weights * losses).sum() / weights.sum()


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """Returns a weight for each class, so that all count alike: N / (classes n), as scikit-learn's "balanced".

    counts: int64 (classes,), of images. A class without any has weight 0.
    """
    weights = counts.sum() / (len(counts) * counts.clamp_min(1)).double()
    return torch.where(counts > 0, weights, 0).float()
