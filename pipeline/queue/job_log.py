"""A job's log, as it grows."""

from __future__ import annotations

import codecs
import contextlib
import os
from pathlib import Path

from pipeline.home import attempt_log, durable
from pipeline.home.paths import RunPaths

ALL = 2 * attempt_log.LIMIT_BYTES


class JobLog:
    """A job's log, all attempts of it, as it grows."""

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self.positions: dict[Path, int] = {}  # how much of each file was read
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut by the end of a read

    def read_more(self) -> str:
        """What was written since the last call."""
        texts = []
        for path in self.run.logs():
            with contextlib.suppress(FileNotFoundError, durable.NotAPlainFileError):
                fd = durable.open_plain(path)
                with contextlib.closing(os.fdopen(fd)):
                    text, self.positions[path], _ = attempt_log.read_on(fd, self.positions.get(path, 0), ALL)
                texts.append(text)
        return self.decoder.decode(b"".join(texts))
