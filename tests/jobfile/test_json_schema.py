"""The JSON Schema that editors use agrees with what the program takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_texts import JOBS, MINIMAL, errors

from pipeline.jobfile import yamltree
from pipeline.jobfile.json_schema import json_schema


def test_the_schema_in_the_repository_is_current() -> None:
    assert json.loads((JOBS / "schema.json").read_text()) == json_schema()


KINDS: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
KINDS |= {"number": (int, float), "null": type(None)}
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "minProperties": lambda value, bound: len(value) >= bound,
    "maxProperties": lambda value, bound: len(value) <= bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "maxItems": lambda value, bound: len(value) <= bound,
    "pattern": lambda value, bound: re.search(bound, value) is not None,
    "enum": lambda value, bound: value in bound,
    "const": lambda value, bound: value == bound,
}
NOTES = {"$schema", "$defs", "default", "description", "title", "discriminator"}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is valid by that part of JSON Schema which ours uses; an unknown keyword is a KeyError."""

    def holds(keyword: str, bound: Any) -> bool:
        if keyword == "$ref":
            return fits(value, root["$defs"][bound.removeprefix("#/$defs/")], root)
        if keyword in ("anyOf", "oneOf"):
            return sum(fits(value, one, root) for one in bound) in ((1,) if keyword == "oneOf" else range(1, 99))
        if keyword == "type":
            return isinstance(value, KINDS[bound]) and (bound == "boolean" or not isinstance(value, bool))
        if keyword == "required":
            return all(name in value for name in bound)
        if keyword == "additionalProperties" and isinstance(bound, dict):
            return all(fits(one, bound, root) for one in value.values())
        if keyword == "propertyNames":
            return all(fits(name, bound, root) for name in value)
        if keyword == "additionalProperties":
            return all(name in schema["properties"] for name in value)
        if keyword == "properties":
            return all(fits(value[name], bound[name], root) for name in value if name in bound)
        if keyword == "prefixItems":
            return all(fits(item, one, root) for item, one in zip(value, bound, strict=False))
        if keyword == "items":
            return all(fits(item, bound, root) for item in value)
        return BOUNDS[keyword](value, bound)

    order = sorted(schema.keys() - NOTES, key=lambda keyword: keyword != "type")  # bounds are of the right kind only
    return all(holds(keyword, schema[keyword]) for keyword in order)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_editor_finds_nothing_wrong_with_a_ready_job(path: Path) -> None:
    schema = json_schema()
    assert fits(yamltree.parse(path.read_bytes(), path.name).plain(), schema, schema)


@pytest.mark.parametrize(
    "more",
    [
        "trian: {}",
        "train: {epochs: 0}",
        "train: {epochs: x}",
        "train: {optimizer: {name: sdg}}",
        "train: {optimizer: {name: adam, momentum: 0.9}}",
        "train: {optimizer: {name: adam, betas: [0.9, 1]}}",
        "resources: {device: gpu}",
        "resources: {device: cudax}",
        "resources: {timeout: soon}",
        "resources: {timeout: ''}",
        "resources: {retry_on: [faild]}",
    ],
)
def test_an_editor_finds_what_the_program_refuses(more: str) -> None:
    schema = json_schema()
    assert fits(yamltree.parse(MINIMAL.encode(), "x").plain(), schema, schema)
    assert not fits(yamltree.parse((MINIMAL + more).encode(), "x").plain(), schema, schema)
    assert errors(more)
