"""The backbone of a network, which is all of it but its last layer: trained more slowly, or not at all for a while."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from pipeline.training import parameter_groups


def freeze(model: nn.Module, trained: Iterable[nn.Parameter], *, frozen: bool) -> None:
    """Has the backbone be trained or not; what its batch norms have learned of other images stays as it is meanwhile.

    model: in training mode. trained: its parameters, but for those that are never trained, which stay so.
    """
    head = {id(parameter) for parameter in parameter_groups.head(model)}
    for parameter in trained:
        parameter.requires_grad_(not frozen or id(parameter) in head)
    for module in model.modules() if frozen else ():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
