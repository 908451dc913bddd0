"""A job file's fields for the HParams dashboard, in the run's own folder.

Only the session's fields are written, no description of an experiment: TensorBoard would take that of the first run
that it meets for all runs, and leave out what other jobs have. Without one it gathers fields and metrics from all runs.
A field has one type in every run, number or text: a filter in the dashboard would hide the runs of the other type.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator

from torch.utils.tensorboard.summary import hparams

from pipeline.board.writer import Board
from pipeline.jobfile.sections import Section
from pipeline.jobfile.spec import Spec

SECTIONS = ("model", "data", "train")  # the others do not change what is learned


def add_start(board: Board, spec: Spec) -> None:
    """Writes the fields of the job file: the session has begun."""
    _, start, _ = hparams(dict(flatten(spec)), {})
    board.add(0, start)


def add_end(board: Board, *, step: int) -> None:
    """Writes that the session has succeeded. This is to be done once: TensorBoard keeps the first."""
    _, _, end = hparams({}, {})
    board.add(step, end)


def flatten(spec: Spec) -> Iterator[tuple[str, float | str]]:
    """Yields fields by dotted name, as `train.optimizer.lr`, without those that are None."""
    for name in SECTIONS:
        yield from _flatten(name, getattr(spec, name))


def _flatten(path: str, section: Section) -> Iterator[tuple[str, float | str]]:
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{path}.{name}"
        if isinstance(value, Section):
            yield from _flatten(key, value)
        elif value is not None:
            yield key, float(value) if _is_number(field.annotation) else _as_text(value)


def _is_number(annotation: object) -> bool:
    """Tells whether all that a field may hold are numbers, or None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return all(_is_number(member) for member in typing.get_args(annotation) if member is not types.NoneType)
    if typing.get_origin(annotation) is typing.Annotated:
        return _is_number(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return all(type(value) in (int, float) for value in typing.get_args(annotation))
    return annotation in (int, float)


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_as_text(member) for member in value) or "none"
    if isinstance(value, Section):
        fields = type(value).model_fields
        options = {key: o for key, o in value.model_dump().items() if key != "name" and o != fields[key].default}
        return str(getattr(value, "name", "")) + (
            f"({', '.join(f'{k}={v}' for k, v in options.items())})" if options else ""
        )
    return str(value).lower() if isinstance(value, bool) else str(value)
