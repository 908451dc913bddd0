"""What a campaign of the attack is: a function that tries cases, one after the other, and says what each broke.

A campaign module has `def attack(scale: Scale) -> Iterator[Case]`, and a line in `campaigns.py` that names it and says
how many cases it tries in CI and in full. It makes what it needs below `scale.folder`, and stops after about
`scale.cases`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Scale:
    """How much is tried, and from which seed; the same scale tries the same cases."""

    folder: Path  # empty, and the campaign's own
    cases: int
    seed: int = 0

    @property
    def random(self) -> random.Random:
        """From the start of its numbers, with each call."""
        return random.Random(self.seed)


@dataclass(frozen=True)
class Case:
    """One thing that was tried. `what` says it so that it can be tried again: the operation, the call, n, the seed."""

    what: str
    violations: tuple[str, ...] = ()


class CannotAttack(Exception):
    """The machine lacks what the campaign needs, as strace; the message says what."""


Campaign = Callable[[Scale], Iterator[Case]]


@dataclass
class Tally:
    """What came of a campaign."""

    name: str
    cases: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str = ""  # why it was not tried


def carry_out(name: str, campaign: Campaign, scale: Scale, say: Callable[[str], None] = str) -> Tally:
    """Try all cases of a campaign. say: is told of each violation at once."""
    tally, began = Tally(name), time.monotonic()
    try:
        for case in campaign(scale):
            tally.cases += 1
            for violation in case.violations:
                tally.violations.append(f"{name} (seed {scale.seed}): {case.what}: {violation}")
                say(tally.violations[-1])
    except CannotAttack as error:
        tally.skipped = str(error)
    tally.seconds = time.monotonic() - began
    return tally
