"""The groups of parameters that an optimizer is given: what has a learning rate or a weight decay of its own.

A job without any has all its parameters in one group, as ever.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from torch import nn

from pipeline.jobfile.spec import Spec
from pipeline.training.features import last_layer
from pipeline.training.muon import ORTHOGONALIZED

LR_SCALE = "lr_scale"  # of a group of parameters: the factor of the schedule's learning rate

NORMS = (
    *(nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    nn.LocalResponseNorm,
)


class Kind(NamedTuple):
    """What is asked of a parameter; only what makes a difference to the job. Groups are in the order of their kinds."""

    is_head: bool
    is_norm: bool
    is_bias: bool
    is_matrix: bool | None  # None where it makes no difference


def of(model: nn.Module, spec: Spec) -> list[Any]:
    """Returns all parameters of a network, or groups of them where a job asks for differences between them.

    Norm and bias as torchvision's `norm_weight_decay` and `bias_weight_decay` part them (`references/classification`):
    the bias of a norm layer is decayed as that layer. That they need no decay: He et al. (2019), arXiv:1812.01187; that
    biases may learn faster: Page (2018), "How to Train Your ResNet 8". Hidden matrices are weights of two
    dimensions or more, but for those of the last layer.
    """
    optimizer, backbone_lr = spec.train.optimizer, spec.model.backbone_lr
    has_head = backbone_lr != 1 or spec.model.freeze_epochs > 0  # a fused optimizer takes no part of a group
    has_norms = optimizer.norm_weight_decay is not None
    has_biases = optimizer.bias_lr != 1 or optimizer.bias_weight_decay is not None
    has_matrices = getattr(optimizer.entry, "parts_matrices", False)
    if not (has_head or has_norms or has_biases or has_matrices):
        return list(model.parameters())
    of_head = {id(parameter) for parameter in head(model)}
    of_norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    groups: dict[Kind, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        is_head, is_norm = id(parameter) in of_head, id(parameter) in of_norms
        is_matrix = parameter.dim() >= 2 and name.endswith("weight") and not is_head and not is_norm
        # a bias of a norm layer is parted from the others where their decay differs
        kind = Kind(
            is_head=has_head and is_head,
            is_norm=(has_norms or optimizer.bias_weight_decay is not None) and is_norm,
            is_bias=has_biases and name.endswith("bias"),
            is_matrix=is_matrix if has_matrices else None,
        )
        groups[kind].append(parameter)
    return [{"params": groups[kind], **_asked(kind, spec)} for kind in sorted(groups)]


def _asked(kind: Kind, spec: Spec) -> dict[str, Any]:
    """Returns what a group has beside its parameters."""
    optimizer, backbone_lr = spec.train.optimizer, spec.model.backbone_lr
    scale = (1.0 if kind.is_head or backbone_lr == 1 else backbone_lr) * (optimizer.bias_lr if kind.is_bias else 1.0)
    decay = optimizer.bias_weight_decay if kind.is_bias and not kind.is_norm else None
    if kind.is_norm:
        decay = optimizer.norm_weight_decay
    return {
        LR_SCALE: scale,
        **({} if decay is None else {"weight_decay": decay}),
        **({} if kind.is_matrix is None else {ORTHOGONALIZED: kind.is_matrix}),
    }


def head(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters of the last layer."""
    layer = last_layer(model)
    return [] if layer is None else list(layer.parameters())
