"""Dataclasses of what JSON holds: what is of another kind is refused, and nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from pipeline.home.typed import convert


@dataclass(frozen=True)
class Point:
    x: float
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shape:
    kind: Literal["line", "area"]
    points: list[Point]
    sizes: dict[str, float] = field(default_factory=dict)
    note: str | None = None


def test_what_json_holds_becomes_what_the_types_say() -> None:
    value = {"kind": "line", "points": [{"x": 1}, {"x": 2.5, "tags": ["a"]}], "sizes": {"a": 3}, "later": 4}
    shape = convert(value, Shape)
    assert shape == Shape("line", [Point(1.0), Point(2.5, ["a"])], {"a": 3.0})
    assert (type(shape.points[0].x), type(shape.sizes["a"])) == (float, float)
    assert convert({**value, "note": "x"}, Shape).note == "x"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "point"},
        {"kind": ["line"]},
        {"points": {}},
        {"points": [{}]},
        {"points": [3]},
        {"points": [{"x": "1"}]},
        {"points": [{"x": True}]},
        {"points": [{"x": 10**400}]},
        {"points": [{"x": 1, "tags": [1]}]},
        {"sizes": {"a": None}},
        {"note": 3},
    ],
)
def test_what_is_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not |missing"):
        convert({"kind": "line", "points": [], **change}, Shape)


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="points"):
        convert({"kind": "line"}, Shape)
