"""A program on a terminal of its own, and what it writes there."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SIZES = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")


def run_on_terminal(command: Sequence[str], *, columns: int, environment: dict[str, str]) -> str:
    """What a program writes to a terminal of so many columns, colours and all; line ends are the terminal's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    clean = {key: value for key, value in os.environ.items() if key not in SIZES}
    try:
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**clean, **environment}):
            os.close(theirs)
            return _read_all(ours)
    finally:
        os.close(ours)


def _read_all(fd: int) -> str:
    parts = []
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while part := os.read(fd, 65536):
            parts.append(part)
    return b"".join(parts).decode()


class Screen:
    """A program that draws on a terminal, and what it has drawn; keys may be pressed, and the size may change."""

    def __init__(self, command: Sequence[str], *, columns: int = 80, rows: int = 24, **environment: str) -> None:
        self.fd, theirs = pty.openpty()
        self.settings = termios.tcgetattr(theirs)
        self.resize(columns, rows)
        clean = {key: value for key, value in os.environ.items() if key not in SIZES}
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**clean, "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._theirs = theirs  # stays open, so that settings can be read when the program is gone
        self.output = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # a character may come in two reads

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def read(self, until: Callable[[Screen], object], what: str) -> None:
        """Takes what the program writes until something is true of it. Raises AssertionError after a minute."""
        deadline = time.monotonic() + 60
        while not until(self):
            assert time.monotonic() < deadline, f"{what}: {self.output[-4000:]!r}"
            if select.select([self.fd], [], [], 0.05)[0]:
                self.output += self._decode(os.read(self.fd, 65536))

    @property
    def frame(self) -> list[str]:
        """The lines that were drawn last, whole, without colours."""
        frames = [frame for frame in self.output.split("\x1b[H")[1:] if "\x1b[J" in frame]
        return ANSI.sub("", frames[-1].partition("\x1b[J")[0]).removesuffix("\r\n").split("\r\n") if frames else []

    @property
    def num_frames(self) -> int:
        return self.output.count("\x1b[J")

    def end(self) -> int:
        """What remains on the terminal is in `output` then. Returns the exit code."""
        self.read(lambda screen: screen.process.poll() is not None, "its end")
        while select.select([self.fd], [], [], 0.1)[0]:
            self.output += self._decode(os.read(self.fd, 65536))
        return self.process.returncode

    @property
    def left(self) -> list[str]:
        """What is below the command when it has ended."""
        return ANSI.sub("", self.output.rpartition("\x1b[?1049l")[2]).replace("\r\n", "\n").splitlines()

    def has_its_settings(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.settings

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self._theirs)
