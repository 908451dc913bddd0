"""When the options of a recipe help, and what they were worth where that was measured; for the reference page.

The figures are those of `benchmarks/recipes.py`, whose rungs have the names that stand here; docs/recipes.md says on
what they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

Figures = tuple[float, float]  # test accuracy in percent, with seeds 0 and 1


class Worth(NamedTuple):
    option: str  # as a job file has it
    helps: str
    without: Figures
    with_it: Figures


EPOCHS = 5

WORTH: tuple[Worth, ...] = ()

_HEAD = f"""## When the options of a recipe help

Each was added to a job without it, and both were trained for {EPOCHS} epochs of CIFAR-10, with seeds 0 and 1: test
accuracy in percent. What is worth something to a narrow network in so few epochs may be worth more or less to another:
[recipes.md](recipes.md) has the jobs, and longer ones.

| option | when it helps | without | with |
|---|---|---|---|
"""


def markdown() -> str:
    """Returns the section of the reference page."""
    return _HEAD + "".join(_rows())


def _rows() -> Iterator[str]:
    for worth in WORTH:
        without, with_it = (", ".join(f"{value:.2f}" for value in figures) for figures in worth[2:])
        yield f"| `{worth.option}` | {worth.helps} | {without} | {with_it} |\n"
