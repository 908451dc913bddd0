"""Processes beside a worker's loop, one at a time, for what no job waits for and no job is harmed by."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

MAX_TEXT = 60_000  # bytes; a pipe takes as many without anybody who reads
MAX_OUTPUT = 64 * 1024  # bytes, from its end


@dataclass(frozen=True)
class Errand:
    """about: what it is for, a job's id. text: gives what its process reads, when that is started."""

    about: str
    command: Sequence[str]
    text: Callable[[], str] = str


@dataclass(frozen=True)
class Ended:
    """How a process has ended. why: what went wrong, and empty where nothing did. output: what it has printed."""

    about: str
    why: str
    output: str = ""

    @property
    def last_line(self) -> str:
        return next((line.strip() for line in reversed(self.output.split("\n")) if line.strip()), "")


@dataclass
class _Process:
    about: str
    process: subprocess.Popen[bytes]
    output: BinaryIO
    started_at: float = field(default_factory=time.monotonic)


class Errands:
    """limit_s: what a process may take at most; then it is killed. ended: told of each that has ended."""

    def __init__(self, limit_s: float, ended: Callable[[Ended], None]) -> None:
        self.limit_s, self.ended = limit_s, ended
        self._waiting: deque[Errand] = deque()
        self._current: _Process | None = None

    @property
    def is_busy(self) -> bool:
        return self._current is not None or bool(self._waiting)

    @property
    def is_running(self) -> bool:
        return self._current is not None

    @property
    def waiting(self) -> list[str]:
        """What the errands are for whose process is not started yet."""
        return [errand.about for errand in self._waiting]

    def ask(self, errand: Errand) -> None:
        self._waiting.append(errand)

    def tick(self) -> None:
        """Look after the process, and start the next one."""
        if self._current is not None:
            self._look_at(self._current)
        if self._current is None and self._waiting:
            self._start(self._waiting.popleft())

    def give_up_waiting(self) -> list[str]:
        """Start no more processes. Returns what they were for."""
        left = self.waiting
        self._waiting.clear()
        return left

    def give_up(self) -> list[str]:
        """Kill the process, and start no more. Returns what they were for."""
        left = self.give_up_waiting()
        if self._current is not None:
            left.insert(0, self._current.about)
            self._end(self._current)
        return left

    def _start(self, errand: Errand) -> None:
        with contextlib.ExitStack() as stack:
            try:
                text = errand.text().encode(errors="replace")
                if len(text) > MAX_TEXT:
                    raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))  # noqa: TRY301
                output = stack.enter_context(tempfile.TemporaryFile())
                process = subprocess.Popen(
                    errand.command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # a Ctrl-C is for the worker, which waits for it
                )
            except OSError as error:
                self.ended(Ended(errand.about, str(error)))
                return
            stack.pop_all()
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin:  # it may have left already
            process.stdin.write(text)
        self._current = _Process(errand.about, process, output)

    def _look_at(self, current: _Process) -> None:
        status = current.process.poll()
        if status is None and time.monotonic() < current.started_at + self.limit_s:
            return
        if status is None:
            ended = Ended(current.about, f"it took longer than {self.limit_s:g} s")
        else:
            why = f"its process left with exit code {status}" if status else ""
            ended = Ended(current.about, why, _read_end(current.output))
        self._end(current)
        self.ended(ended)

    def _end(self, current: _Process) -> None:
        if current.process.returncode is None:
            current.process.kill()
            current.process.wait()
        current.output.close()
        self._current = None


def _read_end(file: BinaryIO) -> str:
    with contextlib.suppress(OSError):
        file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_OUTPUT))
        return file.read().decode("utf-8", "replace")
    return ""
