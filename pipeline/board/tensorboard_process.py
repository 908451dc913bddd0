"""TensorBoard as a child process: started on a home's runs, started again where it has died, and stopped.

What it prints goes to HOME/tensorboard.log, each start below the earlier ones. What runs in the child process is
`tensorboard_main.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PipelineError
from pipeline.home.paths import NOTIFY
from pipeline.home.records import now

RELOAD_S = 5  # between two looks at the event files; the default of 30 does not feel live
START_S = 60
MOST_TRIED = 20  # other ports, where one is taken
RESTART_S = 60.0
HERE = ("127.0.0.1", "0.0.0.0", "")  # what it listens at, and can be opened as localhost
MAX_LOG_BYTES = 1 << 20  # of a log that a further start is added to; a longer one is put aside, as tensorboard.log.1
_open_directly = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # it is on this machine
_PR_SET_PDEATHSIG = 1  # prctl.h


class TensorBoard:
    """A running TensorBoard, which stops with the process that started it."""

    def __init__(self, logdir: Path, *, port: int, host: str = "127.0.0.1") -> None:
        """Raises PipelineError where the port is taken or TensorBoard does not come up."""
        self.logdir, self.port, self.host = logdir, port, host
        self._token = secrets.token_hex(8)
        self.url = f"http://{'localhost' if host in HERE else host}:{port}"
        check_is_free(host, port)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "pipeline.board.tensorboard_main", "--logdir", str(self.logdir)]
        command += ["--host", self.host, "--port", str(self.port), "--reload_interval", str(RELOAD_S)]
        command += ["--tag", self._token]  # which does nothing without --inspect, and is told with its environment
        self.started_at = time.monotonic()
        with self._open_log() as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name not in (NOTIFY, "MAKEFLAGS")},
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def _open_log(self) -> BinaryIO:
        """Opens the log at its end, below a line with the time."""
        self.log = self.logdir.parent / "tensorboard.log"
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > MAX_LOG_BYTES:
                self.log.replace(self.log.with_name("tensorboard.log.1"))
        log = self.log.open("ab", buffering=0)
        with contextlib.suppress(OSError):  # a full disk, where TensorBoard itself may well run
            log.write(f"{now()}  TensorBoard starts at {self.host}:{self.port}\n".encode())
        return log

    def wait_until_it_answers(self) -> None:
        """Raises PipelineError where it does not, as where another one was quicker to take its port."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if self._answers():
                return
            time.sleep(0.1)
        check_is_free(self.host, self.port)
        raise PipelineError(f"TensorBoard does not answer; {self.log} says why")

    def _answers(self) -> bool:
        """Whether this one does: anything may answer at its port while it starts."""
        try:
            with _open_directly(f"http://{self.host}:{self.port}/data/environment", timeout=2) as answer:
                return bool(json.load(answer)["debug"]["flags"]["tag"] == self._token)
        except (urllib.error.URLError, OSError, HTTPException, LookupError, TypeError, ValueError):
            return False

    def keep_alive(self) -> None:
        """Starts it again if it has died, but not more often than once a minute."""
        if self.process.poll() is not None and time.monotonic() > self.started_at + RESTART_S:
            self.process = self._start()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def check_is_free(host: str, port: int) -> None:
    """Raises PipelineError, which names another port that is free, where TensorBoard cannot listen there."""
    error = _why_taken(host, port)
    if error is None:
        return
    if error.errno != errno.EADDRINUSE:
        raise PipelineError(f"TensorBoard cannot listen at {host}:{port}: {error.strerror}")
    others = ((port + step) % 65535 + 1 for step in range(MOST_TRIED))
    other = next((other for other in others if _why_taken(host, other) is None), port % 65535 + 1)
    raise PipelineError(
        f"port {port} is in use, perhaps by another `up`, and nothing was started\n"
        f"  stop that, or choose another port: `pipeline up --port {other}`, `make up PORT={other}`"
    )


def _why_taken(host: str, port: int) -> OSError | None:
    """What the system says where nobody can listen there now."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
        except OSError as error:
            return error
    return None


def _die_with_parent() -> None:
    """Asks Linux for a SIGTERM when the parent is gone, however it went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
