"""The backbone of a network, which is all of it but its last layer: trained more slowly, or not at all for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from pipeline.training.features import last_layer

LR_SCALE = "lr_scale"  # of a group of parameters: the factor of the schedule's learning rate


def groups(model: nn.Module, *, scale: float, are_parted: bool) -> Iterable[Any]:
    """Returns what an optimizer is given: the parameters, in two groups where the backbone is trained otherwise.

    are_parted: in any case. A fused optimizer takes no group of which a part has been trained before.
    """
    if scale == 1 and not are_parted:
        return model.parameters()
    head = {id(parameter) for parameter in _head(model)}
    parts = [[p for p in model.parameters() if (id(p) in head) == is_head] for is_head in (False, True)]
    return [{"params": part, LR_SCALE: rate} for part, rate in zip(parts, (scale, 1.0), strict=True) if part]


def freeze(model: nn.Module, trained: Iterable[nn.Parameter], *, frozen: bool) -> None:
    """Has the backbone be trained or not; what its batch norms have learned of other images stays as it is meanwhile.

    model: in training mode. trained: its parameters, but for those that are never trained, which stay so.
    """
    head = {id(parameter) for parameter in _head(model)}
    for parameter in trained:
        parameter.requires_grad_(not frozen or id(parameter) in head)
    for module in model.modules() if frozen else ():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


def _head(model: nn.Module) -> Iterable[nn.Parameter]:
    layer = last_layer(model)
    return () if layer is None else layer.parameters()
