"""Optimizers."""

from __future__ import annotations

import pytest
import torch

from pipeline.jobfile import catalog


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_every_optimizer_lowers_a_parabola_the_same_fused_or_not(name: str) -> None:
    options = {key: field[1].default for key, field in catalog.OPTIMIZERS[name].options.items()} | {"lr": 0.1}
    ends = []
    for fused in (True, False):
        parameters = [torch.nn.Parameter(torch.full((3,), 2.0)), torch.nn.Parameter(2 * torch.eye(3))]
        optimizer = catalog.OPTIMIZERS[name].load()(parameters, fused=fused, **options)
        for _ in range(20):
            optimizer.zero_grad()
            sum(parameter.square().sum() for parameter in parameters).backward()
            optimizer.step()
        ends.append([parameter.detach().clone() for parameter in parameters])
    assert all(end.abs().max() < 2 for end in ends[0])
    torch.testing.assert_close(ends[0], ends[1])
