"""Parts of a JSON Schema by which the rules about several fields of a section are said to editors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

JsonSchema = dict[str, Any]

GIVEN: JsonSchema = {"not": {"type": "null"}}


def silent(rule: Any) -> Any:
    """The rule, marked so that editors complete a field by what declares it alone."""
    if isinstance(rule, list):
        return [silent(part) for part in rule]
    if not isinstance(rule, dict):
        return rule
    marked = {key: silent(part) for key, part in rule.items()}
    if isinstance(fields := marked.get("properties"), dict):
        marked["properties"] = {
            name: {**part, "doNotSuggest": True} if isinstance(part, dict) else part for name, part in fields.items()
        }
    return marked


def when(
    fields: Mapping[str, JsonSchema], then: Mapping[str, JsonSchema | bool], *, needs: Collection[str] = ()
) -> JsonSchema:
    """Where these fields are there and as said, the others have to be so. needs: fields that must be there then."""
    return {
        "if": {"properties": dict(fields), "required": list(fields)},
        "then": {"properties": dict(then), **({"required": list(needs)} if needs else {})},
    }
