"""What is wrong with a field of a job file, in words: what was given, what is allowed, and the nearest right name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pipeline import yamltree
from pipeline.spec import Spec

Path = tuple[str | int, ...]

_NOUNS = {
    "model": "a model",
    "data": "a dataset",
    "optimizer": "an optimizer",
    "schedule": "a schedule",
    "augment": "an augmentation",
}
_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list, as [crop, flip]",
    "model_type": "a mapping of fields, one a line, indented",
    "model_attributes_type": "a mapping of fields, one a line, indented",
    "dict_type": "a mapping of fields, one a line, indented",
}
_YES, _NO = ("yes", "on", "y"), ("no", "off", "n")


def explain(detail: ErrorDetails, path: Path, plain: Any) -> str:
    """One of Pydantic's errors, at `path` of the file's plain data."""
    kind, context, value = detail["type"], detail.get("ctx", {}), given(plain, path)
    if kind == "union_tag_invalid":
        noun = _NOUNS[str(next(part for part in reversed(path[:-1]) if isinstance(part, str)))]
        return f"{context['tag']!r} is not {noun}{nearest(context['tag'], _quoted(context['expected_tags']))}"
    if kind == "extra_forbidden":
        return f"there is no such field{nearest(str(path[-1]), _fields(path[:-1], plain))}"
    if kind in ("missing", "union_tag_not_found"):
        return "is missing and has no default" + _names(path, plain)
    if kind == "literal_error":
        return f"{short(value)} is not allowed{nearest(str(value), _quoted(context['expected']))}"
    return f"{short(value)} {_expectation(detail, value)}"


def _expectation(detail: ErrorDetails, value: Any) -> str:
    kind, message = detail["type"], detail["msg"]
    if kind in ("duration", "format"):
        return message
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _YES + _NO:
        return f"is text; write {'true' if value.lower() in _YES else 'false'}"
    hint = ""
    if kind == "string_type" and isinstance(value, (int, float, bool)):
        hint = "; put it in quotes"
    elif kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        hint = "; write it without quotes"
    expected = _EXPECTED.get(kind) or re.sub(r"^(Input|Tuple|String|List|Value) should (be )?", "", message)
    return f"should {'have' if expected.startswith('have') else 'be'} {expected.removeprefix('have ')}{hint}"


def _is_number(text: str) -> bool:
    value = yamltree.scalar(text)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def given(plain: Any, path: Path) -> Any:
    """What stands at `path`; None where nothing does."""
    for key in path:
        try:
            plain = plain[key]
        except (KeyError, IndexError, TypeError):
            return None
    return plain


def short(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(wrong: str, names: Iterable[str]) -> str:
    """`; did you mean 'a'? (known: a, b)`; without the question where nothing is near."""
    known = sorted(set(names), key=lambda name: (int(name) if name.isdigit() else 0, name))
    if wrong.isdigit() and all(name.isdigit() for name in known):
        near = [min(known, key=lambda name: abs(int(name) - int(wrong)))]
    else:
        near = difflib.get_close_matches(wrong.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (known: {', '.join(known)})"


def _quoted(text: str) -> list[str]:
    """The choices in Pydantic's enumeration: `'a', 'b' or 3`."""
    return [name or number for name, number in re.findall(r"'([^']*)'|\b(\d+)\b", text)]


def _names(path: Path, plain: Any) -> str:
    members = _sections(path[:-1], plain)
    if path[-1] != "name" or len(members) < 2:
        return ""
    return f"; choose one of {', '.join(sorted(_name(member) for member in members))}"


def _fields(path: Path, plain: Any) -> list[str]:
    """The names of the fields that the section at `path` may have."""
    return list(_chosen(_sections(path, plain), given(plain, path)).model_fields)


def _sections(path: Path, plain: Any) -> list[type[BaseModel]]:
    """The models that may stand at `path`; several where a `name` chooses."""
    members: list[type[BaseModel]] = [Spec]
    for depth, key in enumerate(path):
        if isinstance(key, str):
            model = _chosen(members, given(plain, path[:depth]))
            members = _members(model.model_fields[key].annotation)
    return members


def _chosen(members: list[type[BaseModel]], section: Any) -> type[BaseModel]:
    name = section.get("name") if isinstance(section, dict) else None
    return next((m for m in members if len(members) > 1 and _name(m) == name), members[0])


def _name(member: type[BaseModel]) -> str:
    return str(get_args(member.model_fields["name"].annotation)[0])


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation, through unions and tuples."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for argument in get_args(annotation) for member in _members(argument)]
