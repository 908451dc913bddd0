"""Every file of a home cut short at every length, or at as many lengths as the scale allows."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attack.campaign import Case, Scale
from attack.damage import Damageable, files


def attack(scale: Scale) -> Iterator[Case]:
    chance = random.Random(scale.seed)
    every = list(files(Damageable.make(scale.folder)))
    share = max(1, scale.cases // len(every))
    for name, content, judge in every:
        lengths = range(len(content))
        for length in sorted(chance.sample(lengths, min(share, len(lengths)))):
            yield Case(f"{name} cut to {length} of {len(content)} bytes", tuple(judge(content[:length])))
