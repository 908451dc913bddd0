"""What an attempt has written to its log since the last look."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.home import attempt_log, durable
from pipeline.wording import plural

ECHO_BYTES = 256 * 1024  # of a log, in a turn of the worker's loop


def open_log(path: Path, flags: int = os.O_RDONLY, mode: str = "rb") -> BinaryIO:
    return cast(BinaryIO, os.fdopen(durable.open_plain(path, flags), mode))


class LogReader:
    """Reads behind whoever writes."""

    def __init__(self, path: Path, *, keeps_small: bool) -> None:
        """keeps_small: cut the log while it is written, which is safe on a disk of this machine alone."""
        self.path, self.keeps_small = path, keeps_small
        self._file: BinaryIO | None = None
        self._position = 0

    def open(self) -> None:
        """Raises OSError."""
        self._file = open_log(self.path)

    def read(self, *, to_the_end: bool = False) -> list[str]:
        """Whole lines, and the last one as it is if nothing more will come; none where there is no file yet."""
        if self._file is None:
            try:
                self.open()
            except (FileNotFoundError, durable.NotAPlainFileError):
                return []
        assert self._file is not None
        if self.keeps_small:
            with contextlib.suppress(FileNotFoundError, durable.NotAPlainFileError):  # removed, or replaced
                if attempt_log.keep_small(self.path):  # to what may be as long as it was at the last look
                    self._position = min(self._position, attempt_log.HEAD_BYTES)
        text, position, passed_over = attempt_log.read_on(self._file.fileno(), self._position, ECHO_BYTES)
        is_whole = to_the_end or len(text) == ECHO_BYTES
        end = len(text) if is_whole else text.rfind(b"\n") + 1
        self._position = position - len(text) + end
        lines = [f"... {plural(passed_over, 'more byte')} in {self.path.name} ..."] if passed_over else []
        return lines + text[:end].decode("utf-8", "replace").splitlines()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
