"""Scalars read back from a run's event files, each step once.

Each attempt has a file of its own, a row of records: length, its checksum, an Event, its checksum. TensorBoard's own
reader computes all checksums in Python, 80 ns a byte; here only what holds a scalar is checked, so that a run's
images and histograms cost little more than reading past them.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.scalar.metadata import PLUGIN_NAME
from tensorboard.util.tensor_util import make_ndarray

from pipeline.board.event_file import attempt_number
from pipeline.errors import PipelineError
from pipeline.home import durable
from pipeline.home.paths import RunPaths

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a curve."""

    step: int
    wall_time: float  # seconds since 1970
    value: float


def _say_nothing(line: str) -> None:
    del line


def read_scalars(folder: Path, *, damaged: Callable[[str], object] = _say_nothing) -> dict[str, list[Point]]:
    """Returns every scalar that a run's attempts have written, by tag, by ascending step.

    An attempt that starts at step N takes back what earlier ones wrote at N and later. `damaged` is told, in a line,
    of what had to be left out; a last record that is cut short is normal, its writer was killed or is still at it.
    Raises PipelineError where a file cannot be read at all.
    """
    reader = _Reader(damaged)
    for path in _by_attempt(RunPaths(folder).events()):
        reader.read(path)
    return {tag: [points[step] for step in sorted(points)] for tag, points in sorted(reader.curves.items()) if points}


def shortest(value: float) -> float:
    """Returns the number of fewest digits that is the same float32: 0.1 for 0.10000000149011612.

    Event files hold float32. The result is as true, turns into the same float32 again, and can be read.
    """
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if float(single) == value else value


@dataclass(frozen=True, slots=True)
class _Record:
    """A record of an event file, whose data may be damaged."""

    path: Path
    at: int  # byte
    data: bytes
    checksum: int

    def is_whole(self) -> bool:
        return bool(masked_crc32c(self.data) == self.checksum)


class _Reader:
    """The curves that the files read so far give together."""

    def __init__(self, damaged: Callable[[str], object]) -> None:
        self.damaged = damaged
        self.curves: dict[str, dict[int, Point]] = {}
        self.tensor_tags: set[str] = set()  # only the first value of a tag says what it is

    def read(self, path: Path) -> None:
        has_begun = attempt_number(path) == 0  # files of other programs need not say from which step on they speak
        has_damage = False
        for record in _records(path, self.damaged):
            parsed = self.parse(record)
            if parsed is None:
                has_damage = True
                continue
            event, values = parsed
            begins = event.session_log.status == SessionLog.START
            if begins or (values and has_damage and not has_begun):  # its beginning is lost: it spoke from here on
                self.take_back(event.step)
            has_begun = has_begun or begins or bool(values)
            for tag, value in values:
                self.curves.setdefault(tag, {})[event.step] = Point(event.step, event.wall_time, value)

    def parse(self, record: _Record) -> tuple[Any, list[tuple[str, float]]] | None:
        """Returns an event and its scalars; None where it is damaged, which is told. Checks only what is used."""
        event = Event()
        try:
            event.ParseFromString(record.data)
            values = list(self.scalars(event))
            is_used = bool(values) or event.session_log.status == SessionLog.START
        except (DecodeError, ValueError, TypeError):
            is_whole = False
        else:
            is_whole = not is_used or record.is_whole()
        if not is_whole:
            self.damaged(f"{record.path}: damaged at byte {record.at:,}: a step's values are left out")
        return (event, values) if is_whole else None

    def scalars(self, event: Any) -> Iterator[tuple[str, float]]:
        """Yields tags and values, from the fields that TensorFlow 1 and PyTorch fill, and from TensorFlow 2's."""
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            if kind == "simple_value":
                yield value.tag, value.simple_value
            elif kind == "tensor":
                if value.metadata.plugin_data.plugin_name == PLUGIN_NAME:
                    self.tensor_tags.add(value.tag)
                if value.tag in self.tensor_tags:
                    yield value.tag, float(make_ndarray(value.tensor).item())

    def take_back(self, first_step: int) -> None:
        """Removes what earlier attempts wrote at a step and later."""
        for tag, points in self.curves.items():
            if any(step >= first_step for step in points):
                self.curves[tag] = {step: point for step, point in points.items() if step < first_step}


def _records(path: Path, damaged: Callable[[str], object]) -> Iterator[_Record]:
    """Yields a file's records up to where it is cut short, or where the length of one is damaged, which is told."""
    try:
        with os.fdopen(durable.open_plain(path), "rb", buffering=BUFFER_BYTES) as file:
            at = 0
            while len(header := file.read(HEADER.size)) == HEADER.size:
                length, checksum = HEADER.unpack(header)
                if masked_crc32c(header[:8]) != checksum:
                    damaged(f"{path}: damaged at byte {at:,}: what follows there is left out")
                    return
                data, footer = file.read(length), file.read(FOOTER.size)
                if len(footer) < FOOTER.size:
                    return
                yield _Record(path, at, data, FOOTER.unpack(footer)[0])
                at += HEADER.size + length + FOOTER.size
    except FileNotFoundError:
        return  # the run is being removed
    except durable.NotAPlainFileError as error:  # which no attempt has written
        damaged(f"{path}: {error.strerror}: it is left out")
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read: {error.strerror}") from None


def _by_attempt(paths: list[Path]) -> list[Path]:
    """Sorts files by the number at the end of their names, and those without one by the time of their first event."""
    return sorted(paths, key=lambda path: (attempt_number(path), _first_time(path), path.name))


def _first_time(path: Path) -> float:
    """Returns the time of the first event that is whole, in seconds since 1970; 0 where there is none."""
    for record in _records(path, _say_nothing):
        if record.is_whole():
            with contextlib.suppress(DecodeError):
                return float(Event.FromString(record.data).wall_time)
    return 0.0
