"""From a job file and `--set` overrides to a Spec, or to every problem at once, each with its line and a remedy.

A job file is never changed. What is read here is what `spec.py` declares; nothing is known twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline import explain, yamltree
from pipeline.errors import Problem, SpecError, UsageError
from pipeline.spec import Conflict, Spec
from pipeline.yamltree import Node

_ROUNDS = 20  # of taking wrong fields out and looking again; a file has rarely more than two


def load(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """The spec in `path` with `key=value` overrides applied. Raises SpecError, or UsageError where there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(yamltree.MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such job file{_beside(path)}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(data, str(path), overrides)


def parse(data: bytes, source: str, overrides: Sequence[str] = ()) -> Spec:
    """As `load`, from the file's bytes; `source` is the name that messages give it."""
    root = yamltree.parse(data, source)
    if not isinstance(root.value, dict):
        raise SpecError([Problem(source, root.line, "", "a job file is a mapping that begins with 'name: ...'")])
    places = _Places(source, root)
    for override in overrides:
        places.override(override)
    return _validate(root, places)


class _Places:
    """Where in the file, or in which override, a field was given."""

    def __init__(self, source: str, root: Node) -> None:
        self.source, self.root = source, root
        self.overridden: dict[int, str] = {}  # id of a node -> the override that it came from

    def override(self, text: str) -> None:
        key, separator, value = text.partition("=")
        path = key.strip().split(".")
        source = f"--set {text}"
        if not separator or not all(path):
            raise UsageError(f"{source}: write it as key=value, for example --set train.epochs=3")
        node, new = self.root, yamltree.parse(value.encode("utf-8", "replace"), source)
        for part in path[:-1]:
            child = node.child(part)
            if child is None or child.value is None:
                child = node.value[part] = Node(0, {}, 0)
                self.overridden[id(child)] = source
            if not isinstance(child.value, dict):
                problem = f"'{part}' is {explain.short(child.plain())}, which has no fields of its own"
                raise SpecError([Problem(source, 0, ".".join(path), problem)])
            node = child
        self._mark(new, source)
        node.value[path[-1]] = new

    def _mark(self, node: Node, source: str) -> None:
        self.overridden[id(node)] = source
        children = node.value.values() if isinstance(node.value, dict) else node.value
        for child in children if isinstance(node.value, (dict, list)) else ():
            self._mark(child, source)

    def problem(self, path: tuple[str | int, ...], message: str, *, of_key: bool = False) -> Problem:
        source, line = self.source, self.root.line
        for key, node in yamltree.walk(self.root, path):
            if id(node) in self.overridden:
                source, line = self.overridden[id(node)], 0
            else:
                is_last = key is path[-1]
                line = node.key_line if of_key and is_last and node.key_line else node.line
        return Problem(source, line, ".".join(map(str, path)), message)


def _validate(root: Node, places: _Places) -> Spec:
    """Fields that are wrong are taken out and the rest is checked again, so that one error does not hide another."""
    problems: list[Problem] = []
    wrong: set[str] = set()
    plain = root.plain()
    for _ in range(_ROUNDS):
        try:
            spec = Spec.model_validate_json(json.dumps(plain))
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            if details[0]["type"] == "conflicts":
                problems += _conflicts(details[0]["ctx"]["conflicts"], wrong, places)
                break
            paths = [_path(detail, plain) for detail in details]
            for detail, path in zip(details, paths, strict=True):
                if _dotted(path) not in wrong:
                    message = explain.explain(detail, path, plain)
                    problems.append(places.problem(path, message, of_key=detail["type"] == "extra_forbidden"))
                wrong.add(_dotted(path))
            if sum(_remove(plain, path) for path in paths) == 0:
                break
        else:
            if problems:
                break
            return spec
    raise SpecError(sorted(problems, key=lambda problem: (problem.source != places.source, problem.line)))


def _conflicts(conflicts: Sequence[Conflict], wrong: set[str], places: _Places) -> list[Problem]:
    return [
        places.problem(
            tuple(int(part) if part.isdigit() else part for part in conflict.at.split(".")), conflict.message
        )
        for conflict in conflicts
        if not any(bad == field or bad.startswith(f"{field}.") for bad in wrong for field in conflict.depends)
    ]


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def _path(detail: ErrorDetails, plain: Any) -> tuple[str | int, ...]:
    """Pydantic's location without the tags of unions, as the keys that a person wrote."""
    path: list[str | int] = []
    location = detail["loc"]
    for index, key in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(plain, dict):
            is_tag = key == plain.get("name") and (key not in plain or not is_last)
            if is_tag or (key not in plain and not is_last):
                continue
            path.append(key)
            plain = plain.get(str(key))
        elif isinstance(plain, list) and isinstance(key, int) and key < len(plain):
            path.append(key)
            plain = plain[key]
    if detail["type"].startswith("union_tag"):
        path.append("name")
    return tuple(path)


def _remove(plain: Any, path: tuple[str | int, ...]) -> bool:
    """Take a wrong field out, so that its default stands in; a name cannot be, for what else is allowed hangs on it."""
    if path == ("name",):
        plain["name"] = "unnamed"
        return True
    parent = explain.given(plain, path[:-1])
    if not path or path[-1] == "name" or not isinstance(parent, dict) or path[-1] not in parent:
        return False
    del parent[path[-1]]
    return True


def _beside(path: Path) -> str:
    """The job files that lie where the missing one was looked for."""
    there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return explain.nearest(path.name, there) if there else ""
