"""A log that grows without end is cut, and whoever reads behind it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
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


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(int(sys.argv[2])):
    os.write(fd, b"".join(b"%09d\\n" % n for n in range(number * 100, number * 100 + 100)))
"""


def test_nothing_of_what_is_written_while_a_log_is_cut_is_lost_behind_the_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = attempt_log.BLOCK_BYTES
    for name, size in (("LIMIT_BYTES", 8 * block), ("HEAD_BYTES", 2 * block), ("TAIL_BYTES", block)):
        monkeypatch.setattr(attempt_log, name, size)
    log = tmp_path / "attempt-1.log"
    log.write_bytes(b"x" * 4 * block)
    with log.open("r+b") as probe:
        if not attempt_log._collapse(probe.fileno(), block, block):
            pytest.skip("a file system that takes no range out of a file")
    cuts = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log), "50000"]) as writer:
        while writer.poll() is None:
            cuts += attempt_log.keep_small(log)
            time.sleep(0.001)
    assert cuts > 10
    behind = log.read_text().rpartition("were left out here")[2].splitlines()[2:]
    assert behind[-1] == "004999999"
    assert [int(line) for line in behind] == list(range(int(behind[0]), 5_000_000))
