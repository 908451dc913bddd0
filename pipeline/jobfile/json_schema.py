"""The JSON Schema of job files, by which editors check and complete them."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pipeline.jobfile import own_modules, schema_rules, schema_space
from pipeline.jobfile.fields import Bounds, Field
from pipeline.jobfile.schema_parts import JsonSchema, silent
from pipeline.jobfile.sections import ChosenByName, NamedSection, Section
from pipeline.jobfile.spec import NAMED_SECTIONS, Spec

_TYPES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_KEYWORDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_KEYWORDS_OF = {
    "string": {"min_length": "minLength", "max_length": "maxLength"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
}


def json_schema() -> JsonSchema:
    """The schema of a job file, with a definition of each section."""
    definitions: dict[str, JsonSchema] = {}
    for choice in NAMED_SECTIONS.values():
        for name in (*choice.entries, *choice.further_names[:1], *choice.own_names()):
            _define(choice.section_class(name), definitions)
    root = _define(Spec, definitions)
    is_sweep: JsonSchema = {"properties": {"search": {"type": "object"}}, "required": ["search"]}
    rules: JsonSchema = {"allOf": list(schema_rules.of_file())}
    root["allOf"] = silent([{"if": is_sweep, "else": rules}])  # what is searched may be other than what is written
    del definitions[Spec.__name__]
    schema_space.complete(definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions, **root}


def _define(section: type[Section], definitions: dict[str, JsonSchema]) -> JsonSchema:
    section.fill_in_types()
    fields = section.model_fields
    schema: JsonSchema = {
        "additionalProperties": False,
        **({"description": section.__doc__} if section.__doc__ else {}),
        "properties": {name: _field(name, declared, definitions) for name, declared in fields.items()},
        **({"required": required} if (required := [n for n, f in fields.items() if f.is_required()]) else {}),
        "title": section.__name__,
        "type": "object",
    }
    rules = [*section.schema_rules]
    if issubclass(section, NamedSection):
        rules += schema_rules.of_entry(section.entry)
    if rules:
        schema["allOf"] = silent(rules)
    definitions[section.__name__] = schema
    return schema


def _field(name: str, declared: Field, definitions: dict[str, JsonSchema]) -> JsonSchema:
    schema = _of_type(declared.annotation, declared.bounds, definitions)
    if declared.unless:
        schema = {"anyOf": [schema, {"type": "null"}]}
    schema = {**schema, "description": declared.description}
    if "$ref" in schema:
        return schema
    if not declared.is_required():
        schema["default"] = list(declared.default) if isinstance(declared.default, tuple) else declared.default
    return {**schema, "title": name.replace("_", " ").title()}


def _of_type(kind: Any, bounds: dict[str, Any], definitions: dict[str, JsonSchema]) -> JsonSchema:
    """As `fields.schema_of`, for an editor."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _TYPES:
        return {"type": _TYPES[kind], **_keywords(bounds, _TYPES[kind])}
    if origin is Annotated and isinstance(arguments[1], Bounds):
        return _of_type(arguments[0], arguments[1].bounds, definitions)
    if origin is Annotated and isinstance(arguments[1], ChosenByName):
        return _of_choice(arguments[1])
    if origin is Annotated:
        plain = {"type": _TYPES[arguments[0]]} if arguments[0] in _TYPES else {}
        schema: JsonSchema = arguments[1].json_schema(plain)
        return schema
    if origin is Literal:
        kinds = {_TYPES[type(choice)] for choice in arguments}
        return {
            "const" if len(arguments) == 1 else "enum": arguments[0] if len(arguments) == 1 else list(arguments),
            "type": kinds.pop(),
        }
    if origin is tuple:
        return _of_tuple(arguments, bounds, definitions)
    if origin in (Union, types.UnionType):
        return _of_union(arguments, bounds, definitions)
    _define(kind, definitions)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _of_choice(choice: ChosenByName) -> JsonSchema:
    """One of the entries' sections, so that an editor completes each by itself; `reference.py` has them.

    The user's own are among them if they are known now; others may be there when the job is submitted.
    """
    own = choice.own_names()
    all_names = (*choice.entries, *choice.further_names, *own)
    names = {name: f"#/$defs/{choice.section_class(name).__name__}" for name in all_names}
    other = {"type": "string", "pattern": own_modules.PATTERN, **({"not": {"enum": own}} if own else {})}
    schema: JsonSchema = {
        "discriminator": {"mapping": names, "propertyName": "name"},
        "oneOf": [
            *({"$ref": name} for name in dict.fromkeys(names.values())),
            {"type": "object", "properties": {"name": other}, "required": ["name"]},
        ],
    }
    return {"anyOf": [schema, {"enum": [*names], "type": "string"}, other]} if choice.is_short else schema


def _of_tuple(arguments: tuple[Any, ...], bounds: dict[str, Any], definitions: dict[str, JsonSchema]) -> JsonSchema:
    items = [_of_type(item, {}, definitions) for item in arguments if item is not ...]
    if ... in arguments:
        return {"items": items[0], "type": "array", **_keywords(bounds, "array")}
    return {"maxItems": len(items), "minItems": len(items), "prefixItems": items, "type": "array"}


def _of_union(arguments: tuple[Any, ...], bounds: dict[str, Any], definitions: dict[str, JsonSchema]) -> JsonSchema:
    members: list[JsonSchema] = []
    for member in arguments:
        schema: JsonSchema = {"type": "null"} if member is types.NoneType else _of_type(member, bounds, definitions)
        members.extend(schema.get("anyOf", [schema]))
    return {"anyOf": members}


def _keywords(bounds: dict[str, Any], kind: str) -> JsonSchema:
    names = {**_KEYWORDS, **_KEYWORDS_OF.get(kind, {})}
    return {names[name]: bound for name, bound in bounds.items()}
