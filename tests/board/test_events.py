"""Scalars read back from event files: what the writer wrote, and what killed attempts and bad disks leave."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rights import without_root_s
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.metadata import create_summary_metadata
from tensorboard.util.tensor_util import make_tensor_proto

from pipeline.board.events import read_scalars, shortest
from pipeline.board.writer import Board

OPENING = 3  # records before the first scalar: the version, twice, and the start of the session


def write(folder: Path, tag: str, steps: range, *, first_step: int = 0, plus: float = 0.0) -> Path:
    """An attempt that writes the step itself as the value. Gives its file."""
    before = set(folder.glob("events.*"))
    with Board(folder, first_step=first_step) as board:
        for step in steps:
            board.scalars(step, {tag: step + plus})
    return next(iter(set(folder.glob("events.*")) - before))


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    """All of a tag; nothing may be damaged."""
    damage: list[str] = []
    read = [(point.step, point.value) for point in read_scalars(folder, damaged=damage.append).get(tag, [])]
    assert damage == []
    return read


def test_all_points_of_a_long_curve_come_back(tmp_path: Path) -> None:
    write(tmp_path, "a", range(2500))
    assert points(tmp_path, "a") == [(step, step) for step in range(2500)]


def test_a_resumed_run_has_each_step_once_and_nothing_after_the_checkpoint_it_went_on_from(tmp_path: Path) -> None:
    write(tmp_path, "a", range(0, 50, 10))
    write(tmp_path, "a", range(30, 60, 10), first_step=21, plus=0.5)
    assert points(tmp_path, "a") == [(0, 0), (10, 10), (20, 20), (30, 30.5), (40, 40.5), (50, 50.5)]


def test_a_step_that_the_second_attempt_did_not_write_again_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "a", range(10))
    write(tmp_path, "b", range(5, 7), first_step=5)
    assert [step for step, _ in points(tmp_path, "a")] == [0, 1, 2, 3, 4]
    assert [step for step, _ in points(tmp_path, "b")] == [5, 6]


def test_a_tag_of_which_nothing_is_left_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "orphan", range(5, 9))
    write(tmp_path, "a", range(2), first_step=0)
    assert list(read_scalars(tmp_path)) == ["a"]


def test_attempts_count_in_the_order_in_which_they_began_whatever_their_files_are_called(tmp_path: Path) -> None:
    first = write(tmp_path, "a", range(10))
    second = write(tmp_path, "a", range(5, 10), first_step=5, plus=0.5)
    first.rename(tmp_path / "events.out.tfevents.9.host.1.0")
    second.rename(tmp_path / "events.out.tfevents.1.host.1.0")
    assert points(tmp_path, "a") == [
        *((step, step) for step in range(5)),
        *((step, step + 0.5) for step in range(5, 10)),
    ]


def test_a_clock_that_was_set_back_between_two_attempts_does_not_change_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a", range(0, 40, 10))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    write(tmp_path, "a", range(20, 50, 10), first_step=11, plus=0.5)
    assert points(tmp_path, "a") == [(0, 0), (10, 10), (20, 20.5), (30, 30.5), (40, 40.5)]


@pytest.mark.parametrize("num_cut", [1, 4, 5, 20, 30])
def test_a_last_record_that_is_cut_short_is_left_out_and_no_damage(tmp_path: Path, num_cut: int) -> None:
    path = write(tmp_path, "a", range(5))
    os.truncate(path, path.stat().st_size - num_cut)
    assert points(tmp_path, "a") == [(step, step) for step in range(4)]


def test_an_attempt_that_was_killed_before_its_first_record_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a", range(5))
    (tmp_path / "events.out.tfevents.9999999999.host.1.0").touch()
    assert len(points(tmp_path, "a")) == 5


def test_a_file_that_is_still_written_is_read_so_far(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        board.scalars(1, {"a": 1.0})
        board.flush()
        assert points(tmp_path, "a") == [(1, 1.0)]


def test_what_is_not_a_number_stays_so(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        for step, value in enumerate([math.nan, math.inf, -math.inf]):
            board.scalars(step, {"a": value})
    first, second, third = (value for _, value in points(tmp_path, "a"))
    assert math.isnan(first)
    assert (second, third) == (math.inf, -math.inf)


def test_tags_are_sorted_and_have_the_time_of_their_writing(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        board.scalars(3, {"b": 1.0, "a": 2.0})
    read = read_scalars(tmp_path)
    assert list(read) == ["a", "b"]
    assert read["a"][0].wall_time == pytest.approx(next(tmp_path.glob("events.*")).stat().st_mtime, abs=60)


def test_what_is_no_scalar_is_passed_over(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        board.scalars(1, {"a": 1.0})
        board.writer.add_text("text", "1.0", 1)
        board.writer.add_histogram("histogram", torch.randn(10), 1)
        board.writer.add_image("image", torch.rand(3, 8, 8), 1)
        board.writer.add_pr_curve("curve", torch.tensor([0, 1]), torch.tensor([0.2, 0.9]), 1)
        board.writer.add_custom_scalars({"c": {"c": ["Multiline", ["a"]]}})
    assert list(read_scalars(tmp_path)) == ["a"]


def test_scalars_as_tensorflow_2_writes_them_are_read(tmp_path: Path) -> None:
    """As tensors; the first of a tag says that it is a scalar, the others do not."""
    with Board(tmp_path, first_step=0) as board:
        for step, value in enumerate([0.25, 0.1]):
            metadata = create_summary_metadata(display_name="", description="") if step == 0 else None
            tensor = make_tensor_proto(np.float64(value))
            summary = Summary(value=[Summary.Value(tag="a", tensor=tensor, metadata=metadata)])
            board.writer._get_file_writer().add_event(Event(summary=summary), step)  # type: ignore[no-untyped-call]
    assert points(tmp_path, "a") == [(0, 0.25), (1, 0.1)]


def records(data: bytes) -> list[int]:
    """Where the records of a file begin."""
    begins = [0]
    while begins[-1] < len(data):
        begins.append(begins[-1] + 16 + struct.unpack_from("<Q", data, begins[-1])[0])
    return begins[:-1]


def spoil(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_event_is_left_out_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, "a", range(5))
    third = records(path.read_bytes())[OPENING + 2]
    spoil(path, third + 12 + 3)  # in its time, so that it is an event all the same
    damage: list[str] = []
    assert [point.step for point in read_scalars(tmp_path, damaged=damage.append)["a"]] == [0, 1, 3, 4]
    assert damage == [f"{path}: damaged at byte {third}: a step's values are left out"]


def test_where_a_record_has_no_true_length_the_rest_of_the_file_is_left_out_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, "a", range(5))
    third = records(path.read_bytes())[OPENING + 2]
    spoil(path, third)
    write(tmp_path, "b", range(3, 5), first_step=3)
    damage: list[str] = []
    read = read_scalars(tmp_path, damaged=damage.append)
    assert [point.step for point in read["a"]] == [0, 1]
    assert len(read["b"]) == 2
    assert damage == [f"{path}: damaged at byte {third}: what follows there is left out"]


@pytest.mark.parametrize("damaged", [[0], [1], [2], [0, 1, 2]], ids=str)
def test_a_file_whose_first_records_are_damaged_keeps_its_rest_and_its_order(
    tmp_path: Path, damaged: list[int]
) -> None:
    """Two are versions, the third says from which step on the attempt speaks."""
    write(tmp_path, "a", range(10))
    second = write(tmp_path, "a", range(5, 8), first_step=5, plus=0.5)
    write(tmp_path, "a", range(9, 10), first_step=9, plus=0.25)
    begins = [records(second.read_bytes())[number] for number in damaged]
    for begin in begins:
        spoil(second, begin + 12)  # what it begins with, so that it is no event any more
    told: list[str] = []
    read = [(point.step, point.value) for point in read_scalars(tmp_path, damaged=told.append)["a"]]
    assert read == [*((step, step) for step in range(5)), (5, 5.5), (6, 6.5), (7, 7.5), (9, 9.25)]
    assert told == [f"{second}: damaged at byte {begin}: a step's values are left out" for begin in begins]


def test_a_file_of_another_program_keeps_its_order_where_its_first_record_is_damaged(tmp_path: Path) -> None:
    """It has no number in its name; the first event that is whole says when it was written."""
    first, second = (write(tmp_path, "a", range(4, 8), first_step=4, plus=plus) for plus in (0.0, 0.5))
    first = first.rename(tmp_path / "events.out.tfevents.9.host")
    second = second.rename(tmp_path / "events.out.tfevents.1.host")
    for path in (first, second):
        spoil(path, 12)
    told: list[str] = []
    read = read_scalars(tmp_path, damaged=told.append)["a"]
    assert [point.value for point in read] == [4.5, 5.5, 6.5, 7.5]
    assert len(told) == 2


def test_a_file_whose_header_is_damaged_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    write(tmp_path, "a", range(5))
    path = write(tmp_path, "a", range(3, 9), first_step=3, plus=0.5)
    write(tmp_path, "a", range(5, 7), first_step=5, plus=0.25)
    spoil(path, 0)
    told: list[str] = []
    read = [(point.step, point.value) for point in read_scalars(tmp_path, damaged=told.append)["a"]]
    assert read == [*((step, step) for step in range(5)), (5, 5.25), (6, 6.25)]
    assert told == [f"{path}: damaged at byte 0: what follows there is left out"]


@pytest.mark.parametrize("name", ["events.out.tfevents.1.host.1.0.2", "events.out.tfevents.1.host"])
def test_an_empty_file_among_others_is_no_damage(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a", range(3))
    (tmp_path / name).touch()
    assert len(points(tmp_path, "a")) == 3


def test_a_file_that_this_user_may_not_read_is_named(tmp_path: Path) -> None:
    """It could be read with the right permission, so no table without it is made."""
    write(tmp_path, "a", range(3))
    path = write(tmp_path, "a", range(3, 5), first_step=3)
    path.chmod(0)
    read = "import sys; from pathlib import Path; from pipeline.board.events import *; read_scalars(Path(sys.argv[1]))"
    command = [sys.executable, "-c", read, str(tmp_path)]
    done = subprocess.run(without_root_s(command), capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == f"pipeline.errors.PipelineError: {path}: cannot be read: Permission denied"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_has_no_curves_and_hides_none(make: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path, "a", range(3))
    path = tmp_path / "events.out.tfevents.1.host.1.0"
    make(path)
    told: list[str] = []
    assert len(read_scalars(tmp_path, damaged=told.append)["a"]) == 3
    assert told == [f"{path}: it is not a regular file: it is left out"]


def test_a_folder_without_events_has_no_scalars(tmp_path: Path) -> None:
    assert read_scalars(tmp_path) == {}
    assert read_scalars(tmp_path / "gone") == {}


def test_nothing_is_written_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "a", range(5))
    os.truncate(path, path.stat().st_size - 3)
    read_scalars(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_tensorboards_own_reader_finds_the_same(tmp_path: Path) -> None:
    with Board(tmp_path, first_step=0) as board:
        for step in range(0, 3000, 3):
            board.scalars(step, {"a": step * 0.1, "b": -step / 7})
    theirs = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    theirs.Reload()
    for tag, ours in read_scalars(tmp_path).items():
        assert [(p.step, p.wall_time, p.value) for p in ours] == [
            (p.step, p.wall_time, p.value) for p in theirs.Scalars(tag)
        ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(float(np.float32(0.1)), 0.1), (0.25, 0.25), (1e300, 1e300), (0.1, 0.1), (float(np.float32(3e-3)), 0.003)],
)
def test_a_float32_comes_out_as_it_would_be_written_by_hand(value: float, expected: float) -> None:
    assert shortest(value) == expected


@given(st.floats(width=32))
def test_the_shortest_number_is_the_same_float32(value: float) -> None:
    assert np.array_equal(np.float32(shortest(value)), np.float32(value), equal_nan=True)
