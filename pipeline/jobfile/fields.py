"""Fields of a job file's sections: what may stand in one, by its Python type, its bounds and what it is annotated with.

Pydantic's core validates them. The part of Pydantic that is written in Python, its `BaseModel`, does the same from the
same declarations, and importing it takes longer than all else that `pipeline submit` does (`benchmarks/commands.py`).
"""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pipeline.jobfile.number_patterns import END, decimal_within, whole_up_to
from pipeline.jobfile.schema_parts import JsonSchema

UNION_MEMBER = "\0"
"""Begins what stands, in the location of an error, for one of the kinds that a value may be; no key of a file does."""


class Field:
    """A field as it is declared. A default of `...` says that it must be given.

    unless: another field of its section, in whose place it stands. Where that is given, this one is None.
    """

    def __init__(self, default: Any, description: str, bounds: dict[str, Any], unless: str | None = None) -> None:
        self.default, self.description, self.bounds, self.unless = default, description, bounds, unless
        self.annotation: Any = None  # its type, which the section that it belongs to fills in

    def is_required(self) -> bool:
        return self.default is ...

    def schema(self) -> CoreSchema:
        """The default is validated too where it is the `{}` of a section, which makes it a section of defaults."""
        schema = schema_of(self.annotation, **self.bounds)
        if self.unless:
            schema = core_schema.nullable_schema(schema)
        if self.is_required():
            return schema
        return core_schema.with_default_schema(schema, default=self.default, validate_default=self.default == {})


def field(default: Any = ..., *, description: str, **bounds: Any) -> Any:
    """Declares a field of a section. bounds: gt, ge, lt, le of numbers; min_length, max_length of text and lists."""
    return Field(default, description, bounds)


class Bounds:
    """Annotates a number that is one of the kinds that a field may be, or one of a list."""

    def __init__(self, **bounds: Any) -> None:
        self.bounds = bounds


class Kind(Protocol):
    """What a type is annotated with to be validated, and shown to an editor, in its own way."""

    def schema(self, of_type: CoreSchema) -> CoreSchema: ...

    def json_schema(self, of_type: JsonSchema) -> JsonSchema: ...


_PLAIN: dict[Any, Any] = {
    bool: core_schema.bool_schema,
    int: core_schema.int_schema,
    float: core_schema.float_schema,
    str: core_schema.str_schema,
}


def schema_of(kind: Any, **bounds: Any) -> CoreSchema:
    """What a field of this type takes, as Pydantic's core knows it.

    kind: bool, int, float, str, a section, Any, or a Literal, union or tuple of these, or one that is annotated.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        schema: CoreSchema = _PLAIN[kind](**bounds)
        return schema
    if origin is Annotated:
        return _annotated_schema(*arguments)
    if origin is Literal:
        return core_schema.literal_schema(list(arguments))
    if origin is tuple:
        items = [schema_of(item) for item in arguments if item is not ...]
        return core_schema.tuple_schema(items, variadic_item_index=0 if ... in arguments else None, **bounds)
    if origin in (Union, types.UnionType):
        return _union_schema([member for member in arguments if member is not types.NoneType], arguments, bounds)
    return core_schema.any_schema() if kind is Any else kind.schema()  # of a section


def _annotated_schema(kind: Any, annotation: Bounds | Kind) -> CoreSchema:
    if isinstance(annotation, Bounds):
        return schema_of(kind, **annotation.bounds)
    return annotation.schema(schema_of(kind) if kind in _PLAIN else core_schema.any_schema())


def _union_schema(members: list[Any], arguments: tuple[Any, ...], bounds: dict[str, Any]) -> CoreSchema:
    if len(members) == 1:
        schema = schema_of(members[0], **bounds)
    else:
        labels = (f"{UNION_MEMBER}{number}" for number in range(len(members)))
        schema = core_schema.union_schema(list(zip(map(schema_of, members), labels, strict=True)))
    return schema if len(members) == len(arguments) else core_schema.nullable_schema(schema)


class TextFormat:
    """Annotates text that matches a pattern; `complaint` tells a person what is wrong otherwise."""

    def __init__(self, pattern: str, complaint: str) -> None:
        self.pattern, self.complaint = pattern, complaint

    def check(self, value: object) -> object:
        if re.fullmatch(self.pattern, str(value)) is None:
            raise PydanticCustomError("format", "{complaint}", {"complaint": self.complaint})
        return value

    def schema(self, of_type: CoreSchema) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.check, of_type)

    def json_schema(self, of_type: JsonSchema) -> JsonSchema:
        return {**of_type, "pattern": f"^({self.pattern}){END}", "patternErrorMessage": f"It {self.complaint}"}


class OneOrMore:
    """Annotates a tuple of texts, each of them once: `[a, b]`; one may stand alone, `a`."""

    def __init__(self, item: Any, *, most: int) -> None:
        """item: the type of one. most: how many there may be."""
        self.item, self.most = item, most

    def as_list(self, value: object) -> object:
        if isinstance(value, str) and "," in value:
            items = ", ".join(part.strip() for part in value.split(","))
            raise PydanticCustomError("format", "should be a list; write [{items}]", {"items": items})
        if isinstance(value, (dict, type(None))):
            return value  # refused as no list
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)

    def check(self, items: tuple[str, ...]) -> tuple[str, ...]:
        if twice := next((item for item in items if items.count(item) > 1), None):
            raise PydanticCustomError("format", "has '{item}' twice", {"item": twice})
        return items

    def schema(self, of_type: CoreSchema) -> CoreSchema:  # noqa: ARG002
        items = core_schema.tuple_schema([schema_of(self.item)], variadic_item_index=0, max_length=self.most)
        unlike = core_schema.no_info_after_validator_function(self.check, items)
        return core_schema.no_info_before_validator_function(self.as_list, unlike)

    def json_schema(self, of_type: JsonSchema) -> JsonSchema:  # noqa: ARG002
        item = get_args(self.item)[1].json_schema({"type": "string"})
        return {"anyOf": [item, {"items": item, "maxItems": self.most, "type": "array", "uniqueItems": True}]}


class Fractional:
    """Annotates a number that is mostly a whole one, and then is kept as such: `10`, `9.9`."""

    def __init__(self, *, least: float, most: int) -> None:
        self.least, self.most = least, most

    def convert(self, number: float) -> float:
        """Three decimals are kept, so that 3.0000000000000004, which is 30 * 0.1, is 3."""
        rounded = round(number, 3)
        return int(rounded) if rounded.is_integer() else rounded

    def schema(self, of_type: CoreSchema) -> CoreSchema:  # noqa: ARG002
        number = core_schema.float_schema(ge=self.least, le=self.most)
        return core_schema.no_info_after_validator_function(self.convert, number)

    def json_schema(self, of_type: JsonSchema) -> JsonSchema:
        return {**of_type, "minimum": self.least, "maximum": self.most}


MAX_DAYS = 366


class InSeconds:
    """Annotates a duration: `90`, `90s`, `5m`, `1h30m` or `2d`, as seconds."""

    def convert(self, value: object) -> int:
        pattern = "".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in "dhms")
        match = re.fullmatch(pattern, value) if isinstance(value, str) and value else None
        if match:
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            value = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if type(value) is not int:
            raise PydanticCustomError("duration", "is not a duration; write 90s, 5m, 1h30m, 2d or a number of seconds")
        if not 1 <= value <= MAX_DAYS * 86400:
            raise PydanticCustomError(
                "duration", "is out of range; a duration is from 1s to {days}d", {"days": MAX_DAYS}
            )
        return value

    def schema(self, of_type: CoreSchema) -> CoreSchema:  # noqa: ARG002
        return core_schema.no_info_plain_validator_function(self.convert)

    def json_schema(self, of_type: JsonSchema) -> JsonSchema:
        parts = "".join(
            f"(?:{whole_up_to(MAX_DAYS * 86400 // seconds, unit)})?"
            for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
        )
        text = {
            "type": "string",
            "pattern": f"^(?=.*[1-9]){parts}{END}",
            "patternErrorMessage": f"It is not a duration from 1s to {MAX_DAYS}d; write 90s, 5m, 1h30m, 2d",
        }
        return {"anyOf": [text, {**of_type, "minimum": 1, "maximum": MAX_DAYS * 86400}]}


Duration = Annotated[int, InSeconds()]

MIN_BYTES, MAX_BYTES = 256 * 10**6, 2**50  # a process that has loaded PyTorch takes some 200 MB


class InBytes:
    """Annotates an amount of memory: `512MB`, `8GB`, `8GiB`, `1.5TB`, `16g` (GiB, as Docker has it), or bytes."""

    def convert(self, value: object) -> int:
        pattern = r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(?:([MGT])(i?)B|([mgt]))"
        match = re.fullmatch(pattern, value) if isinstance(value, str) else None
        if match:
            number, prefix, binary, short = match.groups()
            unit = 1024 if binary or short else 1000
            value = int(float(number) * unit ** ("MGT".index(prefix or short.upper()) + 2))
        if type(value) is not int:
            raise PydanticCustomError("size", "is not a size; write 512MB, 8GB, 8GiB or a number of bytes")
        if not MIN_BYTES <= value <= MAX_BYTES:
            raise PydanticCustomError(
                "size", "is out of range; memory is from 256MB, which PyTorch alone takes, to 1024TiB"
            )
        return value

    def schema(self, of_type: CoreSchema) -> CoreSchema:  # noqa: ARG002
        return core_schema.no_info_plain_validator_function(self.convert)

    def json_schema(self, of_type: JsonSchema) -> JsonSchema:
        units = {f"{letter}B": 1000**power for power, letter in enumerate("MGT", start=2)}
        units |= {f"(?:{letter}iB|{letter.lower()})": 1024**power for power, letter in enumerate("MGT", start=2)}
        sizes = (
            decimal_within(-(-MIN_BYTES * 1000 // size), MAX_BYTES * 1000 // size, unit) for unit, size in units.items()
        )
        text = {
            "type": "string",
            "pattern": f"^(?:{'|'.join(sizes)}){END}",
            "patternErrorMessage": "It is not a size from 256MB to 1024TiB; write 512MB, 8GB, 8GiB",
        }
        return {"anyOf": [text, {**of_type, "minimum": MIN_BYTES, "maximum": MAX_BYTES}]}


Size = Annotated[int, InBytes()]
