"""No job is started on a disk that one found full, until more is free than there was then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.queue.back_off import BACK_OFF_S
from pipeline.worker import room
from pipeline.worker.room import Room


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Python's monotonic clock, to be moved."""
    now = [1000.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    return now


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


def test_there_is_no_room_until_more_is_free_than_when_it_was_missed(
    small_disk: Path, said: list[str], clock: list[float]
) -> None:
    ballast = fill(small_disk)
    disk = Room([small_disk], said.append)
    disk.was_missed()
    disk.was_missed()  # by another job
    for _ in range(10):
        assert not disk.is_there()
        clock[0] += 2
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


def test_where_the_count_shows_no_full_disk_jobs_wait_longer_with_each_miss(
    tmp_path: Path, said: list[str], clock: list[float]
) -> None:
    """A quota, say, or a file system elsewhere that the job has filled."""
    if room.shutil.disk_usage(tmp_path).free < room.ENOUGH_BYTES:
        pytest.skip("this machine's own disk is nearly full")
    disk = Room([tmp_path], said.append)
    for delay_s in BACK_OFF_S:
        disk.was_missed()
        clock[0] += delay_s - 0.1
        assert not disk.is_there()
        clock[0] += 0.2
        assert disk.is_there()
    clock[0] += room.FORGET_S
    disk.was_missed()
    clock[0] += BACK_OFF_S[0] + 0.1
    assert disk.is_there(), "a miss after a long time is the first one again"
    assert len(said) == 2 * (len(BACK_OFF_S) + 1)


def test_a_disk_without_inodes_has_no_room_although_the_count_shows_plenty(
    small_disk: Path, said: list[str], clock: list[float]
) -> None:
    subprocess.run(["mount", "-o", "remount,size=3g,nr_inodes=3", str(small_disk)], check=True)
    while True:
        try:
            (small_disk / f"file-{len(list(small_disk.iterdir()))}").touch()
        except OSError:
            break
    disk = Room([small_disk], said.append)
    disk.was_missed()
    clock[0] += 60
    assert not disk.is_there()
    next(small_disk.iterdir()).unlink()
    clock[0] += 60
    assert disk.is_there()


def test_a_folder_that_cannot_be_written_at_all_is_no_matter_of_room(
    small_disk: Path, said: list[str], clock: list[float]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    disk = Room([small_disk, small_disk / "absent"], said.append)
    disk.was_missed()
    subprocess.run(["mount", "-o", "remount,ro,size=512k", str(small_disk)], check=True)
    clock[0] += 60
    assert disk.is_there()
