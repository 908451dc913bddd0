"""Reports in the background of a worker: when a job has ended, a process of its own writes its report.

One at a time, at a low priority, without the job's lease. Whatever becomes of it, the job's end stands.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.home.paths import Home

LIMIT_S = 300.0  # of one page, beside jobs that have every processor
LAST_LIMIT_S = 60.0  # of all that are left when the worker leaves
STOP_LIMIT_S = 5.0
POLL_S = 0.05


@dataclass
class _ReportProcess:
    job_id: str
    process: subprocess.Popen[bytes]
    errors: BinaryIO
    started_at: float = field(default_factory=time.monotonic)


class BackgroundReports:
    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self.home, self.say = home, say
        self._waiting: deque[str] = deque()
        self._current: _ReportProcess | None = None
        self.is_abandoned = False

    def ask(self, job_id: str) -> None:
        """Have the page of a job's run written soon; none where the job has no run."""
        if self.home.run(job_id).root.is_dir() and job_id not in self._waiting:
            self._waiting.append(job_id)

    def tick(self) -> None:
        """Look after the process, and start the next one."""
        if self._current is not None:
            self._look_at(self._current)
        if self._current is None and self._waiting:
            self._start(self._waiting.popleft())

    def finish(self, *, is_stopped: bool) -> None:
        """Wait for all that were asked for, a minute at most, or until it is abandoned.

        A worker that is stopped has little time: then only for the one that is being written, some seconds.
        """
        deadline = time.monotonic() + (STOP_LIMIT_S if is_stopped else LAST_LIMIT_S)
        left_out = list(self._waiting) if is_stopped and self._current is not None else []
        if left_out:
            self._waiting.clear()
        self.tick()
        while self._current is not None and not self.is_abandoned and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.tick()
        left_out += self._waiting
        if self._current is not None:
            left_out.insert(0, self._current.job_id)
            self._end(self._current)
        if left_out:
            left = ", ".join(left_out)
            self.say(f"no longer waits for the report of {left}; `pipeline report ID` writes it")

    def abandon(self) -> None:
        """Let `finish` return at once. It may be called from a signal handler."""
        self.is_abandoned = True

    def _start(self, job_id: str) -> None:
        command = [sys.executable, "-P", "-m", "pipeline.results.report", str(self.home.root), job_id]
        with contextlib.ExitStack() as stack:
            try:
                errors = stack.enter_context(tempfile.TemporaryFile())
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # a Ctrl-C is for the worker, which waits for it
                )
            except OSError as error:
                self._complain(job_id, str(error))
                return
            stack.pop_all()
        self._current = _ReportProcess(job_id, process, errors)

    def _look_at(self, report: _ReportProcess) -> None:
        status, why = report.process.poll(), ""
        if status is None:
            if time.monotonic() < report.started_at + LIMIT_S:
                return
            why = f"it took longer than {LIMIT_S:g} s"
        elif status != 0:
            why = _last_line(report.errors) or f"its process left with exit code {status}"
        self._end(report)
        if why:
            self._complain(report.job_id, why)

    def _end(self, report: _ReportProcess) -> None:
        if report.process.returncode is None:
            report.process.kill()
            report.process.wait()
        report.errors.close()
        self._current = None

    def _complain(self, job_id: str, why: str) -> None:
        self.say(f"{job_id}: its report was not written: {why}")


def _last_line(file: BinaryIO) -> str:
    with contextlib.suppress(OSError):
        file.seek(0)
        lines = file.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
