"""Every file of a home cut short at every length, or at as many lengths as the scale allows."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attack.campaign import Case, Scale
from attack.damage import Damageable, files


def attack(scale: Scale) -> Iterator[Case]:
    chance = random.Random(scale.seed)
    every = sorted(files(Damageable.make(scale.folder)), key=lambda file: len(file[1]))
    left = scale.cases
    for number, (name, content, judge) in enumerate(every):
        share = max(1, left // (len(every) - number))
        lengths = chance.sample(range(len(content)), min(share, len(content)))
        left -= len(lengths)
        for length in sorted(lengths):
            yield Case(f"{name} cut to {length} of {len(content)} bytes", tuple(judge(content[:length])))
