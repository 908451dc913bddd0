"""A process of a case's own, with little memory and an end to its time: what hangs or dies there is a violation."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import faults

HANGS_S = 10.0
MEMORY_BYTES = 1024**3  # that the program may take


def call(
    act: Callable[..., Any], *arguments: Any, hangs_s: float = HANGS_S, memory_bytes: int = MEMORY_BYTES
) -> tuple[Any, list[str]]:
    """What `act` returns in that process; and what was violated, where it does not: None then."""
    receiver, sender = faults.fork.Pipe(duplex=False)
    process = faults.fork.Process(target=_act, args=(sender, memory_bytes, act, arguments))
    process.start()
    sender.close()
    try:
        value, violations = receiver.recv() if receiver.poll(hangs_s) else (None, [f"it hangs for {hangs_s:g} s"])
    except EOFError:
        process.join()
        value, violations = None, [f"the process died: {_how(process.exitcode)}"]
    with contextlib.suppress(ProcessLookupError, PermissionError):  # with whatever it has started
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join()
    receiver.close()
    return value, violations


def judge(act: Callable[..., list[str]], *arguments: Any, hangs_s: float = HANGS_S) -> list[str]:
    """What was violated, by the word of `act`, or because it does not come to say."""
    value, violations = call(act, *arguments, hangs_s=hangs_s)
    return violations or value


def _how(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _act(sender: Connection, memory_bytes: int, act: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()  # by what is imported
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes, taken + memory_bytes))  # /dev/zero has no end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = act(*arguments), []
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a violation
        answer = None, [f"{type(error).__name__}: {error}"]
    sender.send(answer)
