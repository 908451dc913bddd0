"""Attempts as processes on this machine.

An attempt runs in a session of its own. It holds its job's lease, so that the job is never started a second time while
it lives, and the read end of a pipe whose end of file tells it that its worker is dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pipeline.home.paths import Home
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.worker.executors import memory
from pipeline.worker.executors.log_reader import LogReader, open_log
from pipeline.worker.gpus import GpuLease, Gpus

KEEP_FREED_MEMORY = ":".join(  # as glibc reads GLIBC_TUNABLES when a process starts; bytes
    (
        "glibc.malloc.mmap_threshold=1073741824",
        "glibc.malloc.trim_threshold=2000000000",
        "glibc.malloc.top_pad=67108864",
    )
)


ATTEMPT, SWEEP_ATTEMPT = "pipeline.training.attempt", "pipeline.search.attempt"


@dataclass
class LocalExecutor:
    """slots: attempts that may run side by side; with those of other workers they share the processors."""

    home: Home
    slots: int = 1
    name: str = "local"
    cluster: str = ""
    gpus: Gpus = field(init=False)

    def __post_init__(self) -> None:
        self.gpus = Gpus.here(self.home.queue)

    def record(self, claim: Claim) -> dict[str, Any]:
        return {"executor": self.name, "handle": self.handle(claim.id)}

    def handle(self, job_id: str) -> dict[str, Any]:
        return {"lease": self.home.queue.lease(job_id).name}

    def tick(self) -> None:
        """There is nothing to say."""

    def take_up(self, claim: Claim) -> NoReturn:
        """One that lives holds its job's lease, so that nobody is handed a claim to it."""
        raise AssertionError(claim.id)

    def close(self) -> None:
        """There is nothing to let go of."""

    def start(self, claim: Claim) -> LocalAttempt:
        fds: list[int] = []
        gpu: GpuLease | None = None
        log_path = self.home.run(claim.id).log(claim.attempts.number)
        try:
            fds += os.pipe()
            gpu = None if claim.is_sweep else self.gpus.take(claim.resources.device)
            with contextlib.ExitStack() as stack:
                log = stack.enter_context(open_log(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab"))
                reader = LogReader(log_path, keeps_small=True)
                stack.callback(reader.close)
                reader.open()  # first: nothing may fail once the process is there
                process = self._spawn(claim, log, fds[0], gpu)
                stack.pop_all()
            log.close()
            handle = self.handle(claim.id) | ({} if gpu is None else gpu.handle)
            return LocalAttempt(process, fds.pop(), reader, handle, gpu)
        except BaseException:
            if gpu is not None:
                gpu.lease.release()
            raise
        finally:
            for fd in fds:
                os.close(fd)

    def _spawn(self, claim: Claim, log: BinaryIO, alive_fd: int, gpu: GpuLease | None) -> subprocess.Popen[bytes]:
        gpu_fds = () if gpu is None else (gpu.lease.fd,)
        return subprocess.Popen(
            self.command(claim, alive_fd),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(claim.lease.fd, alive_fd, *gpu_fds),
            env=child_environment(self.num_beside(claim)) | ({} if gpu is None else gpu.environment),
        )

    def num_beside(self, claim: Claim) -> int:
        """How many attempts may run side by side: a home is on one machine, and so are all its workers.

        For a deterministic job only those of this worker: by the number of threads, the last bits are others.
        """
        if claim.spec is not None and claim.spec.train.deterministic:
            return self.slots
        return self.slots * max(1, len(Queue(self.home).live_workers()))

    def command(self, claim: Claim, alive_fd: int) -> list[str]:
        """The command line that worker and attempt share."""
        return [*attempt_command(self.home, claim), "--alive", str(alive_fd)]


@dataclass
class LocalAttempt:
    """A process. Its worker alone may signal it, which is safe until it has been waited for."""

    process: subprocess.Popen[bytes]
    alive_fd: int  # write end of the pipe whose end of file tells the process that this one is dead
    log: LogReader
    handle: dict[str, Any]
    gpu: GpuLease | None = None
    outlives_worker: bool = False
    started_at: float | None = field(default_factory=time.monotonic)

    def poll(self) -> int | None:
        """Returns the exit status as Popen does; what the process leaves behind in its session is killed first."""
        if self.process.returncode is None:
            if not self._has_exited():
                return None
            self.kill()
            self.process.wait()
        return self.process.returncode

    def _has_exited(self) -> bool:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13: what it leaves behind in its session is not killed
            return self.process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else has waited for it
            return True

    def ask_to_stop(self) -> None:
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGTERM)  # Popen's send_signal might reap it unseen

    def kill(self) -> None:
        """Kill the process and all of its session, in whatever process groups they are."""
        if self.process.returncode is None:  # else its number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only a zombie is left
                os.killpg(self.process.pid, signal.SIGKILL)
            kill_session(self.process.pid)

    def read_log(self, *, to_the_end: bool = False) -> list[str]:
        return self.log.read(to_the_end=to_the_end)

    @property
    def end(self) -> None:
        """Its exit status says all that is known of its end."""

    @property
    def waits_for(self) -> str:
        return ""

    @property
    def has_run(self) -> bool:
        return True

    def used_bytes(self, limit: int) -> int:
        return memory.used_bytes(_members(self.process.pid), limit) if self.process.returncode is None else 0

    def describe(self) -> str:
        return f"on {self.gpu.gpu}" if self.gpu else ""

    def close(self) -> None:
        os.close(self.alive_fd)
        self.log.close()
        if self.gpu is not None:
            self.gpu.lease.release()


def kill_session(session: int) -> None:
    """Kill what lives of a session, until nobody new is found: who is killed may have just started another."""
    killed: set[int] = set()
    while found := set(_members(session)) - killed:
        for process in found:
            _kill(process, session)
        killed |= found


def _members(session: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*"):  # nothing where the system has no such folder
        if _session_of(int(path.name)) == session:
            yield int(path.name)


def _session_of(process: int) -> int | None:
    """The session of a process that lives; None of one that is gone, or is dead and waits to be reaped."""
    try:
        state, _, _, session = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(session)


def _kill(process: int, session: int) -> None:
    """Kills by a descriptor, so that a number that has just become somebody else's harms nobody."""
    with contextlib.suppress(OSError):  # it is gone
        fd = os.pidfd_open(process)
        try:
            if _session_of(process) == session:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def attempt_command(home: Home, claim: Claim) -> list[str]:
    """What is run for an attempt, wherever it is."""
    module = SWEEP_ATTEMPT if claim.is_sweep else ATTEMPT
    arguments = [str(home.root), claim.id, str(claim.attempts.number)]
    return [sys.executable, "-P", "-m", module, *arguments]  # -P: not from here


def child_environment(side_by_side: int = 1) -> dict[str, str]:
    """What the user has set, and for the threads of several jobs, or of other programs, to live side by side.

    A thread that waits for another one spins by default; where there are fewer free processors than threads, that
    holds up the very thread that it waits for. With 5,000 turns, two jobs on two processors run 15 times as fast as
    with the default, and one alone 4 % slower at batch 4 (docs/benchmarks.md).

    And glibc's malloc is told to keep what a step frees for the next one. By default it gives large blocks back to the
    kernel, which costs 12 to 70 thousand page faults a step. All three are needed: without the trim threshold 12
    thousand remain. Other allocators and systems take no notice.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, processors // side_by_side) if side_by_side > 1 else None
    return {**attempt_environment(threads), **os.environ}


def attempt_environment(threads: int | None = None) -> dict[str, str]:
    """The part of it that is the same everywhere. threads: that it may compute with; None: all processors."""
    found = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**found, "GOMP_SPINCOUNT": "5000", "GLIBC_TUNABLES": KEEP_FREED_MEMORY}
