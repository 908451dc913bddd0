"""No job is started on a disk that one found full, until more is free than there was then."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.worker import room
from pipeline.worker.room import Room


@pytest.fixture
def said() -> list[str]:
    return []


def fill(disk: Path) -> Path:
    """Everything but one page; the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return ballast


def test_an_ordinary_disk_has_room_and_nothing_is_written_to_find_out(small_disk: Path, said: list[str]) -> None:
    fill(small_disk)
    before = sorted(small_disk.iterdir())
    assert Room([small_disk], said.append).is_there(), "nobody has missed any yet"
    assert (sorted(small_disk.iterdir()), said) == (before, [])


def test_there_is_no_room_until_more_is_free_than_when_it_was_missed(small_disk: Path, said: list[str]) -> None:
    ballast = fill(small_disk)
    disk = Room([small_disk], said.append)
    assert disk.was_missed()
    assert disk.was_missed(), "again, by another job"
    assert not disk.is_there()
    assert not disk.is_there()
    assert said == [f"no room on the disk of {small_disk}: no job is started until there is more"]
    ballast.unlink()
    assert disk.is_there()
    assert disk.is_there()
    assert said[1:] == ["there is room on the disk again"]
    assert list(small_disk.iterdir()) == [], "what it tried is gone"


def test_a_little_more_is_not_room(small_disk: Path, said: list[str]) -> None:
    ballast = fill(small_disk)
    disk = Room([small_disk], said.append)
    disk.was_missed()
    with ballast.open("r+b") as file:
        file.truncate(ballast.stat().st_size - 8192)
    assert not disk.is_there(), "8 of 256 KiB: the next job would find it full again"


def test_a_disk_with_plenty_of_room_was_not_the_one_that_was_full(tmp_path: Path, said: list[str]) -> None:
    if room.shutil.disk_usage(tmp_path).free < room.ENOUGH_BYTES:
        pytest.skip("this machine's own disk is nearly full")
    disk = Room([tmp_path], said.append)
    assert not disk.was_missed()
    assert disk.is_there()
    assert said == []
