"""The attack, with few cases of each campaign; `make crash-test` has all of them."""

from __future__ import annotations

import pytest

from attack.campaigns import PLANS, Plan


@pytest.mark.parametrize("plan", [pytest.param(plan, id=plan.name) for plan in PLANS])
def test_nothing_is_violated(plan: Plan) -> None:
    tally = plan.carry_out(plan.few, seed=1)
    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.violations == []
    assert tally.cases >= plan.few / 2
