"""A clock that jumps, back and far ahead, while jobs train and are killed.

The processes' own clock is moved (`witness/sitecustomize.py`): libfaketime breaks the waits of Python's threads.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from attack.campaign import Case, Scale
from attack.storms import storm, strike
from attack.trainings import Trainings

HOUR, DAY, YEAR = 3600, 86400, 31_536_000
JUMPS = (-YEAR, -DAY, -HOUR, -61, -1, 1, 61, HOUR, DAY, YEAR, 10 * YEAR)


def jump(made: Trainings, chance: random.Random) -> str:
    """The clock jumps; then one of the processes is struck, so that what goes on begins by another time."""
    seconds = chance.choice(JUMPS)
    made.clock.write_text(str(seconds))
    return f"the clock at {seconds:+,} s; {strike(made, chance)}"


def attack(scale: Scale) -> Iterator[Case]:
    return storm(scale, jump)
