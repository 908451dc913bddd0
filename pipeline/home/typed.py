"""Makes dataclasses of what JSON holds, by the types of their fields.

Pydantic can do this too; importing it takes twice as long as all else that `pipeline status` does. What a class needs
is found out once: `status` makes 100,000 records.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

Converter = Callable[[Any], Any]
"""Makes of a value what a type says. Raises ValueError."""

Field = tuple[str, frozenset[Any], Converter]
"""A field's name, the classes of which a value is taken as it is, and what makes it of any other."""


def convert(value: Any, kind: Any) -> Any:
    """The value as what the type says; an int may be a float. Raises ValueError where it is something else.

    kind: a dataclass, a TypedDict without required keys, None, Any, int, float, str, bool, or a list, dict, Literal,
    tuple of a length or union of these. A dataclass is made of an object that has all fields without a default; what
    else is in an object is left out.
    """
    return _converter_of_class(kind)(value) if isinstance(kind, type) else _converter(kind)(value)


@functools.cache
def _converter_of_class(kind: type) -> Converter:
    return _converter(kind)


def _converter(kind: Any) -> Converter:
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    if is_typeddict(kind):
        return _of_typed_dict(kind)
    if origin in (Union, types.UnionType):
        return _of_union(kind, [_converter(argument) for argument in arguments])
    if origin is list:
        return _of_list(kind, *arguments)
    if origin is dict:
        return _of_dict(kind, *arguments)
    if origin is tuple:
        return _of_tuple(kind, [_converter(argument) for argument in arguments])
    if origin is Literal:
        return _of_literal(kind, arguments)
    return functools.partial(_plain, kind)


def _plain(kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if kind is Any or type(value) is kind:
        return value
    raise ValueError(f"not {kind}")


def _of_literal(kind: Any, choices: Sequence[Any]) -> Converter:
    def make(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"not {kind}")
        return value

    return make


def _of_dataclass(kind: Any) -> Converter:
    fields: list[Field] = []  # filled when the first is made: a class may have a field of its own kind

    def make(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"not a {kind}")  # noqa: TRY004 - of the file, not of the program
        if not fields:
            fields.extend(_fields(kind, [field.name for field in dataclasses.fields(kind)]))
        given = _convert_fields(value, fields)
        if len(given) == len(fields):  # as the program writes them: `__init__` of a frozen class takes thrice as long
            return _made(kind, given)
        try:
            return kind(**given)
        except TypeError as error:  # a field without a default is missing
            raise ValueError(str(error)) from None

    return make


def _made(kind: Any, given: dict[str, Any]) -> Any:
    made = object.__new__(kind)
    made.__dict__.update(given)
    if hasattr(made, "__post_init__"):
        made.__post_init__()
    return made


def _of_typed_dict(kind: Any) -> Converter:
    fields = _fields(kind, list(get_type_hints(kind)))

    def make(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"not a {kind}")  # noqa: TRY004 - of the file, not of the program
        return _convert_fields(value, fields)

    return make


def _fields(kind: Any, names: Sequence[str]) -> list[Field]:
    hints = get_type_hints(kind)
    return [(name, _classes(hints[name]), _converter(hints[name])) for name in names]


def _classes(kind: Any) -> frozenset[Any]:
    """The classes whose values are of a type as they are: of `str | None` both."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return frozenset(kinds) & {int, float, str, bool, types.NoneType}


def _convert_fields(value: dict[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    given = {}
    for name, classes, make in fields:
        if name in value:
            item = value[name]
            given[name] = item if type(item) in classes else make(item)
    return given


def _of_list(kind: Any, item: Any) -> Converter:
    make = _converter(item)

    def make_all(value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"not {kind}")  # noqa: TRY004
        return _convert_items(value, item, make)

    return make_all


def _of_dict(kind: Any, key: Any, item: Any) -> Converter:
    make_key, make_item = _converter(key), _converter(item)

    def make(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"not {kind}")  # noqa: TRY004
        if {*map(type, value)} <= {key} and {*map(type, value.values())} <= {item}:
            return value
        keys, values = _convert_items([*value], key, make_key), _convert_items([*value.values()], item, make_item)
        return dict(zip(keys, values, strict=True))

    return make


def _convert_items(values: list[Any], kind: Any, make: Converter) -> list[Any]:
    if {*map(type, values)} <= {kind}:
        return values  # of a confusion matrix, millions
    return [make(value) for value in values]


def _of_tuple(kind: Any, makers: Sequence[Converter]) -> Converter:
    def make(value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != len(makers):
            raise ValueError(f"not {kind}")
        return tuple(make_item(item) for make_item, item in zip(makers, value, strict=True))

    return make


def _of_union(kind: Any, makers: Sequence[Converter]) -> Converter:
    def make(value: Any) -> Any:
        for make_one in makers:
            try:
                return make_one(value)
            except ValueError:
                continue
        raise ValueError(f"not one of {kind}")

    return make
