"""Single bits that are other than they were written, in every file of a home."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attack.campaign import Case, Scale
from attack.damage import Damageable, files


def attack(scale: Scale) -> Iterator[Case]:
    chance = random.Random(scale.seed)
    every = list(files(Damageable.make(scale.folder)))
    for _ in range(max(1, scale.cases // len(every))):
        for name, content, judge in every:
            if content:
                bit = chance.randrange(8 * len(content))
                yield Case(f"{name}, bit {bit}", tuple(judge(flipped(content, bit))))


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
