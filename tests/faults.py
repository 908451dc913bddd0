"""Kill an operation on files just before its n-th call of the system, or let the call fail.

The operation runs in a process of its own, so that a kill is a real SIGKILL. What is counted are the calls on a folder
that the fault is about: Python's audit events, and fsync, which has none. `before call n` for all n is also `after call
n - 1`, so that every state between two calls is seen.
"""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

Fault = Literal["kill", "one EIO", "full disk"]
CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename")

fork = multiprocessing.get_context("forkserver")  # forks a process without threads that has imported all of this:
fork.set_forkserver_preload(
    ["pipeline.queue.repair", "pipeline.training.checkpoint", "faults", "quick", "pytest", "hypothesis.stateful"]
)


@dataclass(frozen=True)
class Outcome:
    """How the operation ended: killed, with an error, or with a value."""

    killed: bool = False
    error: Exception | None = None
    value: Any = None
    struck: bool = False  # whether there was an n-th call at all


def at_each_call(operation: Callable[..., Any], fault: Fault, prepare: Callable[[], tuple[Path, Any]]) -> Iterator[Any]:
    """Run `operation(root, given)` with the fault at call 1, 2, ... until it is over before the fault comes.

    `prepare` makes what it starts from anew. Gives that and the Outcome.
    """
    for at in itertools.count(1):
        root, given = prepare()
        outcome = run(operation, root, given, fault=fault, at=at)
        yield root, given, outcome
        if not outcome.struck:
            return


def run(operation: Callable[..., Any], root: Path, given: Any, *, fault: Fault, at: int) -> Outcome:
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_operate, args=(sender, operation, root, given, fault, at))
    process.start()
    sender.close()
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        outcome = Outcome(killed=True, struck=True)
    process.join()
    receiver.close()
    assert process.exitcode == (-signal.SIGKILL if outcome.killed else 0)
    return outcome


def _operate(sender: Connection, operation: Callable[..., Any], root: Path, given: Any, fault: Fault, at: int) -> None:
    struck = _arm(root, fault, at)
    value, raised = None, None
    try:
        value = operation(root, given)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        raised = error
    was_struck, struck[:] = bool(struck), [disarmed]
    sender.send(Outcome(error=raised, value=value, struck=was_struck))


disarmed = "disarmed"


def _arm(root: Path, fault: Fault, at: int) -> list[str]:
    """Let the fault come with the call; what is given has an entry from then on."""
    struck: list[str] = []
    calls = itertools.count(1)
    real_fsync, here = os.fsync, threading.get_ident()

    def strike(call: str, *, creates: bool, changes: bool) -> None:
        is_meant = {"kill": changes, "one EIO": True, "full disk": creates}[fault]
        if disarmed in struck or not is_meant or threading.get_ident() != here:
            return
        if next(calls) == at:
            struck.append(call)
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "one EIO":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        if struck and fault == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        if not (event == "open" or event in CHANGES) or not str(arguments[0]).startswith(str(root)):
            return
        creates = bool(arguments[2] & os.O_CREAT) if event == "open" else event in ("os.link", "os.mkdir")
        strike(event, creates=creates, changes=creates or event in CHANGES)

    def fsync(fd: int) -> None:
        strike("fsync", creates=True, changes=True)
        real_fsync(fd)

    sys.addaudithook(on_event)
    os.fsync = fsync
    return struck
