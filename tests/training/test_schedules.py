"""Learning rate schedules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.jobfile import catalog
from pipeline.training import schedules

STEPS, PER_EPOCH = 200, 20


def schedule(name: str, **options: Any) -> Callable[[int], float]:
    defaults = {key: field[1].default for key, field in catalog.SCHEDULES[name].options.items()}
    return partial(catalog.SCHEDULES[name].load(), steps=STEPS, steps_per_epoch=PER_EPOCH, **{**defaults, **options})


@pytest.mark.parametrize("name", catalog.SCHEDULES)
def test_every_schedule_stays_between_zero_and_the_peak(name: str) -> None:
    factors = [schedule(name)(step) for step in range(STEPS)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", [name for name in catalog.SCHEDULES if "one_cycle" not in name])
def test_warm_up_rises_evenly_from_above_zero_to_the_peak(name: str) -> None:
    factors = [schedule(name, warmup_epochs=2.0)(step) for step in range(2 * PER_EPOCH + 1)]
    differences = [after - before for before, after in itertools.pairwise(factors)]
    assert factors[0] == pytest.approx(1 / 41)
    assert factors[40] == pytest.approx(1)
    assert differences == pytest.approx([1 / 41] * 40)


def test_one_cycle_is_that_of_pytorch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=1.0, total_steps=STEPS, cycle_momentum=False)
    for step in range(STEPS):
        assert schedule("one_cycle")(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        sgd.step()
        if step < STEPS - 1:
            theirs.step()


def test_linear_one_cycle_is_the_line_between_its_three_factors() -> None:
    """numpy's interpolation between the first step, the peak and the end, which is after the last step."""
    factor = schedule("linear_one_cycle", start=0.2, peak=0.23, end=0.07)
    expected = np.interp(range(STEPS), [0, 0.23 * STEPS, STEPS], [0.2, 1, 0.07])
    assert [factor(step) for step in range(STEPS)] == pytest.approx(list(expected), abs=1e-12)


def test_linear_one_cycle_may_begin_at_its_peak_and_end_at_nothing() -> None:
    factor = schedule("linear_one_cycle", peak=0.0, end=0.0)
    assert [factor(step) for step in (0, 50, 199)] == pytest.approx([1, 0.75, 1 / STEPS])


def test_cosine_is_half_way_down_in_the_middle_and_ends_near_zero() -> None:
    factor = schedule("cosine")
    assert factor(STEPS // 2) == pytest.approx(0.5)
    assert factor(STEPS - 1) == pytest.approx(0.5 * (1 + math.cos(math.pi * 199 / 200)))


def test_step_decay_halves_at_each_boundary_and_not_before() -> None:
    factor = schedule("step", step_epochs=3.0, gamma=0.5)
    assert [factor(step) for step in (0, 59, 60, 119, 120)] == [1, 1, 0.5, 0.5, 0.25]


def test_schedules_stand_a_training_of_a_single_step() -> None:
    for name in catalog.SCHEDULES:
        factor = partial(schedule(name), steps=1, steps_per_epoch=1)
        assert 0 < factor(0) <= 1


@pytest.mark.parametrize(("steps", "pct_start"), [(10, 0.1), (5, 0.2), (2, 0.5), (2, 0.3), (1, 0.3), (3, 0.999)])
def test_one_cycle_stands_every_place_of_its_peak(steps: int, pct_start: float) -> None:
    factor = partial(schedules.one_cycle, steps=steps, steps_per_epoch=1, div_factor=25, final_div_factor=1e4)
    factors = [factor(step, pct_start=pct_start) for step in range(steps)]
    assert all(0 < value <= 1 for value in factors)
    assert steps > 1 or factors == [1]
