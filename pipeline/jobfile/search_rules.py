"""What a JSON Schema says of the fields of a `search` section together; `Search.conflicts` says all of it."""

from __future__ import annotations

from pipeline.jobfile.schema_parts import GIVEN, JsonSchema, when

_ONE_OBJECTIVE: JsonSchema = {
    "if": {
        "anyOf": [
            {"properties": {"sampler": {"const": "cmaes"}}, "required": ["sampler"]},
            {"properties": {"pruner": {"enum": ["median", "hyperband"]}}, "required": ["pruner"]},
        ]
    },
    "then": {
        "properties": {"maximize": {"maxItems": 1}, "minimize": {"maxItems": 1}},
        **when({"maximize": GIVEN}, {"minimize": {"type": "null"}}),
    },
}
_DIFFERENT_METRICS: JsonSchema = {
    "properties": {"maximize": {"uniqueItems": True}, "minimize": {"uniqueItems": True}},
}
_STEPS: JsonSchema = {
    "anyOf": [{"required": ["step"]}, {"properties": {key: {"type": "integer"} for key in ("from", "to")}}]
}
_GRID_OF_STEPS = when(
    {"sampler": {"const": "grid"}},
    {"space": {"additionalProperties": {"if": {"type": "object"}, "then": _STEPS}}},
)
_CMAES_OF_TWO = when({"sampler": {"const": "cmaes"}}, {"space": {"minProperties": 2}})
SEARCH_RULES = (_ONE_OBJECTIVE, _DIFFERENT_METRICS, _GRID_OF_STEPS, _CMAES_OF_TWO)
