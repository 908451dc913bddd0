"""The worker: claim a job, start its child process, watch it, record how it ended. It survives whatever a child does.

    claim -> start -> watch --- exits -----------------------------> settle: end, or queue again
                        |------ timeout, cancel, stop: SIGTERM, then SIGKILL after a grace period

A child runs in a session of its own, holds the job's lease with its worker, and sees the worker's death as the end of a
pipe. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from pipeline import doctor, durable, repair
from pipeline.errors import QueueError
from pipeline.jobqueue import Claim, Queue
from pipeline.lease import Lease
from pipeline.paths import Home, RunPaths
from pipeline.records import Outcome, Progress, Result, now
from pipeline.run import save_spec
from pipeline.stop import Stop

TICK_S = 0.2
REPAIR_EVERY_S = 5.0
GRACE_S = 30.0  # to write a checkpoint; below the grace period that Compose gives the worker


class Display(Protocol):
    """Where the worker tells people what happens."""

    def say(self, line: str) -> None: ...

    def log_line(self, job_id: str, line: str) -> None: ...

    def progress(self, jobs: list[tuple[str, Progress]]) -> None: ...


@dataclass
class Child:
    """A training process. Its worker alone may signal it, which is safe until it has been waited for."""

    claim: Claim
    process: subprocess.Popen[bytes]
    alive_fd: int  # write end of the pipe whose end of file tells the child that this process is dead
    log: BinaryIO  # what the child writes, read behind it
    timeout_s: float | None
    started_at: float = field(default_factory=time.monotonic)
    asked: Outcome | None = None  # what it was asked to stop for
    kill_at: float | None = None
    result: Result | None = None  # how it ended, while that could not be recorded yet

    @property
    def id(self) -> str:
        return self.claim.id

    def ask_to_stop(self, outcome: Outcome) -> None:
        if self.asked is None:
            self.asked, self.kill_at = outcome, time.monotonic() + GRACE_S
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """The child and whatever it has started in its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def exit_status(self) -> int | None:
        """As Popen's; None while it runs. What it leaves behind in its session is killed before it is reaped."""
        if self.process.returncode is None:
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self.kill()
            self.process.wait()
        return self.process.returncode

    def close(self) -> None:
        os.close(self.alive_fd)
        self.log.close()
        self.claim.lease.release()


@dataclass
class Worker:
    home: Home
    display: Display
    slots: int = 1
    drain: bool = False
    stop: Stop = field(default_factory=Stop)
    on_tick: Callable[[], None] = lambda: None
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    children: list[Child] = field(default_factory=list)
    num_unsuccessful: int = 0  # jobs that ended here, but not well

    def __post_init__(self) -> None:
        self.queue = Queue(self.home)
        self._repaired_at = time.monotonic()

    def run(self) -> None:
        """Work until asked to stop or, with `drain`, until nothing waits. Running jobs are queued again."""
        self.queue.create()
        lease = Lease.acquire(self.queue.paths.worker_lease(self.name))
        if lease is None:
            raise QueueError(f"{self.queue.paths.leases}: cannot lock a file here, so no worker can run")
        try:
            for check in doctor.check_home(self.home):
                if check.verdict != "ok" and check.name != "workers":
                    self.display.say(f"{check.verdict}: {check.name}: {check.text}")
            for line in repair.repair(self.queue):
                self.display.say(f"repaired: {line}")
            while not self.is_done():
                self.tick()
                time.sleep(TICK_S)
        finally:
            for child in self.children:
                child.kill()
            lease.release()

    def is_done(self) -> bool:
        if self.children:
            return False
        return bool(self.stop.why) or (self.drain and self.queue.is_drained())

    def tick(self) -> None:
        for child in list(self.children):
            self.watch(child)
        try:
            while not self.stop.why and len(self.children) < self.slots:
                claim = self.queue.claim(self.name)
                if claim is None:
                    break
                self.start(claim)
            if time.monotonic() - self._repaired_at > REPAIR_EVERY_S:
                self._repaired_at = time.monotonic()
                for line in repair.repair_running(self.queue):
                    self.display.say(line)
        except OSError as error:  # a full disk, say: the queue is as it was, and the next look may find room
            self.display.say(f"the queue cannot be used right now: {error}")
        self.display.progress([(child.id, p) for child in self.children if (p := self.progress(child))])
        self.on_tick()

    def progress(self, child: Child) -> Progress | None:
        progress = Progress.read(self.home.run(child.id).progress)
        return progress if progress and progress.attempt == child.claim.attempts.number else None

    def start(self, claim: Claim) -> None:
        """Start the job's next attempt. Raises OSError; then the claim is given back by the next repair."""
        run, number = self.home.run(claim.id), claim.attempts.number
        read_fd, alive_fd = os.pipe()
        try:
            spec = claim.ticket.validated()
            save_spec(run, spec)
            durable.replace_json(run.progress, Progress(number, note="starting").to_json())
            with run.log(number).open("ab") as log:
                process = subprocess.Popen(
                    self.command(claim, read_fd),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(claim.lease.fd, read_fd),
                    env=self.environment(),
                )
            child = Child(claim, process, alive_fd, run.log(number).open("rb"), spec.resources.timeout)
        except BaseException:
            os.close(alive_fd)
            claim.lease.release()
            raise
        finally:
            os.close(read_fd)
        self.children.append(child)
        self.display.say(f"{claim.id}: attempt {number} starts")

    def command(self, claim: Claim, alive_fd: int) -> list[str]:
        arguments = [str(self.home.root), claim.id, str(claim.attempts.number), "--alive", str(alive_fd)]
        return [sys.executable, "-m", "pipeline.run", *arguments]

    def environment(self) -> dict[str, str]:
        """Several slots share the processors, unless the user has said how many threads a job gets."""
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.slots))} if self.slots > 1 else {}
        return {**threads, **os.environ}

    def watch(self, child: Child) -> None:
        self.pass_on_log(child)
        if child.result is None:
            status = child.exit_status()
            if status is None:
                self.stop_if_asked(child)
                return
            self.pass_on_log(child)
            child.result = self.judge(child, status)
        try:
            child.result.write(self.home.run(child.id).result)
            state = self.queue.settle(child.claim, child.result)
        except OSError as error:
            self.display.say(f"{child.id}: how it ended cannot be recorded yet: {error}")
            return  # the lease stays held, so that nobody else runs it; tried again with the next tick
        self.children.remove(child)
        child.close()
        self.num_unsuccessful += state in ("failed", "cancelled")
        self.display.say(f"{child.id}: {child.result.outcome}: {child.result.why}" + _and_now(state))

    def stop_if_asked(self, child: Child) -> None:
        elapsed_s = time.monotonic() - child.started_at
        if self.stop.why:
            child.ask_to_stop("interrupted")
        elif self.queue.is_cancel_requested(child.id):
            child.ask_to_stop("cancelled")
        elif child.timeout_s is not None and elapsed_s > child.timeout_s:
            child.ask_to_stop("timed_out")
        if child.kill_at is not None and time.monotonic() > child.kill_at:
            child.kill()

    def kill_all(self) -> None:
        """Do not wait for checkpoints any longer; jobs go on from the last one that was written."""
        for child in self.children:
            child.ask_to_stop("interrupted")
            child.kill_at = 0.0

    def judge(self, child: Child, status: int) -> Result:
        """How the attempt ended: by what the child recorded, by why it was stopped, by its exit status."""
        run, number = self.home.run(child.id), child.claim.attempts.number
        left = Result.read(run.result)
        if left is not None and left.attempt == number:
            if child.asked is None or left.outcome in ("succeeded", "failed"):
                return left
        else:
            left = self.without_result(run, number, status)
        if child.asked is None:
            return left
        return dataclasses.replace(left, outcome=child.asked, why=_why(child, left))

    def without_result(self, run: RunPaths, number: int, status: int) -> Result:
        p = Progress.read(run.progress) or Progress(number)
        outcome: Outcome = "lost" if status == -signal.SIGKILL else "failed"
        if outcome == "lost":
            why = "the training process was killed (SIGKILL); often that is the kernel, out of memory"
        elif status < 0:
            why = f"the training process crashed ({signal.Signals(-status).name}); see the log"
        else:
            why = f"the training process left with exit code {status} and no result; see the log"
        return Result(number, outcome, why, p.epoch, p.epochs, p.step, p.metrics, finished_at=now())

    def pass_on_log(self, child: Child) -> None:
        """What the child wrote since the last look, whole lines."""
        position = child.log.tell()
        text = child.log.read()
        whole = text.rfind(b"\n") + 1
        child.log.seek(position + whole)
        for line in text[:whole].decode("utf-8", "replace").splitlines():
            self.display.log_line(child.id, line)


def _why(child: Child, left: Result) -> str:
    if child.asked == "timed_out":
        return f"ran longer than resources.timeout, {child.timeout_s:g} s; `retry` goes on from its last checkpoint"
    if child.asked == "cancelled":
        return f"cancelled at step {left.step}" if left.step else "cancelled"
    return left.why if left.outcome == "interrupted" else "asked to stop; goes on from its last checkpoint"


def _and_now(state: str) -> str:
    return "; queued again" if state == "pending" else ""
