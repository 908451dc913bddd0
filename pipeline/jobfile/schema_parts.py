"""Parts of a JSON Schema by which the rules about several fields of a section are said to editors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

JsonSchema = dict[str, Any]

GIVEN: JsonSchema = {"not": {"type": "null"}}


def when(
    fields: Mapping[str, JsonSchema], then: Mapping[str, JsonSchema | bool], *, needs: Collection[str] = ()
) -> JsonSchema:
    """Where these fields are there and as said, the others have to be so. needs: fields that must be there then."""
    return {
        "if": {"properties": dict(fields), "required": list(fields)},
        "then": {"properties": dict(then), **({"required": list(needs)} if needs else {})},
    }
