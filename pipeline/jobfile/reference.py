"""The reference page of job files, written from the spec itself: docs/job-files.md is its output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.jobfile import own_modules, worth
from pipeline.jobfile.entries import Entry
from pipeline.jobfile.json_schema import json_schema
from pipeline.jobfile.sections import ChosenByName
from pipeline.jobfile.spec import NAMED_SECTIONS

_HEAD = """# Job files

This page is written by `pipeline schema --markdown` from `spec.py` and `catalog.py` of `pipeline/jobfile/`; a test
keeps it current. A job file is YAML with these sections; what is not given has its default. Unknown fields are
refused, and every problem is reported with its line and the nearest right name (`pipeline validate FILE`). Editors that
know YAML schemas complete and check job files as you type, by the comment in their first line.

YAML's traps are closed: `1e-3` is a number, `no` and `on` are text, `012` is text, and duplicate keys, anchors, aliases
and tags are refused. Any field can be overridden when a job is submitted: `--set train.optimizer.lr=0.05`.

Durations are `90s`, `5m`, `1h30m`, `2d`, or a number of seconds; sizes `512MB`, `8GB`, `8GiB`, or a number of bytes.
"""


def markdown() -> str:
    schema = json_schema()
    definitions = schema["$defs"]
    parts = [_HEAD, _section("The file", schema["properties"], schema.get("required", []))]
    for name in ("Train", "Log", "Resources", "Search"):
        properties = definitions[name]["properties"]
        required = definitions[name].get("required", [])
        parts.append(
            "\n".join([_section(f"`{name.lower()}`", properties, required), *_inside(properties, definitions)])
        )
    for path, choice in NAMED_SECTIONS.items():
        entries = {name: entry for name in (*choice.entries, *choice.own_names()) if (entry := choice.entry(name))}
        parts.append(_named_section(".".join(path), path[-1], entries, definitions))
        if choice.further_names:
            parts.append(_further(choice, definitions))
    return "\n".join([*parts, worth.markdown()])


def _named_section(path: str, noun: str, entries: Mapping[str, Entry], definitions: Mapping[str, Any]) -> str:
    lines = [f"## `{path}`", ""]
    common = [key for key in definitions[f"{next(iter(entries))}_section"]["properties"] if key != "name"]
    common = [key for key in common if all(key not in entry.options for entry in entries.values())]
    if common:
        properties = definitions[f"{next(iter(entries))}_section"]["properties"]
        shared = {key: properties[key] for key in common}
        lines += [*_rows(shared, []), "", *_inside(shared, definitions)]
    lines += [f"| `name` | {noun} |", "|---|---|"]
    lines += [f"| `{name}` | {entry.summary} |" for name, entry in entries.items()]
    for name, entry in entries.items():
        if entry.options:
            section = definitions[f"{name}_section"]
            properties = {key: section["properties"][key] for key in entry.options}
            lines += ["", f"Fields of `{name}`:", "", *_rows(properties, section.get("required", []))]
            for table in _inside(properties, definitions):
                lines += ["", table.rstrip("\n")]
    return "\n".join([*lines, ""])


def _inside(properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """The fields of the sections that a field may be."""
    for key, value in properties.items():
        for part in (part["$ref"] for part in (value, *value.get("anyOf", ())) if "$ref" in part):
            fields = definitions[part.removeprefix("#/$defs/")]["properties"]
            yield "\n".join([f"Fields of `{key}`:", "", *_rows(fields, []), ""])
            yield from _inside(fields, definitions)


def _further(choice: ChosenByName, definitions: Mapping[str, Any]) -> str:
    """The names that one entry stands for, and its fields."""
    group = choice.further_names[0].partition("/")[0]
    properties = definitions[f"{group}_section"]["properties"]
    names = ", ".join(f"`{name.partition('/')[2]}`" for name in choice.further_names)
    rows = _rows({key: properties[key] for key in choice.further_entry.options}, [])
    lines = [f"`{group}/<name>` is {choice.further_entry.summary}, with these names:", "", names, ""]
    return "\n".join([*lines, f"Fields of `{group}/<name>`:", "", *rows, ""])


def _section(title: str, properties: Mapping[str, Any], required: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", *_rows(properties, required), ""])


def _rows(properties: Mapping[str, Any], required: Iterable[str]) -> list[str]:
    lines = ["| field | values | default | what |", "|---|---|---|---|"]
    for key, value in properties.items():
        default = "must be given" if key in required else _default(value)
        lines.append(f"| `{key}` | {_values(value)} | {default} | {value.get('description', '')} |")
    return lines


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if default is None:
        return "" if "$ref" in value else "none"
    if default in ([], {}, ""):
        return ""
    return f"`{json.dumps(default)}`"


def _values(value: Mapping[str, Any]) -> str:
    if value.get("pattern") == own_modules.PATTERN:
        return "`file:name` of your own"
    if "enum" in value:
        return " ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "discriminator" in value or "$ref" in value:
        return "a section, below"
    if "anyOf" in value:
        members = list(dict.fromkeys(_values(choice) for choice in value["anyOf"] if choice.get("type") != "null"))
        return " or ".join("a list of these" if one == f"list of: {members[0]}" else one for one in members)
    if value.get("type") == "array":
        items = value.get("items") or {"anyOf": value.get("prefixItems", [])}
        return f"list of: {_values(items)}"
    kinds = {
        "integer": "whole number",
        "number": "number",
        "boolean": "`true` `false`",
        "string": "text",
        "object": "fields",
    }
    bounds = [
        f"{sign} {value[key]:g}" if abs(value[key]) < 1e6 else f"{sign} {value[key]:,}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in value
    ]
    return ", ".join([kinds.get(value.get("type", ""), "value"), *bounds])
