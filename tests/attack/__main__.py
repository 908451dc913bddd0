"""The whole attack: `make crash-test`, or `python -m attack [CAMPAIGN ...] [--seed N] [--cases N]`, tests/ on the path.

Prints a line a violation, with what to type to see it again, and a table. The exit code is 1 where there was one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from attack.campaign import Tally
from attack.campaigns import PLANS, Plan, say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m attack")
    names = [plan.name for plan in PLANS]
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(names)}; all without any")
    parser.add_argument("--seed", type=int, default=0, help="other seeds try other cases")
    parser.add_argument("--cases", type=int, help="how many of each, in place of all")
    arguments = parser.parse_args()
    if unknown := set(arguments.campaigns) - set(names):
        parser.error(f"there is no campaign {', '.join(sorted(unknown))} (known: {', '.join(names)})")
    plans = [plan for plan in PLANS if not arguments.campaigns or plan.name in arguments.campaigns]
    began = time.monotonic()
    tallies = carry_out_all(plans, seed=arguments.seed, cases=arguments.cases)
    print_table(tallies, time.monotonic() - began)
    return 1 if any(tally.violations for tally in tallies) else 0


def carry_out_all(plans: list[Plan], *, seed: int, cases: int | None) -> list[Tally]:
    """As many at once as there are processors; each in a process of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context, max_tasks_per_child=1) as pool:
        running = {pool.submit(plan.carry_out, cases or plan.many, seed, say): plan for plan in plans}
        done = {}
        for future in as_completed(running):
            plan, tally = running[future], future.result()
            done[plan] = tally
            say(f"{plan.name}: {tally.cases:,} cases, {len(tally.violations)} violations, {tally.seconds:.0f} s")
            if tally.violations:
                size = f" --cases {cases}" if cases else ""
                say(f'  to see them again: make crash-test ATTACK="{plan.name} --seed {seed}{size}"')
    return [done[plan] for plan in plans]


def print_table(tallies: list[Tally], seconds: float) -> None:
    say(f"\n{'campaign':<18}{'cases':>8}{'violations':>12}{'seconds':>9}")
    for tally in tallies:
        figures = f"{tally.cases:>8,}{len(tally.violations):>12,}{tally.seconds:>9.0f}"
        say(f"{tally.name:<18}{figures}{f'  not tried: {tally.skipped}' if tally.skipped else ''}")
    cases, violations = sum(tally.cases for tally in tallies), sum(len(tally.violations) for tally in tallies)
    say(f"{'together':<18}{cases:>8,}{violations:>12,}{seconds:>9.0f}")


if __name__ == "__main__":
    sys.exit(main())
