"""Learning rate schedules as pure functions of the step: there is no state to save or to restore.

A schedule gives the factor by which `lr` is multiplied at a step. `step` counts from 0, over all epochs.
"""

from __future__ import annotations

import math


def constant(step: int, *, steps: int, steps_per_epoch: int, warmup_epochs: float) -> float:  # noqa: ARG001
    return _warmup(step, warmup_epochs * steps_per_epoch)


def step_decay(
    step: int,
    *,
    steps: int,  # noqa: ARG001
    steps_per_epoch: int,
    step_epochs: float,
    gamma: float,
    warmup_epochs: float,
) -> float:
    decays = math.floor(step / (step_epochs * steps_per_epoch))
    return _warmup(step, warmup_epochs * steps_per_epoch) * float(gamma**decays)


def cosine(step: int, *, steps: int, steps_per_epoch: int, warmup_epochs: float) -> float:
    """Equation 5 of Loshchilov and Hutter (2017), arXiv:1608.03983, without restarts; it begins where warm-up ends."""
    warmup_steps = warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    progress = (step - warmup_steps) / max(1.0, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(
    step: int,
    *,
    steps: int,
    steps_per_epoch: int,  # noqa: ARG001
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
) -> float:
    """Smith and Topin (2018), arXiv:1708.07120, with the cosines of `torch.optim.lr_scheduler.OneCycleLR`.

    The learning rate only: momentum stays as the optimizer has it.
    """
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    peak_step, last_step = pct_start * steps - 1, steps - 1
    if step == peak_step or last_step == 0:
        return 1.0
    if step < peak_step:
        return _cosine_between(first, 1.0, step / peak_step)
    return _cosine_between(1.0, last, (step - peak_step) / (last_step - peak_step))


def linear_one_cycle(
    step: int,
    *,
    steps: int,
    steps_per_epoch: int,  # noqa: ARG001
    start: float,
    peak: float,
    end: float,
) -> float:
    """A triangle: straight from `start` up to 1, which is reached after the share `peak` of all steps, then to `end`.

    Page (2018), "How to Train Your ResNet"; with `start`, `peak` and `end` as in Jordan (2024), arXiv:2404.00498.
    `end` is the factor after the last step, so that a step with `end` 0 has a learning rate too.
    """
    progress = step / steps
    if progress < peak:
        return start + (1 - start) * progress / peak
    return 1 + (end - 1) * (progress - peak) / (1 - peak)


def _warmup(step: int, warmup_steps: float) -> float:
    """Rises in even parts and reaches 1 with the step after the warm-up."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
