"""Files that survive a crash: complete or not there at all, and on stable storage before anybody is told of them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_RECORD_BYTES = 16 * 1024 * 1024

_READ_BYTES = 4 * 1024  # at first: a ticket and most records are smaller, and no limit is
_MORE_BYTES = 1024 * 1024

MANY_FILES = 5_000
_parse_fast: Callable[..., Any] | None = None
_write_fast: Callable[..., bytes] | None = None
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_ERRORS = "backslashreplace"  # a file name need not be text; half a surrogate is an escape in JSON

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # no fault of the job's: it is tried again


def _nobody_minds() -> None: ...


ask_first: Callable[[], object] = _nobody_minds
"""Is called before a file takes another's place. An attempt sets it: one that was replaced may change nothing."""


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable: a rename or link is not before this."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_temporary(folder: Path, name: str, write: Callable[[BinaryIO], object]) -> Path:
    """A new, complete, fsynced file in `folder` under a name of its own, to be linked or renamed by the caller."""
    path = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with _named(folder / name), path.open("xb") as file:  # buffered: loops over a full disk's short writes
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Lets an error name the file that was to be written: a temporary name is another one with each try."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write `path` so that a reader, or a crash, sees the old content or the new and nothing between."""
    temporary = write_temporary(path.parent, path.name, write)
    try:
        with _named(path):
            rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def rename(temporary: Path, path: Path) -> None:
    """Give a file that is whole its name, once nobody minds.

    Whoever asks first does so when the temporary file is there. So a process that is replaced between asking and the
    rename does no harm: the one in its place removes temporary files before it reads, and then there is none to rename.
    """
    ask_first()
    temporary.replace(path)


def create(path: Path, data: bytes, *, by_way_of: Path) -> None:
    """Create `path` whole, from a temporary file in a folder of the same filesystem. Raises FileExistsError.

    The name is durable only when the caller has fsynced its folder.
    """
    temporary = write_temporary(by_way_of, path.name, lambda file: file.write(data))
    try:
        with _named(path):
            os.link(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # swept later
            temporary.unlink()


def is_there(path: Path) -> bool:
    """Whether anything has that name, a dangling link too. Raises OSError where the disk does not say."""
    return _mode(path) is not None


def is_plain(path: Path) -> bool:
    """Whether a regular file has that name. Raises OSError where the disk does not say."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def _mode(path: Path) -> int | None:
    """None for what is absent, which no other error than these two says."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none where there is no folder. Raises OSError where it cannot be listed."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - 100,000 Path objects take longer than all else of `status`
    except FileNotFoundError:
        return []


def remove_temporaries(folder: Path, *, older_than_s: float = 0) -> None:
    """Removes what processes that were killed were writing in a folder; nobody was told of it.

    With no age only where nobody else can be writing: for the holder of the job's lease, in the job's own folders.
    """
    names = []
    with contextlib.suppress(NotADirectoryError):
        names = names_in(folder)
    for name in names:
        if name.startswith(".") and name.endswith(".tmp"):
            with contextlib.suppress(OSError):  # a folder, or gone meanwhile
                if time.time() - (folder / name).lstat().st_mtime >= older_than_s:
                    (folder / name).unlink()


def in_words(error: OSError) -> str:
    """What the system refused, and of which file, on one line."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{reason}: {error.filename}" if error.filename else reason


class NotAPlainFileError(OSError):
    """What lies there is a folder, a link, a pipe or the like: opening it might block, or lead elsewhere."""


def open_plain(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file; opening it never blocks. Raises NotAPlainFileError for anything else."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a pipe or socket, a folder
            raise _not_plain(path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _not_plain(path)
    return fd


def _not_plain(path: Path | str) -> NotAPlainFileError:
    return NotAPlainFileError(errno.EINVAL, "it is not a regular file", str(path))


def read_small(path: Path | str, *, limit: int) -> bytes:
    """What is in a small regular file. Raises ValueError for anything else."""
    try:
        fd = open_plain(path)
    except NotAPlainFileError:
        raise ValueError("it is not a regular file") from None
    try:
        chunks = [os.read(fd, _READ_BYTES)]  # without a file object: `status` reads 100,000 files
        if len(chunks[0]) == _READ_BYTES:
            size = os.fstat(fd).st_size
            if size > limit:
                raise ValueError(f"it is {size:,} bytes long; at most {limit:,} are allowed")
            while chunk := os.read(fd, _MORE_BYTES):
                chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, as `mkdir --parents` does, and makes that durable.

    One that is there may have been made by a process that was killed before it could do that.
    """
    there, missing = folder, []
    while not there.is_dir():
        missing.append(there)
        there = there.parent
    _fsync_name(there)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _fsync_name(path)


def _fsync_name(folder: Path) -> None:
    with contextlib.suppress(PermissionError):  # of a folder that others made, and that this user cannot list
        fsync_folder(folder.parent)


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(errors=_ERRORS)


def replace_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Writes a record. Raises ValueError where it is larger than `read_json` takes; then `path` is as it was."""
    content = (json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n").encode(errors=_ERRORS)
    if len(content) > MAX_RECORD_BYTES:
        raise ValueError(f"{path}: is not written: {len(content):,} bytes, and {MAX_RECORD_BYTES:,} can be read back")
    replace(path, lambda file: file.write(content))


def parse_json(data: bytes) -> Any:
    """What JSON says. Raises ValueError, or RecursionError, where it is none."""
    if _parse_fast is None:
        return json.loads(data)
    try:
        return _parse_fast(data, cache_strings="keys")
    except ValueError:  # half a surrogate is none of its letters
        return json.loads(data)


def to_line(value: Any) -> str:
    """JSON on one line, for people and programs outside."""
    if _write_fast is not None:
        with contextlib.suppress(ValueError):
            return _write_fast(value).decode()
    return _encode(value)


def expect(num_files: int) -> None:
    """Be told how many JSON files will be read: for very many, pydantic-core takes half the time or less of `json`.

    To load it takes 30 ms, as long as to read 3,000 tickets.
    """
    global _parse_fast, _write_fast
    if num_files > MANY_FILES and _parse_fast is None:
        from pydantic_core import from_json, to_json

        _parse_fast, _write_fast = from_json, to_json


def read_json(path: Path | str, *, limit: int = MAX_RECORD_BYTES) -> dict[str, Any] | None:
    """The object in the file; None where there is no file, or what is in it is not a whole JSON object."""
    try:
        value = parse_json(read_small(path, limit=limit))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
