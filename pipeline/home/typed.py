"""Makes dataclasses of what JSON holds, by the types of their fields.

Pydantic can do this too; importing it takes twice as long as all else that `pipeline status` does.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

_type_hints = functools.cache(get_type_hints)


def convert(value: Any, kind: Any) -> Any:
    """The value as what the type says; an int may be a float. Raises ValueError where it is something else.

    kind: a dataclass, a TypedDict without required keys, None, Any, int, float, str, bool, or a list, dict, Literal,
    tuple of a length or union of these. A dataclass is made of an object that has all fields without a default; what
    else is in an object is left out.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _make(value, kind)
    if is_typeddict(kind) and isinstance(value, dict):
        return {key: convert(value[key], item) for key, item in _type_hints(kind).items() if key in value}
    if origin in (Union, types.UnionType):
        return _convert_to_any_of(value, arguments)
    if origin is list and isinstance(value, list):
        return _convert_items(value, arguments[0])
    if origin is dict and isinstance(value, dict):
        keys, values = _convert_items([*value], arguments[0]), _convert_items([*value.values()], arguments[1])
        return dict(zip(keys, values, strict=True))
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(arguments):
        return tuple(map(convert, value, arguments))
    if kind is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if kind is Any or type(value) is kind or (origin is Literal and value in arguments):
        return value
    raise ValueError(f"not {kind}")


def _convert_items(values: list[Any], kind: Any) -> list[Any]:
    if all(type(value) is kind for value in values):
        return values  # of a confusion matrix, millions
    return [convert(value, kind) for value in values]


def _convert_to_any_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return convert(value, kind)
        except ValueError:
            continue
    raise ValueError(f"not one of {kinds}")


def _make(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"not a {kind}")  # noqa: TRY004 - of the file, not of the program
    fields, hints = dataclasses.fields(kind), _type_hints(kind)
    given = {field.name: convert(value[field.name], hints[field.name]) for field in fields if field.name in value}
    try:
        return kind(**given)
    except TypeError as error:  # a field without a default is missing
        raise ValueError(str(error)) from None
