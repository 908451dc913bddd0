"""Operations under strace: one call of the system is a kill, or fails, in a process that was forked for it.

The process has imported everything before strace is attached, so that what is counted is the operation alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults

from attack.campaign import CannotAttack

Act = Callable[[], Any]
Prepare = Callable[..., Act]  # in the process, before strace looks: gives what is then done

CREATES = ("kill", "ENOSPC", "EIO", "EACCES")
FAULTS: dict[str, tuple[str, ...]] = {
    "openat": ("kill", "EACCES", "EMFILE", "EIO", "ENOSPC"),
    "write": ("kill", "ENOSPC", "EIO"),
    "fsync": ("kill", "EIO", "ENOSPC"),
    "rename": CREATES,
    "link": CREATES,
    "mkdir": CREATES,
    "unlink": ("kill", "EIO", "EACCES"),
    "rmdir": ("kill", "EIO", "EACCES"),
    "ftruncate": ("kill", "EIO", "ENOSPC"),
    "flock": ("kill", "EIO"),
    "utimensat": ("kill", "EACCES"),
    "getdents64": ("EIO",),
}
ALSO_CALLED = {"renameat": "rename", "renameat2": "rename", "linkat": "link", "unlinkat": "unlink", "mkdirat": "mkdir"}
NAMES = (*FAULTS, *ALSO_CALLED)
ATTACH_S = 20.0
PR_SET_PTRACER = 0x59616D61


@dataclass(frozen=True)
class Fault:
    """At the n-th such call; `onwards` at all that follow too."""

    call: str
    kind: str  # `kill`, or the error's name
    n: int
    onwards: bool = False

    def __str__(self) -> str:
        return f"{self.kind} at {self.call} {self.n}{' and all later ones' if self.onwards else ''}"

    def option(self) -> str:
        what = "signal=KILL" if self.kind == "kill" else f"error={self.kind}"
        return f"inject={self.call}:{what}:when={self.n}{'+' if self.onwards else ''}"


@dataclass(frozen=True)
class Outcome:
    """What the process had to say: a value, or an error; neither where it was killed."""

    value: Any = None
    error: str = ""
    is_expected: bool = True  # whether the error is one that the program means to raise
    killed: bool = False
    struck: bool = False  # whether there was an n-th such call at all
    calls: Counter[str] = field(default_factory=Counter)


def find_strace() -> str:
    if (path := shutil.which("strace")) is None:
        raise CannotAttack("strace is not installed")
    return path


def faults_for(calls: Counter[str]) -> Iterator[Fault]:
    """Every fault at every call of an undisturbed run; and a disk that is full from some call on."""
    for call, count in sorted(calls.items()):
        for n in range(1, count + 1):
            for kind in FAULTS[ALSO_CALLED.get(call, call)]:
                yield Fault(call, kind, n)
            if call in ("write", "fsync"):
                yield Fault(call, "ENOSPC", n, onwards=True)


def run(
    prepare: Prepare, *arguments: Any, fault: Fault | None = None, follow: bool = True, timeout_s: float = 60
) -> Outcome:
    """Fork a process, have it prepare, attach strace, let it act. follow: whether its children are meant too."""
    strace, (ours, theirs) = find_strace(), socket.socketpair()
    process = faults.fork.Process(target=_act, args=(theirs, prepare, arguments))
    process.start()
    theirs.close()
    ours.settimeout(timeout_s)
    trace = Path(f"/proc/{os.getpid()}/fd/{(fd := os.memfd_create('trace'))}")
    tracer = None
    try:
        ours.recv(1)
        tracer = _attach([strace, *(["-f"] if follow else [])], process.pid or 0, trace, fault)
        ours.send(b"!")
        answer = _receive(ours)
    except TimeoutError:
        process.kill()
        answer = {"error": f"it hangs: nothing came for {timeout_s:g} s", "is_expected": False}
    finally:
        ours.close()
        process.join()
        if tracer is not None:
            tracer.wait()
        text = trace.read_text(errors="replace")
        os.close(fd)
    killed = process.exitcode == -signal.SIGKILL and not answer
    return Outcome(**answer, killed=killed, struck=killed or "(INJECTED)" in text, calls=counted(text))


def counted(trace: str) -> Counter[str]:
    """How many there were of each call, of the thread that made most: strace counts each thread's for itself."""
    most: Counter[str] = Counter()
    calls = Counter(re.findall(rf"^(\d+ +)?({'|'.join(NAMES)})\(", trace, re.MULTILINE))
    for (_, call), number in calls.items():
        most[call] = max(most[call], number)
    return most


def opened_below(folder: Path, trace: str) -> list[int]:
    """Which calls of openat are about what lies there, of the thread that made most.

    Those of the others have small numbers, by which a fault would strike that thread's imports.
    """
    opened: dict[str, list[str]] = defaultdict(list)
    for thread, path in re.findall(r'^(\d+ +)?openat\([^,]*, "([^"]*)"', trace, re.MULTILINE):
        opened[thread].append(path)
    most = max(opened.values(), key=len)
    return [n for n, path in enumerate(most, 1) if Path(path).is_relative_to(folder)]


def _attach(strace: list[str], pid: int, trace: Path, fault: Fault | None) -> subprocess.Popen[bytes]:
    command = [*strace, "-qq", "-o", str(trace), "-e", "signal=none", "-e", f"trace={','.join(NAMES)}"]
    command += ["-e", fault.option()] if fault else []
    tracer = subprocess.Popen([*command, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + ATTACH_S
    while "\nTracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise CannotAttack("strace cannot attach to a process here")
        time.sleep(0.001)
    return tracer


def _receive(connection: socket.socket) -> dict[str, Any]:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    answer: dict[str, Any] = json.loads(b"".join(parts) or "{}")
    return answer


def _act(connection: socket.socket, prepare: Prepare, arguments: tuple[Any, ...]) -> None:
    """In the process. It answers by `sendto`, which no fault is about."""
    from pipeline.errors import PipelineError

    act = prepare(*arguments)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1))  # else only its parent may trace it, on some systems
    connection.send(b"?")
    connection.recv(1)
    try:
        answer = {"value": act()}
    except Exception as error:  # noqa: BLE001 - whatever it is, the campaign looks at it
        is_expected = isinstance(error, (PipelineError, OSError))
        answer = {"error": f"{type(error).__name__}: {error}", "is_expected": is_expected}
    connection.send(json.dumps(answer).encode())
    os._exit(0)
