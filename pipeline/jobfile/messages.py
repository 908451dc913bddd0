"""What is wrong with a field of a job file, in words: what was given, what is allowed, and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from pipeline.jobfile import own_modules, yamltree
from pipeline.jobfile.sections import ChosenByName, Section, as_section
from pipeline.jobfile.spec import NAMED_SECTIONS, Keys, Spec
from pipeline.jobfile.train import Train
from pipeline.wording import near, nearest, plural, short

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


def explain(
    details: Sequence[ErrorDetails],
    path: Keys,
    plain: Any,
    root: type[Section] = Spec,
    *,
    is_written: bool = True,
) -> str:
    """Pydantic's errors at `path` of the file's plain data: one, or one a member of a union of plain types.

    root: the section that the file is; what else than a job has, stands where a job has it. is_written: whether the
    field stands in the file, and not in an override, which another field of the same name does not hinder.
    """
    detail, value = details[0], given(plain, path)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "conflict":
        return detail["msg"]
    if kind == "unknown_name" and (choice := _choice_of(path)):
        return f"{short(value)} is not {choice.noun}{_why_not(value if isinstance(value, str) else '', choice)}"
    if kind == "extra_forbidden":
        return _no_such_field(path, plain, root, is_written=is_written)
    if kind == "missing" and isinstance(value, list):
        return f"{short(value)} should have {plural(int(details[-1]['loc'][-1]) + 1, 'item')}"
    if kind == "missing":
        return "is missing and has no default" + _names(path)
    if kind in ("duration", "format", "size"):
        return f"{short(value)} {detail['msg']}"
    if kind == "literal_error":
        choices = _quoted(context["expected"])
        return f"{short(value)} is not allowed{_hint_for_choice(value, choices)}"
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
    return f"{short(value)} should {expected}{_hint(kind, value, path, plain)}"


def _hint_for_choice(value: Any, choices: list[str]) -> str:
    """Which of the choices was meant."""
    if value in choices:
        return "; write it without quotes"
    if value is None:
        return nearest("none", choices, "write none" if "none" in choices else "leave it out for the default")
    is_like_one = isinstance(value, (str, int)) and not isinstance(value, bool)
    return nearest(str(value), choices, among=None if is_like_one else ())


def _why_not(name: str, choice: ChosenByName) -> str:
    if own_modules.is_own(name):
        return f": {choice.why_not(name)}"
    if "/" in name and choice.further_names:
        whole = {known.partition("/")[2]: known for known in choice.further_names}
        meant = near(name.partition("/")[2], whole)
        hint = f"; did you mean {whole[meant]!r}?" if meant else ""
        return f"{hint} (docs/job-files.md has the {len(choice.further_names)} that are known)"
    own = choice.own_names()
    known = [*choice.entries, *own]
    return nearest(name, known, _hint_for_name(name, choice, own))


def _hint_for_name(name: str, choice: ChosenByName, own: list[str]) -> str | None:
    """What to write for a name that is known elsewhere: in a module of one's own, as one of many, as a field."""
    if meant := next((one for one in own if name in one.split(":")), None):
        return f"write {meant}"
    is_numbered = name.rstrip("0123456789") in choice.entries  # vgg11 is the catalog's, of a depth
    if not is_numbered and (meant := next((n for n in choice.further_names if name == n.partition("/")[2]), None)):
        return f"write {meant}"
    if choice.kind == "augmentation" and name in Train.model_fields:
        return f"it is a field of its own: train.{name}"
    return None


def _no_such_field(path: Keys, plain: Any, root: type[Section], *, is_written: bool) -> str:
    name, at, choice = str(path[-1]), path[:-1], _choice_of(path[:-1])
    section, written = _section_at(at, plain, root), given(plain, at) if is_written else None
    there = set(written) if isinstance(written, dict) else set()
    known = list(section.model_fields)
    top, _, rest = name.partition(".")
    hint = None
    if choice and (others := choice.having(name)):
        hint = f"it belongs to {', '.join(others)}"
    elif rest and top in known and top not in there:
        hint = f"write {top}: {{{rest}: ...}}"
    elif rest and top in known:
        hint = f"write {rest} into {top}"
    elif (meant := near(name, known)) is None or meant in there:
        hint = _elsewhere(name, plain, root) or (f"{meant!r} is given already" if meant else None)
    chosen = given(plain, (*at, "name")) or (choice.default if choice else None)
    is_chosen = choice is not None and choice.entry(chosen) is not None
    subject = f"{chosen!r} has" if is_chosen else "there is"
    return f"{subject} no such field{nearest(name, known, hint, among=_free(section, there))}"


def _free(section: type[Section], there: set[str]) -> list[str]:
    """The fields of a section that may be given beside those that are there."""
    fields = section.model_fields
    barred = {declared.unless for name, declared in fields.items() if name in there}
    return [name for name, field in fields.items() if name not in there | barred and field.unless not in there]


def _expected(detail: ErrorDetails) -> str:
    """What follows "should"."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return " or ".join(_quoted(context["expected"]))
    if kind in _EXPECTED:
        return "be " + _EXPECTED[kind].format(**{key: str(bound).removesuffix(".0") for key, bound in context.items()})
    message = re.sub(r" after validation, not \d+$", "", detail["msg"])
    return re.sub(r"^(Input|Tuple|String|List|Dictionary|Value) should ", "", message)


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
        choice = _choice_of(path)
        if choice is None:
            return _first_field(_section_at(path, plain))
        if not isinstance(value, str) or choice.entry(value) is None:
            return _names(path)
        remedy = f"{{name: {value}}}"
    return f"; write {remedy}" if remedy else ""


def _first_field(section: type[Section]) -> str:
    """A section as it may be written, with its first field's default."""
    name, declared = next(iter(section.model_fields.items()))
    return "" if declared.default in (..., None) else f", as {{{name}: {declared.default}}}"


def _hint_for_nothing(kind: str, path: Keys, plain: Any) -> str:
    """For a field that is there with nothing after its colon."""
    if not isinstance(path[-1], str) or _section_at(path[:-1], plain).model_fields[path[-1]].is_required():
        return _names(path)
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


def _quoted(text: str) -> list[str]:
    """The choices in Pydantic's enumeration: `'a', 'b' or 3`."""
    return [name or number for name, number in re.findall(r"'([^']*)'|\b(\d+)\b", text)]


def _names(path: Keys) -> str:
    """The names that choose the section, where it is the section or its name that is missing."""
    choice, is_name = _choice_of(path), path[-1] == "name" and path != ("name",)
    if choice is None:
        return ""
    example = "" if is_name else f", as {{name: {next(iter(choice.entries))}}}"
    return f"; choose one of {', '.join(sorted(choice.entries))}{example}"


def _choice_of(path: Keys) -> ChosenByName | None:
    """What chooses the section at `path`, which may be that of its name; None where it has no name."""
    keys = tuple(key for key in path if isinstance(key, str))
    return NAMED_SECTIONS.get(keys[:-1] if keys[-1:] == ("name",) else keys)


def _section_at(path: Keys, plain: Any, root: type[Section] = Spec) -> type[Section]:
    """The model of the section at `path`, by its name where it has one."""
    section = root
    for depth, key in enumerate(path, start=1):
        if choice := _choice_of(path[:depth]):
            section = choice.section_class(given(plain, (*path[:depth], "name")) or choice.default)
        elif isinstance(key, str):
            section = as_section(section.model_fields[key].annotation) or section
    return section


def _elsewhere(name: str, plain: Any, root: type[Section]) -> str | None:
    """What to do with a field of this name that another section has, which is named from the top of the file."""
    sections: list[Keys] = [()]
    for path in sections:
        choice, section = _choice_of(path), _section_at(path, plain, root)
        where = ".".join(map(str, (*path, name)))
        is_chosen = choice is None or choice.entry(given(plain, (*path, "name")) or choice.default) is not None
        fields = section.model_fields if choice is None or is_chosen else choice.base.model_fields
        if name in fields and name != "name":
            if isinstance(there := given(plain, path), dict) and name in there:
                return f"{where!r} is given already"
            return f"did you mean {where!r}?" if path else "it belongs to the top of the file"
        if choice and (others := choice.having(name)):
            return f"it belongs to {'.'.join(map(str, path))} of {', '.join(others)}"
        for key, field in section.model_fields.items():
            if (*path, key) in NAMED_SECTIONS or as_section(field.annotation):
                sections.append((*path, key))
    return None
