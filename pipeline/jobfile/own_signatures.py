"""The options of a class or a function of a user's own, from its signature as it is written; nothing is run.

A parameter is an option where its type hint, or without one its default, is of a kind that a job file can give: bool,
int, float, str, `Literal`, `None`, and unions, lists and tuples of these; `Annotated[int, Field(ge=1)]` gives bounds
and a description. Any other one keeps its default, and must have one.
"""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin

from pydantic_core import SchemaError, SchemaValidator, ValidationError

from pipeline.jobfile.entries import Options
from pipeline.jobfile.fields import Bounds, Field, schema_of
from pipeline.jobfile.own_values import MAX_DEPTH, PLAIN, Names, NotPlainError, last_name, number_of, value_of

Fail = Callable[[ast.AST, str], NoReturn]

SEQUENCES = ("list", "List", "Sequence", "Iterable")
MAX_HINT = 300  # characters of a type hint that is text
BOUNDS = ("gt", "ge", "lt", "le", "min_length", "max_length")


@dataclass(frozen=True)
class Signature:
    options: Options
    parameters: frozenset[str]  # the names of all
    takes_any: bool  # other arguments too, by name
    lists: frozenset[str]  # options whose hint says list


class Hint(NamedTuple):
    kind: Any
    bounds: Mapping[str, Any]
    description: str = ""
    is_list: bool = False


def read_signature(
    arguments: ast.arguments,
    *,
    by_position: int,
    given: frozenset[str],
    taken: frozenset[str],
    names: Names,
    fail: Fail,
) -> Signature:
    """by_position: how many parameters the program passes so. given: those it passes by name, if they are there.

    taken: names that an option cannot have. names: what the names of the file stand for. fail: raises for a place.
    """
    options: dict[str, tuple[Any, Field]] = {}
    lists, parameters = set(), set()
    for number, (parameter, default) in enumerate(_parameters(arguments)):
        name = parameter.arg
        parameters.add(name)
        if number < by_position or name in given:
            continue
        option = _option(parameter, default, names, fail)
        if option is None:
            continue
        if number < len(arguments.posonlyargs):
            fail(parameter, f"'{name}' can be passed by position only, and options are passed by name")
        if name in taken or name.startswith("__"):
            fail(parameter, f"an option cannot be called '{name}', which is taken; rename it")
        hint, value = option
        options[name] = (hint.kind, Field(value, hint.description, dict(hint.bounds)))
        if hint.is_list:
            lists.add(name)
    return Signature(options, frozenset(parameters), arguments.kwarg is not None, frozenset(lists))


def _parameters(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """All that have a name, with their defaults."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    yield from zip(positional, defaults, strict=True)
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)


def _option(parameter: ast.arg, default: ast.expr | None, names: Names, fail: Fail) -> tuple[Hint, Any] | None:
    """The parameter as an option, with its default; None where it is none, and keeps its default."""
    name = parameter.arg
    if default is None and parameter.annotation is None:
        fail(parameter, f"'{name}' has neither a type hint nor a default; write {name}: int, for example")
    try:
        value = ... if default is None else value_of(default, names)
        hint = _hint_of(value) if parameter.annotation is None else _hint_at(parameter.annotation, names)
    except NotPlainError:
        if default is None:
            fail(
                parameter,
                f"'{name}' is of a type that a job file cannot give; make it bool, int, float, str, a Literal, or a "
                "list or tuple of these, or give it a default",
            )
        return None
    except ValueError as error:
        fail(parameter, f"'{name}' {error}")
    if value is None:
        hint = hint._replace(kind=Union[hint.kind, None])  # noqa: UP007 - a Literal takes no |
    if value is not ...:
        value = _as_the_hint_says(value, hint)
    try:
        validator = SchemaValidator(schema_of(hint.kind, **hint.bounds), {"strict": True, "allow_inf_nan": False})
        if value is not ...:
            validator.validate_json(json.dumps(value))
    except (SchemaError, TypeError, AttributeError, OverflowError):
        fail(parameter, f"'{name}' has bounds that do not fit its type")
    except ValidationError as error:
        said = error.errors(include_input=False)[0]["msg"].removeprefix("Input ")
        fail(parameter, f"the default of '{name}' is not what its hint allows: it {said}")
    return hint, value


def _as_the_hint_says(value: Any, hint: Hint) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return float(value) if hint.kind is float and type(value) is int else value


def _hint_of(value: Any) -> Hint:
    """Of a default without a type hint."""
    if value is None:
        raise NotPlainError
    if isinstance(value, (list, tuple)):
        kinds = {type(item) for item in value}
        if len(kinds) != 1 or not kinds <= set(PLAIN.values()):
            raise NotPlainError
        return Hint(_sequence_of(kinds.pop()), {}, is_list=isinstance(value, list))
    return Hint(type(value), {})


def read_hint(node: ast.expr, names: Names, depth: int = 0) -> Hint:
    """What a type hint allows. Raises NotPlainError where a job file cannot give it, ValueError where it is wrong."""
    if depth > MAX_DEPTH:
        raise NotPlainError
    if isinstance(node, ast.Constant):
        if node.value is None:
            return Hint(types.NoneType, {})
        if not isinstance(node.value, str):
            raise NotPlainError
        if len(node.value) > MAX_HINT:
            raise NotPlainError
        try:
            return read_hint(ast.parse(node.value, mode="eval").body, names, depth + 1)
        except (SyntaxError, RecursionError, MemoryError):
            raise NotPlainError from None
    if isinstance(node, ast.Name) and node.id not in PLAIN and node.id in names:
        return read_hint(names[node.id], names, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right], names, depth)
    if isinstance(node, ast.Subscript):
        return _subscripted(node, names, depth)
    if last_name(node) in SEQUENCES:
        raise NotPlainError  # of what, it does not say
    if isinstance(node, ast.Name) and node.id in PLAIN:
        return Hint(PLAIN[node.id], {})
    raise NotPlainError


def _hint_at(node: ast.expr, names: Names) -> Hint:
    """Of a parameter, which may be anything but None alone."""
    hint = read_hint(node, names)
    if hint.kind is types.NoneType:
        raise NotPlainError
    return hint


def _subscripted(node: ast.Subscript, names: Names, depth: int) -> Hint:
    outer = last_name(node.value)
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if not inner:
        raise NotPlainError
    if outer == "Literal":
        values = tuple(value_of(item, names, depth + 1) for item in inner)
        if not all(type(value) in (bool, int, str) for value in values):
            raise NotPlainError
        return Hint(Literal[values], {})
    if outer == "Optional":
        return _union([inner[0], ast.Constant(None)], names, depth)
    if outer == "Union":
        return _union(inner, names, depth)
    if outer in SEQUENCES:
        return Hint(_sequence_of(_item(inner[0], names, depth)), {}, is_list=True)
    if outer in ("tuple", "Tuple"):
        is_run = len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...
        if is_run:
            return Hint(_sequence_of(_item(inner[0], names, depth)), {})
        return Hint(tuple.__class_getitem__(tuple(_item(item, names, depth) for item in inner)), {})
    if outer == "Annotated":
        return _annotated(inner, names, depth)
    raise NotPlainError


def _annotated(inner: list[ast.expr], names: Names, depth: int) -> Hint:
    hint = read_hint(inner[0], names, depth + 1)
    bounds, description = dict(hint.bounds), hint.description
    for node in inner[1:]:
        if not isinstance(node, ast.Call):
            continue
        outer = last_name(node.func)
        if outer in ("Ge", "Gt", "Le", "Lt") and node.args:  # of annotated_types
            bounds[outer.lower()] = number_of(node.args[0], names, 0)
        for keyword in node.keywords if outer == "Field" else ():
            if keyword.arg == "description":
                description = str(value_of(keyword.value, names))
            elif keyword.arg in BOUNDS:
                bounds[keyword.arg] = number_of(keyword.value, names, 0)
            else:
                known = ", ".join((*BOUNDS, "description"))
                raise ValueError(f"is bounded by Field({keyword.arg}=...), which is not known here (known: {known})")
    if bounds and get_origin(hint.kind) in (Union, types.UnionType) and len(_real_members(hint.kind)) > 1:
        raise ValueError("has bounds that do not fit its type")
    return Hint(hint.kind, bounds, description, hint.is_list)


def _real_members(kind: Any) -> list[Any]:
    return [member for member in get_args(kind) if member is not types.NoneType]


def _union(members: list[ast.expr], names: Names, depth: int) -> Hint:
    """Of one kind and None, with its bounds; of several kinds, each with its own."""
    hints = [read_hint(member, names, depth + 1) for member in members]
    real = [hint for hint in hints if hint.kind is not types.NoneType]
    if len(real) == 1:
        return Hint(Union[real[0].kind, None], real[0].bounds, real[0].description, real[0].is_list)  # noqa: UP007
    kinds = [_bounded(hint) for hint in hints]
    kind = kinds[0]
    for other in kinds[1:]:
        kind = Union[kind, other]  # noqa: UP007 - an Annotated takes no |
    return Hint(kind, {}, is_list=any(hint.is_list for hint in hints))


def _item(node: ast.expr, names: Names, depth: int) -> Any:
    """Of a list or tuple. Raises NotPlainError for None, which no list of a job file holds."""
    hint = read_hint(node, names, depth + 1)
    if hint.kind is types.NoneType:
        raise NotPlainError
    return _bounded(hint)


def _sequence_of(kind: Any) -> Any:
    return tuple.__class_getitem__((kind, ...))


def _bounded(hint: Hint) -> Any:
    return Annotated[hint.kind, Bounds(**hint.bounds)] if hint.bounds else hint.kind
