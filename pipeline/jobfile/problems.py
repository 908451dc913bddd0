"""What is wrong with a job file, all at once: Pydantic's errors, and the conflicts of what is right beside them.

It is loaded for a file that is wrong; what is right is read without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from pydantic_core import ErrorDetails, ValidationError

from pipeline.errors import Problem
from pipeline.jobfile import messages
from pipeline.jobfile.entries import Facts
from pipeline.jobfile.fields import UNION_MEMBER
from pipeline.jobfile.messages import given
from pipeline.jobfile.origins import Origins
from pipeline.jobfile.sections import NamedSection, Section
from pipeline.jobfile.spec import (
    DATA,
    NAMED_SECTIONS,
    Data,
    Keys,
    Spec,
    conflict_error,
    find_conflicts,
    size_of_images,
    split,
)
from pipeline.jobfile.sweep import space_of
from pipeline.jobfile.train import Train


def explain_all(
    error: ValidationError, plain: Any, origins: Origins, *, known: set[int], most: int, root: type[Section] = Spec
) -> list[Problem]:
    """The problems in the order of the file, and of very many only the first, for to explain one takes a while.

    plain: the file as plain data, which the error is about. known: lines that the person is told of already.
    root: the section that the file is.
    """
    located = [(*origins.of_error(path, of_it[0]), path, of_it) for path, of_it in _errors(error, plain).items()]
    searched = space_of(origins)
    located.sort(key=lambda item: (item[0] != origins.source, item[1]))
    return [
        Problem(
            source,
            line,
            field := ".".join(map(str, path)),
            messages.explain(details, path, plain, root, is_written=source == origins.source and field not in searched),
        )
        for source, line, path, details in [item for item in located if item[1] not in known][:most]
    ]


def _errors(error: ValidationError, plain: Any) -> dict[Keys, list[ErrorDetails]]:
    """All errors by field: Pydantic's, and the conflicts of what is right beside what is wrong."""
    errors: dict[Keys, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        errors.setdefault(_path(detail["loc"], plain), []).append(detail)
    wrong = _Wrong(errors)
    conflicts = find_conflicts(_right_sections(wrong, plain), _right_facts(wrong, plain))
    beside = ValidationError.from_exception_data("Spec", [conflict_error(conflict) for conflict in conflicts])
    for detail in beside.errors(include_url=False, include_input=False):
        errors.setdefault(detail["loc"], [detail])
    return errors


class _Wrong:
    """The fields that something is wrong in. There may be thousands, and as many sections to look at."""

    def __init__(self, paths: Collection[Keys]) -> None:
        self.paths = frozenset(paths)
        self.lie_in = frozenset(path[:depth] for path in paths for depth in range(len(path)))

    def is_right(self, path: Keys) -> bool:
        """Whether neither the field, nor a part of it, nor what it lies in is wrong."""
        return path not in self.lie_in and not any(path[:depth] in self.paths for depth in range(len(path) + 1))


def _right_sections(wrong: _Wrong, plain: Any) -> Iterator[tuple[str, NamedSection]]:
    """The named sections that nothing is wrong in, each after where it is."""
    for path, choice in NAMED_SECTIONS.items():
        value, at = given(plain, path), ".".join(path)
        if isinstance(value, list):
            items = [(f"{at}.{index}", item) for index, item in enumerate(value)]
        else:
            items = [(at, value)] if value is not None else []
        yield from ((where, choice.section(item)) for where, item in items if wrong.is_right(split(where)))


def _right_facts(wrong: _Wrong, plain: Any) -> Facts:
    """What is known of the file for its sections to fit with: what is right, and the defaults of what is not there."""

    def value(default: Any, *path: str) -> Any:
        found = given(plain, path) if wrong.is_right(path) else None
        return default if found is None and wrong.is_right(path) else found

    dataset, resized = value(None, "data", "name"), value(None, "data", "image_size")
    is_known = resized is not None or (dataset is not None and wrong.is_right(("data", "image_size")))
    return Facts(
        *(size_of_images(DATA.entry(dataset), str(dataset), resized) if is_known else (None, "")),
        batch_size=value(Data.model_fields["batch_size"].default, "data", "batch_size"),
        epochs=value(Train.model_fields["epochs"].default, "train", "epochs"),
        label_smoothing=value(Train.model_fields["label_smoothing"].default, "train", "label_smoothing"),
    )


def _path(location: Keys, plain: Any) -> Keys:
    """Pydantic's location as the keys that a person wrote: without what tells apart the kinds that a value may be."""
    path: Keys = ()
    for index, key in enumerate(location):
        is_there = key in plain if isinstance(plain, dict) else isinstance(plain, list) and key in range(len(plain))
        if is_there:
            plain = plain[key]
        elif str(key).startswith(UNION_MEMBER) or not isinstance(plain, dict) or index < len(location) - 1:
            break  # in a value that has no such parts
        path = (*path, key)
    return path
