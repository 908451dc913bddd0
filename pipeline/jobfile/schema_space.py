"""The fields that a sweep's space may name, for the JSON Schema: an editor completes them, and knows their values.

Options of a section that a name chooses are completed alone: one of the user's own may have others of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.jobfile import own_modules
from pipeline.jobfile.schema_parts import JsonSchema
from pipeline.jobfile.search import NOT_SEARCHED
from pipeline.jobfile.sections import Section, as_section
from pipeline.jobfile.spec import NAMED_SECTIONS, Spec

_Found = tuple[str, str, JsonSchema | None]  # the field, what it is, and its schema


def complete(definitions: dict[str, JsonSchema]) -> None:
    """Says in the definition of `search` which fields there are."""
    space = definitions["Search"]["properties"]["space"]
    definitions["Choices"], definitions["Range"] = space["additionalProperties"]["anyOf"]
    values = [{"$ref": "#/$defs/Choices"}, {"$ref": "#/$defs/Range"}]
    space["additionalProperties"] = {"anyOf": values}
    space["properties"] = {
        key: {"anyOf": values if value is None else _values_of(value), "description": description}
        for key, description, value in _fields(Spec, ())
    }


def _values_of(value: JsonSchema) -> list[JsonSchema]:
    return [
        {"allOf": [{"$ref": "#/$defs/Choices"}, {"items": value}]},
        {"allOf": [{"$ref": "#/$defs/Range"}, {"properties": {"from": value, "to": value}}]},
    ]


def _fields(section: type[Section], path: tuple[str, ...]) -> Iterator[_Found]:
    """Yields the fields of a section that no name chooses, and of what lies in it."""
    section.fill_in_types()
    here = f"#/$defs/{section.__name__}" if path else "#"
    for name, declared in section.model_fields.items():
        if path or name not in NOT_SEARCHED:
            at = (*path, name)
            yield ".".join(at), declared.description, {"$ref": f"{here}/properties/{name}"}
            if at in NAMED_SECTIONS:
                yield from _chosen_fields(at)
            elif inside := as_section(declared.annotation):
                yield from _fields(inside, at)


def _chosen_fields(path: tuple[str, ...]) -> Iterator[_Found]:
    choice = NAMED_SECTIONS[path]
    at = ".".join(path)
    first = choice.section_class(next(iter(choice.entries)))
    names = [*choice.entries, *choice.further_names]
    named = {"anyOf": [{"enum": names, "type": "string"}, {"pattern": own_modules.PATTERN, "type": "string"}]}
    yield f"{at}.name", choice.noun, named
    for name, declared in choice.base.model_fields.items():
        if name != "name":
            yield f"{at}.{name}", declared.description, {"$ref": f"#/$defs/{first.__name__}/properties/{name}"}
            if (*path, name) not in NAMED_SECTIONS and (inside := as_section(declared.annotation)):
                yield from _fields(inside, (*path, name))
    entries = (*choice.entries.values(), choice.further_entry)
    options = {key: declared for entry in entries for key, (_, declared) in entry.options.items()}
    yield from ((f"{at}.{key}", declared.description, None) for key, declared in options.items())
