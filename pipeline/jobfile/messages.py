"""What is wrong with a field of a job file, in words: what was given, what is allowed, and the nearest right name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pipeline.jobfile import yamltree
from pipeline.jobfile.spec import Spec
from pipeline.wording import nearest, short

Keys = tuple[str | int, ...]

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
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
    "dict_type": "a mapping of fields",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}
_BOOLS = dict.fromkeys(("true", "yes", "on", "y"), "true") | dict.fromkeys(("false", "no", "off", "n"), "false")


def explain(details: Sequence[ErrorDetails], path: Keys, plain: Any) -> str:
    """Pydantic's errors at `path` of the file's plain data: one, or one a member of a union of plain types."""
    detail, value = details[0], given(plain, path)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "union_tag_invalid":
        noun = _NOUNS[str(next(part for part in reversed(path[:-1]) if isinstance(part, str)))]
        return f"{short(value)} is not {noun}{nearest(str(value), _quoted(context['expected_tags']))}"
    if kind == "extra_forbidden":
        return _no_such_field(path, plain)
    if kind == "missing" and isinstance(value, list):
        return f"{short(value)} should have {int(details[-1]['loc'][-1]) + 1} items"
    if kind in ("missing", "union_tag_not_found"):
        return "is missing and has no default" + _names(path, plain)
    if kind in ("duration", "format"):
        return f"{short(value)} {detail['msg']}"
    if kind == "literal_error":
        choices = _quoted(context["expected"])
        hint = "; write it without quotes" if value in choices else nearest(str(value), choices)
        return f"{short(value)} is not allowed{hint}"
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
    return f"{short(value)} should {expected}{_hint(kind, value, path, plain)}"


def _no_such_field(path: Keys, plain: Any) -> str:
    name, members = str(path[-1]), _sections(path[:-1], plain)
    section = _chosen(members, given(plain, path[:-1]))
    known, others = list(section.model_fields), [_name(m) for m in members if name in m.model_fields]
    top, _, rest = name.partition(".")
    hint = None
    if others:
        hint = f"it belongs to {', '.join(others)}"
    elif rest and top in known:
        hint = f"write {top}: {{{rest}: ...}}"
    elif elsewhere := _elsewhere(name):
        hint = f"did you mean '{elsewhere}'?"
    subject = f"{_name(section)!r} has" if len(members) > 1 else "there is"
    return f"{subject} no such field{nearest(name, known, hint)}"


def _expected(detail: ErrorDetails) -> str:
    """What follows "should"."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return " or ".join(_quoted(context["expected"]))
    if kind in _EXPECTED:
        return "be " + _EXPECTED[kind].format(**{key: str(bound).removesuffix(".0") for key, bound in context.items()})
    message = re.sub(r" after validation, not \d+$", "", detail["msg"])
    return re.sub(r"^(Input|Tuple|String|List|Value) should ", "", message)


def _hint(kind: str, value: Any, path: Keys, plain: Any) -> str:
    """What to write instead of the value."""
    if value is None:
        return _hint_for_nothing(kind, path, plain)
    remedy = None
    if kind == "bool_type":
        remedy = _BOOLS.get(str(value).lower())
    elif kind == "string_type" and isinstance(value, (int, float)):
        return "; put it in quotes"
    elif kind in ("int_type", "float_type") and isinstance(value, str):
        remedy = _number(value)
    elif kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        remedy = f"{value:.0f}" if abs(value) < 1e15 else None
    elif kind == "tuple_type" and isinstance(value, (str, int, float)):
        remedy = f"[{value}]"
    elif kind.startswith(("model", "dict")):
        if value not in [_name(member) for member in _sections(path, plain) if "name" in member.model_fields]:
            return _names(path, plain)
        remedy = f"{{name: {value}}}"
    return f"; write {remedy}" if remedy else ""


def _hint_for_nothing(kind: str, path: Keys, plain: Any) -> str:
    """For a field that is there with nothing after its colon."""
    if not isinstance(path[-1], str):
        return _names(path, plain)
    section = _chosen(_sections(path[:-1], plain), given(plain, path[:-1]))
    if section.model_fields[path[-1]].is_required():
        return _names(path, plain)
    return '; write "" for empty text' if kind == "string_type" else "; leave it out for the default"


def _number(text: str) -> str | None:
    """The number that was meant by `'5'`, `012` or `1_000`; None where it is none."""
    text = re.sub(r"^([-+]?)0+(?=\d)|_", r"\1", text)
    value = yamltree.scalar(text)
    return text if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def given(plain: Any, path: Keys) -> Any:
    """What stands at `path`; None where nothing does."""
    for key in path:
        try:
            plain = plain[key]
        except (KeyError, IndexError, TypeError):
            return None
    return plain


def likely_name(path: Keys, plain: Any) -> str:
    """What a wrong or missing name at `path` was perhaps meant to be."""
    names = [_name(member) for member in _sections(path[:-1] if path[-1] == "name" else path, plain)]
    return [*difflib.get_close_matches(str(given(plain, path)), names, n=1, cutoff=0.5), names[0]][0]


def _quoted(text: str) -> list[str]:
    """The choices in Pydantic's enumeration: `'a', 'b' or 3`."""
    return [name or number for name, number in re.findall(r"'([^']*)'|\b(\d+)\b", text)]


def _names(path: Keys, plain: Any) -> str:
    """The names that choose the section, where it is the section or its name that is missing."""
    section = path[:-1] if path[-1] == "name" else path
    members = _sections(section, plain)
    if len(members) < 2:
        return ""
    names = ", ".join(sorted(_name(member) for member in members))
    return f"; choose one of {names}" + ("" if path[-1] == "name" else f", as {{name: {_name(members[0])}}}")


def _elsewhere(name: str) -> str | None:
    """Where a field of this name is, from the top of the file."""
    seen: list[tuple[str, type[BaseModel]]] = [("", Spec)]
    for prefix, model in seen:
        if name in model.model_fields and name != "name":
            return f"{prefix}{name}"
        for key, field in model.model_fields.items():
            seen += [(f"{prefix}{key}.", member) for member in _members(field.annotation)]
    return None


def _sections(path: Keys, plain: Any) -> list[type[BaseModel]]:
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
