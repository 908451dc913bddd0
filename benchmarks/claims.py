"""What a benchmark finds, beside what it was to reach: a table for people, and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Claim:
    """A figure, or a sentence. One without a limit is told and claims nothing."""

    what: str
    found: float | str
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    holds: bool = True  # of what is not a figure: equal bits, say
    was_measured: bool = True

    @classmethod
    def left_out(cls, what: str, why: str) -> Claim:
        return cls(what, f"left out: {why}", was_measured=False)

    @property
    def is_met(self) -> bool:
        if isinstance(self.found, str):
            return self.holds
        above = self.at_least is None or self.found >= self.at_least
        return self.holds and above and (self.at_most is None or self.found <= self.at_most)

    @property
    def is_claimed(self) -> bool:
        has_limit = self.at_least is not None or self.at_most is not None
        return self.was_measured and (isinstance(self.found, str) or has_limit)

    def row(self) -> str:
        limit = ""
        if self.at_least is not None:
            limit = f">= {number(self.at_least)}"
        if self.at_most is not None:
            limit = f"<= {number(self.at_most)}"
        verdict = ("met" if self.is_met else "NOT MET") if self.is_claimed else ""
        found = self.found if isinstance(self.found, str) else f"{number(self.found)} {self.unit}".strip()
        return f"{self.what:58} {found:>22}  {limit:>14}  {verdict}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """Where nothing is claimed, or a figure is none, it is null."""
        found = self.found if isinstance(self.found, str) or math.isfinite(self.found) else None
        return {**asdict(self), "found": found, "is_met": self.is_met if self.is_claimed else None}


def number(value: float) -> str:
    """Returns a figure to three digits or so, as 98,304, 12.3 or 4.56e-05."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def summary(claims: Iterable[Claim]) -> str:
    """Names each claim that falls short."""
    claims = list(claims)
    short = [claim for claim in claims if not claim.is_met]
    missing = [claim for claim in claims if not claim.was_measured]
    lines = (
        ["fall short:", *(f"  {claim.row()}" for claim in short)] if short else ["every claim that was measured is met"]
    )
    return "\n".join([*lines, *(["not measured:"] if missing else []), *(f"  {claim.row()}" for claim in missing)])
