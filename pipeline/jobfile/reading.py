"""From a job file and `--set` overrides to a Spec, or to every problem at once, each with its line and a remedy.

A job file is never changed. What is read here is what `spec.py` declares; nothing is known twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline import wording
from pipeline.errors import Problem, SpecError, UsageError
from pipeline.jobfile import messages, yamltree
from pipeline.jobfile.entries import Facts
from pipeline.jobfile.messages import given
from pipeline.jobfile.sections import NamedSection
from pipeline.jobfile.spec import (
    NAMED_SECTIONS,
    Data,
    Keys,
    Spec,
    Train,
    conflict_error,
    find_conflicts,
    size_of_images,
    split,
)
from pipeline.jobfile.yamltree import Node

_MAX_PROBLEMS = 100  # that are explained


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
    origins = _Origins(source, root)
    for override in overrides:
        origins.override(override)
    return _validate(root, origins, problems)


class _Origins:
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

    def of_error(self, path: Keys, detail: ErrorDetails) -> tuple[str, int]:
        """The source and line to tell with an error at `path`."""
        source, line = self.find(path, of_key=detail["type"] == "extra_forbidden")
        conflict = detail.get("ctx", {}).get("conflict")
        for field in map(split, conflict.depends if conflict and line else ()):
            other, other_line = self.find(field)
            if not other_line and len(list(yamltree.walk(self.root, field))) == len(field):
                source, line = other, 0  # the override that changed what the field depends on
        return source, line


def _validate(root: Node, origins: _Origins, refused: list[Problem]) -> Spec:
    """The spec. `refused` are the file's problems as YAML; what else is wrong on their lines is no news."""
    plain = root.plain()
    try:
        spec = Spec.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        problems = refused + _problems(_errors(error, plain), plain, origins, {problem.line for problem in refused})
    else:
        if not refused:
            return spec
        problems = refused
    problems.sort(key=lambda problem: (problem.source != origins.source, problem.line))
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [Problem(origins.source, 0, "", "and more; mend these first")]
    raise SpecError(problems)


def _problems(
    errors: dict[Keys, list[ErrorDetails]], plain: Any, origins: _Origins, refused: set[int]
) -> list[Problem]:
    """The errors in words, in the order of the file; of very many only the first, for each takes a while."""
    located = [(*origins.of_error(path, details[0]), path, details) for path, details in errors.items()]
    located.sort(key=lambda item: (item[0] != origins.source, item[1]))
    return [
        Problem(source, line, ".".join(map(str, path)), messages.explain(details, path, plain))
        for source, line, path, details in located[: _MAX_PROBLEMS + 1]
        if line not in refused or source != origins.source
    ]


def _errors(error: ValidationError, plain: Any) -> dict[Keys, list[ErrorDetails]]:
    """All errors by field: Pydantic's, and the conflicts of what is right beside what is wrong."""
    errors: dict[Keys, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        errors.setdefault(_path(detail["loc"], plain), []).append(detail)
    conflicts = find_conflicts(_right_sections(errors, plain), _right_facts(errors, plain))
    beside = ValidationError.from_exception_data("Spec", [conflict_error(conflict) for conflict in conflicts])
    for detail in beside.errors(include_url=False, include_input=False):
        errors.setdefault(detail["loc"], [detail])
    return errors


def _right_sections(wrong: Collection[Keys], plain: Any) -> Iterator[tuple[str, NamedSection]]:
    """The named sections that nothing is wrong in, each after where it is."""
    for path, choice in NAMED_SECTIONS.items():
        value, at = given(plain, path), ".".join(path)
        if isinstance(value, list):
            items = [(f"{at}.{index}", item) for index, item in enumerate(value)]
        else:
            items = [(at, value)] if value is not None else []
        yield from ((where, choice.section(item)) for where, item in items if _is_right(split(where), wrong))


def _right_facts(wrong: Collection[Keys], plain: Any) -> Facts:
    """What is known of the file for its sections to fit with: what is right, and the defaults of what is not there."""

    def value(default: Any, *path: str) -> Any:
        found = given(plain, path) if _is_right(path, wrong) else None
        return default if found is None and _is_right(path, wrong) else found

    dataset, resized = value(None, "data", "name"), value(None, "data", "image_size")
    is_known = resized is not None or (dataset is not None and _is_right(("data", "image_size"), wrong))
    return Facts(
        *(size_of_images(dataset, resized) if is_known else (None, "")),
        batch_size=value(Data.model_fields["batch_size"].default, "data", "batch_size"),
        epochs=value(Train.model_fields["epochs"].default, "train", "epochs"),
    )


def _is_right(path: Keys, wrong: Collection[Keys]) -> bool:
    """Whether neither the field, nor a part of it, nor what it lies in is wrong."""
    return not any(path[: len(other)] == other[: len(path)] for other in wrong)


def _path(location: Keys, plain: Any) -> Keys:
    """Pydantic's location as the keys that a person wrote: without what tells apart the kinds that a value may be."""
    path: Keys = ()
    for index, key in enumerate(location):
        is_there = key in plain if isinstance(plain, dict) else isinstance(plain, list) and key in range(len(plain))
        if is_there:
            plain = plain[key]
        elif not isinstance(plain, dict) or index < len(location) - 1:
            break  # in a value that has no such parts
        path = (*path, key)
    return path


def _beside(path: Path) -> str:
    """The job files that lie where the missing one was looked for."""
    there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return wording.nearest(path.name, there) if there else ""
