"""The jobs of a sweep, before it is submitted: each value of its space is tried as `--set` would try it.

The file itself is read as the job with the first value of every field, so that what is searched need not stand
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline import wording
from pipeline.errors import Problem, SpecError
from pipeline.jobfile import yamltree
from pipeline.jobfile.origins import Origins
from pipeline.jobfile.search import NOT_SEARCHED
from pipeline.jobfile.yamltree import Node

SPACE = ("search", "space")
GRID = "grid"


def space_of(origins: Origins) -> dict[str, Node]:
    """Returns the nodes of the fields that are searched, as they were written; {} where the space is no mapping."""
    found = list(yamltree.walk(origins.root, SPACE))
    space = found[-1][1].value if len(found) == len(SPACE) else None
    return space if isinstance(space, dict) else {}


def put_first_values(origins: Origins) -> None:
    """Puts the first value of each field into the file. Raises SpecError for what can be no field."""
    for key, node in space_of(origins).items():
        if (values := list(_values(node))) and _is_key(key):
            origins.put(key.split("."), values[0], *_place(origins, key, values[0]))


def other_values(origins: Origins) -> Iterator[tuple[str, Node]]:
    """Yields the further values, each with its field."""
    for key, node in space_of(origins).items():
        yield from ((key, value) for value in list(_values(node))[1:])


def trying(origins: Origins, key: str, value: Node) -> Callable[[], None]:
    """Gives a field another value, and returns a function that undoes it. Raises SpecError."""
    return origins.put(key.split("."), value, *_place(origins, key, value))


def may_be_list(override: str) -> bool:
    """Tells whether an override may mean several values: `0.1,0.05`, but not `[64, M]` or `"a, b"`."""
    value = override.partition("=")[2].strip()
    return "," in value and value[0] not in "[{\"'" and all(part.strip() for part in value.split(","))


def lists_in(override: str, source: str) -> list[Node]:
    """Returns the values of an override that means several lists, `[crop],[crop, flip]`; of any other none."""
    value = override.partition("=")[2].strip()
    if not (value.startswith("[") and value.endswith("]") and "]," in value.replace(" ", "")):
        return []
    with suppress(SpecError):
        yamltree.parse(value.encode("utf-8", "surrogatepass"), source)
        return []  # a list of lists
    with suppress(SpecError):
        nodes: list[Node] = yamltree.parse(f"[{value}]".encode("utf-8", "surrogatepass"), source).value
        return nodes
    return []


def wants_list(problem: Problem) -> bool:
    """Whether an override was to be one list, as in `data.augment=crop,flip`, which lacks the brackets."""
    return " should be a list" in problem.message


def settle(origins: Origins, override: str) -> None:
    """Takes a field out of the space that an override gives a value. Raises SpecError where nothing is left in it."""
    space, key = space_of(origins), override.partition("=")[0].strip()
    if key in space and len(space) == 1:
        source = f"--set {wording.cut(override)}"
        what = "leaves nothing to search; add --set search=null for one job"
        raise SpecError([Problem(source, 0, ".".join(SPACE), what)])
    space.pop(key, None)


def add_grid(origins: Origins, key: str, values: Sequence[Node], source: str) -> None:
    """Puts a field into the space, as `--set train.optimizer.lr=0.1,0.05` asks for; where there is none, of a grid."""

    def made(value: Any) -> Node:
        return origins.mark(Node(0, value), source)

    root = origins.root.value
    if not isinstance(root.get("search"), Node) or not isinstance(root["search"].value, dict):
        root["search"] = made({})
    search = root["search"].value
    if not isinstance(search.get("space"), Node) or not isinstance(search["space"].value, dict):
        search["space"] = made({})
        search.setdefault("sampler", made(GRID))
    search["space"].value[key] = made(list(values))


def with_values(plain: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trial's job file as plain data: that of the sweep, without its search and with these values.

    What the sweep waits for (`after`) is left out too, for its trials start after it. Raises ValueError where a field
    can be none.
    """
    tree = {key: value for key, value in plain.items() if key not in ("search", "after")}
    for key, value in values.items():
        *parts, last = key.split(".")
        inner = tree
        for part in parts:
            inner[part] = dict(inner.get(part) or {})
            inner = inner[part]
        inner[last] = value
    return tree


def _is_key(key: str) -> bool:
    return all(key.split(".")) and key.split(".")[0] not in NOT_SEARCHED


def _values(node: Node) -> Iterator[Node]:
    """Yields what is tried of a field: every choice, or both ends of a range. The schema refuses what is neither."""
    if isinstance(node.value, list):
        yield from node.value
    elif isinstance(node.value, dict):
        yield from (node.value[key] for key in ("from", "to") if key in node.value)


def _place(origins: Origins, key: str, value: Node) -> tuple[str, int]:
    """Returns the source and line of a value."""
    if id(value) in origins.overridden:
        return origins.overridden[id(value)], 0
    with suppress(KeyError):
        if id(node := space_of(origins)[key]) in origins.overridden:
            return origins.overridden[id(node)], 0
    return origins.source, value.line


def blamed(error: SpecError, origins: Origins, key: str, value: Node) -> Problem:
    """Returns the first problem with a value that does not fit, at the line of the value."""
    problem = error.problems[0]
    if problem.field == key or problem.field.startswith(f"{key}."):
        return problem
    source, line = _place(origins, key, value)
    return Problem(
        source, line, key, f"{wording.short(value.plain())} does not fit: {problem.field}: {problem.message}"
    )
