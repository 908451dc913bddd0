"""A file is complete or not there at all, whatever happens while it is written."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import faults
import pytest

from pipeline.home import durable

OLD, NEW = b"old" * 40_000, b"new content" * 40_000  # more than one buffer


def replace_it(root: Path, data: bytes) -> None:
    durable.replace(root / "file", lambda file: file.write(data))


def create_it(root: Path, data: bytes) -> None:
    durable.create(root / "file", data, by_way_of=root)
    durable.fsync_folder(root)


def fresh_folder(tmp_path: Path, content: bytes | None) -> tuple[Path, bytes]:
    root = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    root.mkdir()
    if content is not None:
        (root / "file").write_bytes(content)
    return root, NEW


@pytest.mark.parametrize("fault", ["kill", "one EIO", "full disk"])
def test_a_file_being_replaced_is_the_old_one_or_the_new_one_at_any_moment(tmp_path: Path, fault: faults.Fault) -> None:
    seen = set()
    for root, _, outcome in faults.at_each_call(replace_it, fault, lambda: fresh_folder(tmp_path, OLD)):
        content = (root / "file").read_bytes()
        assert content in (OLD, NEW)
        seen.add(content)
        if outcome.error is not None:
            assert isinstance(outcome.error, OSError)
            assert len(list(root.iterdir())) == 1, "no temporary file is left"
    assert seen == {OLD, NEW}


@pytest.mark.parametrize("fault", ["kill", "one EIO", "full disk"])
def test_a_file_being_created_is_whole_or_not_there(tmp_path: Path, fault: faults.Fault) -> None:
    for root, _, outcome in faults.at_each_call(create_it, fault, lambda: fresh_folder(tmp_path, None)):
        assert not (root / "file").exists() or (root / "file").read_bytes() == NEW
        assert outcome.struck or (root / "file").read_bytes() == NEW
        assert outcome.error is None or isinstance(outcome.error, OSError)


def test_create_never_overwrites(tmp_path: Path) -> None:
    root, _ = fresh_folder(tmp_path, OLD)
    with pytest.raises(FileExistsError):
        create_it(root, NEW)
    assert [(p.name, p.read_bytes()) for p in root.iterdir()] == [("file", OLD)]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise RuntimeError("the writer's own fault")

    root, _ = fresh_folder(tmp_path, OLD)
    with pytest.raises(RuntimeError):
        durable.replace(root / "file", write)
    assert [(p.name, p.read_bytes()) for p in root.iterdir()] == [("file", OLD)]


def test_make_folder_makes_parents_and_takes_one_that_is_there(tmp_path: Path) -> None:
    durable.make_folder(tmp_path / "a" / "b" / "c")
    durable.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_folder_is_made_however_many_lie_above_it(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["x"] * 400)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        durable.make_folder(deep)
    finally:
        sys.setrecursionlimit(limit)
    assert deep.is_dir()


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"5", b"\xff\xfe", b'{"a": 1}x', b"[" * 100_000, b"\0" * 100])
def test_what_is_not_a_whole_json_object_reads_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert durable.read_json(tmp_path / "file") is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_not_a_regular_file_reads_as_none_and_blocks_nobody(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "file")
    assert durable.read_json(tmp_path / "file") is None
    assert durable.read_json(tmp_path / "file" / "below") is None
    assert durable.read_json(tmp_path / "absent") is None


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)
    assert durable.read_json(tmp_path / "file") is None


def test_json_that_was_written_reads_back(tmp_path: Path) -> None:
    value = {"text": "añ\n\u2028", "number": 0.1, "list": [None, True]}
    durable.replace_json(tmp_path / "file", value)
    assert durable.read_json(tmp_path / "file") == value


@pytest.fixture
def many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where very many are read."""
    for name in ("_parse_fast", "_write_fast"):
        monkeypatch.setattr(durable, name, None)
    durable.expect(durable.MANY_FILES + 1)
    assert durable._parse_fast is not None


TEXTS = ["{", "01", "[1,]", "{}x", '"\x01"', '{"a":1,"a":2}', '"\\ud800"', "\ufeff{}", "1e999", "[" * 150 + "]" * 150]


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    "data", [*map(str.encode, TEXTS), b"1" * 5000, b"[" * 100_000, b'"\xff"', "[]".encode("utf-16")]
)
def test_of_many_files_the_same_is_read_and_refused(data: bytes) -> None:
    def read(parse: Callable[[bytes], Any]) -> Any:
        try:
            return parse(data)
        except (ValueError, RecursionError):
            return "refused"

    assert read(durable.parse_json) == read(json.loads)


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    "value", [{"a": None, "b": [1e-7, 1e16, 0.1, True]}, {"text": "añ\n\u2028\x00"}, {"not": "\udcff"}]
)
def test_of_many_files_the_same_is_told(value: Any) -> None:
    line = durable.to_line(value)
    assert json.loads(line) == value
    assert "\n" not in line


def test_an_error_names_the_file_that_was_to_be_written_and_no_temporary_one(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for write in (
        lambda path: durable.replace_json(path, {}),
        lambda path: durable.create(path, b"", by_way_of=gone),
        lambda path: durable.write_temporary(gone, path.name, lambda file: file.write(b"")),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            write(gone / "record.json")
        assert caught.value.filename == str(gone / "record.json")
        assert durable.in_words(caught.value) == f"No such file or directory: {gone / 'record.json'}"


def test_a_full_disk_is_said_of_the_file_that_did_not_fit(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        durable.replace(small_disk / "large", lambda file: file.write(bytes(1_000_000)))
    assert durable.in_words(caught.value) == f"No space left on device: {small_disk / 'large'}"
    assert list(small_disk.iterdir()) == []


def test_a_dangling_link_is_there_and_a_file_below_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    assert durable.is_there(tmp_path / "link")
    assert not durable.is_there(tmp_path / "file" / "below")
    assert not durable.is_there(tmp_path / "absent")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        durable.is_there(tmp_path / "round" / "x")


def test_temporaries_of_the_dead_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("record.json", ".hidden", "x.tmp")]
    old, new = tmp_path / ".record.json.1.ab.tmp", tmp_path / ".record.json.2.cd.tmp"
    for path in (*kept, old, new):
        path.touch()
    os.utime(old, (0, 0))
    (tmp_path / ".folder.tmp").mkdir()
    durable.remove_temporaries(tmp_path, older_than_s=60)
    assert not old.exists()
    assert new.exists()
    durable.remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / ".folder.tmp"])
    durable.remove_temporaries(tmp_path / "absent")


def test_a_record_that_could_not_be_read_back_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    durable.replace_json(tmp_path / "file", {"text": "x" * (durable.MAX_RECORD_BYTES - 13)})
    largest = durable.read_json(tmp_path / "file")
    assert largest is not None
    with pytest.raises(ValueError, match=r"file: is not written: 16,777,217 bytes, and 16,777,216 can be read back"):
        durable.replace_json(tmp_path / "file", {"text": "x" * (durable.MAX_RECORD_BYTES - 12)})
    assert durable.read_json(tmp_path / "file") == largest
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, flags in itertools.product(("pipe", "link", "folder", "socket"), (os.O_RDONLY, os.O_WRONLY)):
            with pytest.raises(durable.NotAPlainFileError, match="not a regular file"):
                durable.open_plain(tmp_path / name, flags | os.O_CREAT)
    assert not (tmp_path / "other").exists()


def test_a_folder_that_a_killed_process_made_is_synced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker may not have come to that: what lies in it would be lost with its name."""
    (tmp_path / "made").mkdir()
    synced, fsync = [], os.fsync

    def record(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    durable.make_folder(tmp_path / "made")
    assert synced == [tmp_path]
    durable.make_folder(tmp_path / "made" / "new")
    assert synced == [tmp_path, tmp_path, tmp_path / "made"]
