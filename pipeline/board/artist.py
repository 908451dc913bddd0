"""A process that draws figures, so that the one that trains goes on meanwhile: `python -m pipeline.board.artist`.

Figures take matplotlib half a second, nearly all of it in Python, of which a process computes one thing at a time: a
thread would hold up the launches of the training as long as if the training drew them itself.

The process reads what to draw from its standard input, as pickles, and ends with it, also where the training is killed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

LIMIT_S = 10.0  # that a figure is waited for; a job that is asked to stop has 30 s in all
IGNORED = (signal.SIGINT, signal.SIGTERM)  # the training saves itself first, and then closes the pipe


class Artist:
    """Has functions called by a process of its own, one after the other. It is started when the first one comes."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="artist")
        self._process: subprocess.Popen[bytes] | None = None

    def draw(self, function: Callable[..., Any], *given: Any) -> Callable[[], Any]:
        """Returns what waits for `function(*given)` and returns it; all of it must be picklable.

        That raises RuntimeError where the function fails, ChildProcessError where the process has ended, and
        TimeoutError where it takes too long: a checkpoint waits for it.
        """
        return functools.partial(self._result, self._thread.submit(self._exchange, function, given))

    def _result(self, drawing: Future[Any]) -> Any:
        try:
            return drawing.result(LIMIT_S)
        except TimeoutError:
            raise TimeoutError(f"it is not drawn after {LIMIT_S:g} s") from None

    def _exchange(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        if self._process is None:
            signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)  # of this thread, and so of what it starts
            command = [sys.executable, "-P", "-m", "pipeline.board.artist"]  # -P: not from here
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((function, given), self._process.stdin)
            self._process.stdin.flush()
            is_drawn, value = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise ChildProcessError("the process that draws has ended") from None
        if not is_drawn:
            raise RuntimeError(value)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """What is not drawn yet is no longer wanted."""
        if self._process is not None:
            self._process.kill()
        self._thread.shutdown(cancel_futures=True)
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # what was not read any more
                    pipe.close()
            self._process.wait()


def main() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed goes to the log
    while True:
        try:
            function, given = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = True, function(*given)
        except Exception as error:  # noqa: BLE001 - whatever it was, the training says so
            reply = False, f"{type(error).__name__}: {error}"
        try:
            pickle.dump(reply, replies)
            replies.flush()
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
