"""The figures of each epoch, in a file that anything may have cut short."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from pipeline.home import epoch_record
from pipeline.home.durable import NotAPlainFileError

LOSS, ACCURACY = "test/loss", "test/accuracy"


def append(path: Path, *epochs: int, accuracy: float = 0.5) -> None:
    for epoch in epochs:
        epoch_record.append(path, epoch=epoch, step=60 * epoch, metrics={ACCURACY: accuracy})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "epochs.jsonl"


def test_an_epoch_is_a_line_that_anybody_can_read(path: Path) -> None:
    epoch_record.append(path, epoch=3, step=180, metrics={LOSS: 0.25, ACCURACY: 0.875})
    assert json.loads(path.read_text()) == {"epoch": 3, "step": 180, "metrics": {LOSS: 0.25, ACCURACY: 0.875}}
    assert path.read_text().endswith("}\n")
    assert epoch_record.read(path) == {3: {LOSS: 0.25, ACCURACY: 0.875}}


def test_the_last_line_of_an_epoch_counts_and_epochs_are_ascending(path: Path) -> None:
    append(path, 1, 2, 3, accuracy=0.25)
    append(path, 2, 1, accuracy=0.75)
    assert [*epoch_record.read(path).items()] == [(1, {ACCURACY: 0.75}), (2, {ACCURACY: 0.75}), (3, {ACCURACY: 0.25})]


def test_what_is_not_finite_is_left_out(path: Path) -> None:
    metrics = {LOSS: math.inf, "train/loss": math.nan, ACCURACY: 0.5}
    epoch_record.append(path, epoch=1, step=60, metrics=metrics)
    assert epoch_record.read(path) == {1: {ACCURACY: 0.5}}


def test_wherever_a_line_is_cut_short_all_others_are_read(path: Path) -> None:
    """Those before it, and those that are added after it."""
    append(path, 1, 2)
    content = path.read_bytes()
    begin = content.index(b"\n") + 1
    for end in range(begin, len(content)):
        path.write_bytes(content[:end])
        is_whole = end == len(content) - 1  # but for its end of line
        assert [*epoch_record.read(path)] == ([1, 2] if is_whole else [1])
        append(path, 3, 4)
        assert [*epoch_record.read(path)] == ([1, 2, 3, 4] if is_whole else [1, 3, 4])


FOREIGN = {
    "text": b"hello",
    "bytes": b"\xff\xfe\x00",
    "not an object": b"[1, 2]",
    "no metrics": b'{"epoch": 9, "step": 1}',
    "a text for an epoch": b'{"epoch": "9", "step": 1, "metrics": {}}',
    "a truth for an epoch": b'{"epoch": true, "step": 1, "metrics": {}}',
    "no epoch": b'{"epoch": 0, "step": 1, "metrics": {}}',
    "a list of metrics": b'{"epoch": 9, "step": 1, "metrics": [1]}',
    "a text for a metric": b'{"epoch": 9, "step": 1, "metrics": {"test/loss": "low"}}',
    "not a number": b'{"epoch": 9, "step": 1, "metrics": {"test/loss": NaN}}',
    "endless": b'{"epoch": 9, "step": 1, "metrics": {"test/loss": 1' + b"0" * 400 + b"}}",
    "deep": b'{"epoch": 9, "step": 1, "metrics": ' + b"[" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_line_is_left_out(line: bytes, path: Path) -> None:
    append(path, 1)
    path.write_bytes(path.read_bytes() + line + b"\n")
    append(path, 2)
    assert [*epoch_record.read(path)] == [1, 2]


def test_a_whole_number_is_a_figure_too(path: Path) -> None:
    path.write_text('{"epoch": 1, "step": 60, "metrics": {"test/accuracy": 1}, "more": null}\n')
    assert epoch_record.read(path) == {1: {ACCURACY: 1.0}}


def test_where_there_is_no_plain_file_there_are_no_figures(path: Path, tmp_path: Path) -> None:
    assert epoch_record.read(path) == {}
    assert epoch_record.read(tmp_path / "no folder" / "epochs.jsonl") == {}
    os.mkfifo(path)
    assert epoch_record.read(path) == {}
    with pytest.raises(NotAPlainFileError):
        append(path, 1)


def test_of_a_file_that_is_too_long_the_end_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(path, *range(1, 10))
    monkeypatch.setattr(epoch_record, "MAX_BYTES", path.stat().st_size // 2)
    found = [*epoch_record.read(path)]
    assert found == [*range(found[0], 10)]
    assert 4 <= len(found) <= 5


def test_a_full_disk_is_an_error_and_the_next_epoch_has_a_line_of_its_own(small_disk: Path) -> None:
    path = small_disk / "epochs.jsonl"
    append(path, 1)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(10**7))
    with pytest.raises(OSError, match="No space") as raised:
        append(path, *range(2, 1000))
    assert raised.value.errno == errno.ENOSPC
    whole = len(epoch_record.read(path))
    filler.unlink()
    append(path, 2000)
    assert [*epoch_record.read(path)] == [*range(1, whole + 1), 2000]
