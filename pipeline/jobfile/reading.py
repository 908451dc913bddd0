"""From a job file and `--set` overrides to a Spec, or to every problem at once, each with its line and a remedy.

A job file is never changed. What is read here is what `spec.py` declares; nothing is known twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline import wording
from pipeline.errors import Problem, SpecError, UsageError
from pipeline.jobfile import messages, yamltree
from pipeline.jobfile.messages import Keys
from pipeline.jobfile.spec import Conflict, Spec
from pipeline.jobfile.yamltree import Node

_MAX_PROBLEMS = 100  # that are explained
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
    root, problems = yamltree.read(data, source)
    if not isinstance(root.value, dict):
        raise SpecError(
            problems or [Problem(source, root.line, "", "a job file is a mapping that begins with 'name: ...'")]
        )
    places = _Places(source, root)
    for override in overrides:
        places.override(override)
    return _validate(root, places, problems)


class _Places:
    """Where in the file, or in which override, a field was given."""

    def __init__(self, source: str, root: Node) -> None:
        self.source, self.root = source, root
        self.overridden: dict[int, str] = {}  # id of a node -> the override that it came from

    def override(self, text: str) -> None:
        key, separator, value = text.partition("=")
        path = key.strip().split(".")
        source = f"--set {wording.cut(text)}"
        if not separator or not all(path) or len(path) > yamltree.MAX_DEPTH:
            raise UsageError(f"{source}: write it as key=value, for example --set train.epochs=3")
        try:
            new = yamltree.parse(value.encode("utf-8", "surrogatepass"), source)
        except SpecError as error:
            raise SpecError([dataclasses.replace(problem, line=0) for problem in error.problems]) from None
        node = self.root
        for part in path[:-1]:
            child = node.child(part)
            if child is None or child.value is None:
                child = node.value[part] = Node(0, {}, 0)
                self.overridden[id(child)] = source
            if not isinstance(child.value, dict):
                whole = "; give the whole list" if isinstance(child.value, list) else ""
                problem = f"'{part}' is {wording.short(child.plain())}, which has no fields of its own{whole}"
                raise SpecError([Problem(source, 0, ".".join(path), problem)])
            node = child
        self._mark(new, source)
        node.value[path[-1]] = new

    def _mark(self, node: Node, source: str) -> None:
        self.overridden[id(node)] = source
        children = node.value.values() if isinstance(node.value, dict) else node.value
        for child in children if isinstance(node.value, (dict, list)) else ():
            self._mark(child, source)

    def find(self, path: Keys, *, of_key: bool = False) -> tuple[str, int]:
        """The source, and the line in it, of a field or of the last there is of what it lies in."""
        source, line = self.source, self.root.line
        for depth, (_, node) in enumerate(yamltree.walk(self.root, path), start=1):
            if id(node) in self.overridden:
                source, line = self.overridden[id(node)], 0
            else:
                line = node.key_line if of_key and depth == len(path) and node.key_line else node.line
        return source, line

    def problem(self, path: Keys, message: str, *, of_key: bool = False) -> Problem:
        return Problem(*self.find(path, of_key=of_key), _dotted(path), message)

    def conflict(self, conflict: Conflict) -> Problem:
        """Where its field was given; or, where that is the file, in the override that changed what it depends on."""
        source, line = self.find(_split(conflict.at))
        for field in map(_split, conflict.depends if line else ()):
            other, other_line = self.find(field)
            if not other_line and len(list(yamltree.walk(self.root, field))) == len(field):
                source, line = other, 0
        return Problem(source, line, conflict.at, conflict.message)


def _validate(root: Node, places: _Places, problems: list[Problem]) -> Spec:
    """Fields that are wrong get a stand-in and the rest is checked again, so that one error does not hide another.

    `problems` are the file's as YAML; what else is wrong on their lines is no news.
    """
    refused = {problem.line for problem in problems}
    wrong: set[Keys] = set()
    plain = root.plain()
    for _ in range(_ROUNDS):
        try:
            spec = Spec.model_validate_json(json.dumps(plain))
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            if details[0]["type"] == "conflicts":
                conflicts = [c for c in details[0]["ctx"]["conflicts"] if not _hangs_on(c, wrong)]
                problems += [places.conflict(conflict) for conflict in conflicts]
                break
            found: dict[Keys, list[ErrorDetails]] = {}
            for detail in details:
                found.setdefault(_path(detail, plain), []).append(detail)
            for path, group in found.items():
                if len(problems) <= _MAX_PROBLEMS and not _is_known(path, wrong, group[0]["type"]):
                    problem = places.problem(
                        path, messages.explain(group, path, plain), of_key=group[0]["type"] == "extra_forbidden"
                    )
                    problems += [] if problem.line in refused else [problem]
            names_first = sorted(found, key=lambda path: not _is_wrong_name(found[path][0]))
            mended = [_mend(plain, path, found[path][0]) for path in names_first]
            wrong |= found.keys()
            if not any(mended):
                break
        else:
            if problems:
                break
            return spec
    problems.sort(key=lambda problem: (problem.source != places.source, problem.line))
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [Problem(places.source, 0, "", "and more; mend these first")]
    raise SpecError(problems)


def _is_known(path: Keys, wrong: set[Keys], kind: str) -> bool:
    """Whether the person was told of it, or would not be wrong but for a name that had to be guessed."""
    hangs_on_name = kind in ("extra_forbidden", "missing") and len(path) > 1
    return path in wrong or (hangs_on_name and (*path[:-1], "name") in wrong)


def _hangs_on(conflict: Conflict, wrong: set[Keys]) -> bool:
    """Whether a field that it depends on is wrong, or a part of one is, or the section that it lies in."""
    fields = [_split(field) for field in conflict.depends]
    return any(bad == field[: len(bad)] or field == bad[: len(field)] for bad in wrong for field in fields)


def _split(dotted: str) -> Keys:
    return tuple(int(part) if part.isdigit() else part for part in dotted.split("."))


def _dotted(path: Keys) -> str:
    return ".".join(map(str, path))


def _path(detail: ErrorDetails, plain: Any) -> Keys:
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
    if _is_wrong_name(detail) and isinstance(plain, dict):
        path.append("name")  # else the name stands by itself, as in [crop, flip]
    return tuple(path)


_STAND_INS: dict[Keys, Any] = {("name",): "unnamed", ("model",): {"name": "cnn_bn"}, ("data",): {"name": "cifar10"}}


def _is_wrong_name(detail: ErrorDetails) -> bool:
    """Whether the name that chooses a section is wrong or missing."""
    return detail["type"].startswith("union_tag")


def _mend(plain: Any, path: Keys, detail: ErrorDetails) -> bool:
    """Put something right in the place of a wrong field, or take it out so that its default stands in."""
    if _is_wrong_name(detail):
        messages.given(plain, path[:-1])[path[-1]] = messages.likely_name(path, plain)
        return True
    while path and isinstance(parent := messages.given(plain, path[:-1]), list):
        path = path[:-1]  # an item that is wrong takes its list out
    if path in _STAND_INS:
        plain[path[0]] = _STAND_INS[path]
    elif not path or not isinstance(parent, dict):
        return False
    elif path[-1] in parent:
        del parent[path[-1]]
    else:
        parent[path[-1]] = "unknown"  # missing: the fields that must be given, and are no sections, are text
    return True


def _beside(path: Path) -> str:
    """The job files that lie where the missing one was looked for."""
    there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return wording.nearest(path.name, there) if there else ""
