"""The fields that a sweep searches, as axes of charts: the scale of each, and where a value lies on it.

What a job file says of a field may be gone or damaged: then the values that trials had say what there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.board.conditions import object_at
from pipeline.queue.sweeps import TrialView
from pipeline.results.compared_run import as_text
from pipeline.results.report_page import printable
from pipeline.wording import cut

MAX_LABEL = 20


@dataclass(frozen=True)
class Axis:
    field: str
    label: str  # the end of the field's name, as far as it takes to tell it from the others
    choices: tuple[str, ...] = ()  # in words; none where the field has a range
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False

    def place(self, values: Mapping[str, Any]) -> float | None:
        """Returns where a trial lies: its number, or that of its choice; None where it has none that fits."""
        if self.field not in values:
            return None
        value = values[self.field]
        if self.choices:
            text = in_words(value)
            return float(self.choices.index(text)) if text in self.choices else None
        return float(value) if _is_number(value) and (value > 0 or not self.is_log) else None

    def share(self, place: float) -> float:
        """Returns how far up the axis that is, from 0 to 1."""
        if self.choices:
            return place / (len(self.choices) - 1) if len(self.choices) > 1 else 0.5
        low, high, at = (math.log(x) if self.is_log else x for x in (self.low, self.high, place))
        return (at - low) / (high - low) if high > low else 0.5


def of_fields(fields: Sequence[str], spec: Mapping[str, Any], trials: Sequence[TrialView]) -> list[Axis]:
    """Returns an axis a field. spec: the job file, not validated."""
    space = object_at(object_at(dict(spec), "search"), "space")
    labels = short_names(fields)
    return [
        _axis(field, labels[field], space.get(field), [t.values[field] for t in trials if field in t.values])
        for field in dict.fromkeys(fields)
    ]


def _axis(field: str, label: str, written: object, values: list[Any]) -> Axis:
    if isinstance(written, dict) and all(_is_number(value) for value in values):
        numbers = [x for x in (written.get("from"), written.get("to"), *values) if _is_number(x)]
        is_log = written.get("log") is True and all(x > 0 for x in numbers)
        return _range(field, label, numbers, is_log=is_log)
    if not isinstance(written, list) and values and all(_is_number(value) for value in values):
        return _range(field, label, values)
    known = [*(written if isinstance(written, list) else []), *values]
    return Axis(field, label, tuple(dict.fromkeys(map(in_words, known))) or ("?",))


def _range(field: str, label: str, numbers: list[Any], *, is_log: bool = False) -> Axis:
    low, high = (float(min(numbers)), float(max(numbers))) if numbers else (0.0, 1.0)
    return Axis(field, label, (), low, high, is_log)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e300
    )


def in_words(choice: object) -> str:
    return str(printable(as_text(choice)))


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """Returns the ends of dotted names: `lr` for `train.optimizer.lr`, more of it where another ends so too."""
    found = {}
    for field in fields:
        parts = field.split(".")
        fewest = 2 if parts[-1] == "name" else 1  # which says nothing by itself
        ends = (".".join(parts[-count:]) for count in range(fewest, len(parts) + 1))
        others = [other for other in fields if other != field]
        end = next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), field)
        found[field] = cut(str(printable(end)), MAX_LABEL)
    return found
