"""A log that grows without end is cut, and whoever reads behind it goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.home import attempt_log


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, size in (("LIMIT_BYTES", 1000), ("HEAD_BYTES", 400), ("TAIL_BYTES", 100)):
        monkeypatch.setattr(attempt_log, name, size)
    return tmp_path / "attempt-1.log"


def test_a_small_log_stays_as_it_is(log: Path) -> None:
    log.write_bytes(b"x" * 1000)
    attempt_log.keep_small(log)
    assert log.read_bytes() == b"x" * 1000


def test_of_a_large_log_both_ends_stay_and_writers_go_on_behind_them(log: Path) -> None:
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 400 + b"b" * 500 + b"c" * 101)
        attempt_log.keep_small(log)
        writer.write(b"d")
    left_out = b"\n... 501 bytes were left out here: a log is kept to 1,000 ...\n"
    assert log.read_bytes() == b"a" * 400 + left_out + b"c" * 100 + b"d"


def test_a_reader_of_a_log_that_was_cut_goes_on_where_it_was_cut(log: Path) -> None:
    log.write_bytes(b"a" * 1001)
    fd = os.open(log, os.O_RDONLY)
    assert attempt_log.read_on(fd, 0, 10) == (b"a" * 10, 1001, 991)
    text, position, passed_over = attempt_log.read_on(fd, 0, 10_000)
    assert (len(text), position, passed_over) == (1001, 1001, 0)
    attempt_log.keep_small(log)
    text, position, _ = attempt_log.read_on(fd, position, 10_000)
    os.close(fd)
    assert text.startswith(b"\n... 501 bytes were left out")
    assert position == log.stat().st_size
