"""The worker: claim a job, start its child process, watch it, record how it ended. It survives whatever a child does.

    claim -> start -> watch --- exits -----------------------------> settle: end, or queue again
                        |------ timeout, cancel, stop: SIGTERM, then SIGKILL after a grace period

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Outcome, Progress, Result, now
from pipeline.jobfile import frozen
from pipeline.queue import checks, repair
from pipeline.queue.job_queue import Claim, Queue
from pipeline.queue.live_workers import new_name
from pipeline.stop import ASKED, Stop
from pipeline.worker.background_reports import Reports
from pipeline.worker.child import Child, child_environment
from pipeline.worker.gpus import Gpus, Place, visible_gpus

TICK_S = 0.2
REPAIR_EVERY_S = 5.0
BEAT_EVERY_S = 2.0
COMPLAIN_EVERY_S = 60.0
LOG_CHUNK_BYTES = 1024 * 1024
KILLED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Display(Protocol):
    """Where the worker tells people what happens."""

    def say(self, line: str) -> None: ...

    def log_line(self, job_id: str, line: str) -> None: ...

    def progress(self, jobs: list[tuple[str, Progress]]) -> None: ...


@dataclass
class Worker:
    home: Home
    display: Display
    slots: int = 1
    drain: bool = False
    stop: Stop = field(default_factory=Stop)
    on_tick: Callable[[], None] = lambda: None
    name: str = field(default_factory=new_name)
    children: list[Child] = field(default_factory=list)
    num_unsuccessful: int = 0  # jobs that ended here, but not well

    def __post_init__(self) -> None:
        self.queue = Queue(self.home)
        self.reports = Reports(self.home, self.display.say)
        self.gpus = Gpus(self.queue.paths, tuple(visible_gpus()))
        self._repaired_at = time.monotonic()
        self._beaten_at = 0.0
        self._complaints: dict[str, float] = {}

    def run(self) -> None:
        """Work until asked to stop or, with `drain`, until nothing waits. Running jobs are queued again."""
        self.queue.create()
        lease = self.lease_a_name()
        try:
            for check in checks.check_home(self.home):
                if check.verdict != "ok" and check.name != "workers":
                    self.display.say(f"{check.verdict}: {check.name}: {check.text}")
            for line in self.repair_by(repair.repair):
                self.display.say(f"repaired: {line}")
            while not self.is_done():
                self.tick()
                self.beat(lease)
                time.sleep(TICK_S)
        finally:
            for child in self.children:
                child.kill()
            lease.release()
        self.reports.finish(is_stopped=bool(self.stop.why))

    def lease_a_name(self) -> Lease:
        """Show that this worker lives. Raises QueueError where files cannot be locked."""
        try:
            while (lease := Lease.acquire(self.queue.paths.worker_lease(self.name))) is None:
                self.name = new_name()  # somebody is looking whether it is held, and is in the way
        except OSError as error:
            where = self.queue.paths.leases
            raise QueueError(f"{where}: files cannot be locked here, so no worker can run: {error}") from None
        return lease

    def beat(self, lease: Lease) -> None:
        """Show that the loop goes round, to whoever asks for this worker's health."""
        if time.monotonic() > self._beaten_at + BEAT_EVERY_S:
            self._beaten_at = time.monotonic()
            with contextlib.suppress(OSError):
                lease.touch()

    def is_done(self) -> bool:
        if self.children:
            return False
        return bool(self.stop.why) or (self.drain and self.queue.is_drained())

    def tick(self) -> None:
        with self.trying_again("the queue"):
            if self.queue.paths.stop_request(self.name).exists():
                self.stop.request(ASKED)
        if self.stop.why and self.children:
            self.complain(
                "stopping: running jobs are saved and go on later; asked once more, it does not wait for that"
            )
        for child in list(self.children):
            with self.trying_again(child.id):
                self.watch(child)
        with self.trying_again("the queue"):
            self.fill_slots()
        with self.trying_again("repair"):
            self.repair()
        self.reports.tick()
        with self.trying_again("the display"):
            self.display.progress([(child.id, p) for child in self.children if (p := self.progress(child))])
            self.on_tick()

    def fill_slots(self) -> None:
        while not self.stop.why and len(self.children) < self.slots:
            claim = self.queue.claim(self.name)
            if claim is None:
                break
            self.start(claim)

    def repair(self) -> None:
        if time.monotonic() - self._repaired_at > REPAIR_EVERY_S:
            self._repaired_at = time.monotonic()
            self.queue.create()
            for line in self.repair_by(repair.repair_running):
                self.complain(line)

    def repair_by(self, method: Callable[[Queue], list[str]]) -> list[str]:
        """Repair, and have a report written of each job that ends by it. What was done, in words."""
        running = self.queue.tickets.ids("running")
        lines = method(self.queue)
        for job_id in running:
            if self.queue.tickets.state(job_id) not in ("pending", "running", None):
                self.reports.ask(job_id)
        return lines

    @contextlib.contextmanager
    def trying_again(self, what: str) -> Iterator[None]:
        """For what a full disk, say, may refuse now and allow with a later tick: nothing is given up for it."""
        try:
            yield
        except (OSError, QueueError) as error:
            self.complain(f"{what}: does not work right now: {error}")

    def complain(self, line: str) -> None:
        """Say what may come again with every tick, once a minute."""
        if time.monotonic() > self._complaints.get(line, 0):
            self._complaints[line] = time.monotonic() + COMPLAIN_EVERY_S
            self.display.say(line)

    def progress(self, child: Child) -> Progress | None:
        progress = Progress.read(self.home.run(child.id).progress)
        return progress if progress and progress.attempt == child.claim.attempts.number else None

    def start(self, claim: Claim) -> None:
        """Start the job's next attempt. Raises OSError; then the claim is given back, or the next repair does it."""
        run, number = self.home.run(claim.id), claim.attempts.number
        fds: list[int] = []
        place: Place | None = None
        try:
            fds += os.pipe()
            spec = claim.ticket.validated()
            place = self.gpus.take(spec.resources.device)
            frozen.save(run, spec)
            before = Progress.read(run.progress) or Progress(number)
            durable.replace_json(run.progress, dataclasses.replace(before, attempt=number, note="starting").to_json())
            with run.log(number).open("ab") as log:
                reader = run.log(number).open("rb")  # before the child is there: nothing may fail after that
                try:
                    process = self.spawn(claim, log, fds[0], place)
                except BaseException:
                    reader.close()
                    raise
            self.children.append(Child(claim, process, fds.pop(), reader, spec.resources.timeout, place))
        except BaseException as error:
            if place is not None:
                place.lease.release()
            self.give_back(claim, str(error))
            raise
        finally:
            for fd in fds:
                os.close(fd)
        self.display.say(f"{claim.id}: attempt {number} starts" + (f" on {place.gpu}" if place else ""))

    def spawn(self, claim: Claim, log: BinaryIO, alive_fd: int, place: Place | None) -> subprocess.Popen[bytes]:
        gpu_fds = () if place is None else (place.lease.fd,)
        return subprocess.Popen(
            self.command(claim, alive_fd),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(claim.lease.fd, alive_fd, *gpu_fds),
            env=child_environment(self.slots) | ({} if place is None else place.environment),
        )

    def give_back(self, claim: Claim, why: str) -> None:
        with contextlib.suppress(OSError):
            why = f"could not be started: {why}"
            self.queue.settle(claim, Result(claim.attempts.number, "interrupted", why))
        self.queue.pass_over(claim.id)
        claim.lease.release()

    def command(self, claim: Claim, alive_fd: int) -> list[str]:
        arguments = [str(self.home.root), claim.id, str(claim.attempts.number), "--alive", str(alive_fd)]
        return [sys.executable, "-P", "-m", "pipeline.training.attempt", *arguments]  # -P: not from here

    def watch(self, child: Child) -> None:
        """Raises OSError; then the lease stays held, so that nobody else runs it, and the next tick tries it again."""
        self.pass_on_log(child)
        status = child.exit_status()
        if status is None:
            left = Result.read(self.home.run(child.id).result)
            if left is not None and left.attempt == child.claim.attempts.number:
                child.leave_soon()
            self.stop_if_asked(child)
            return
        self.pass_on_log(child, to_the_end=True)
        if self.stop.why and child.asked is None:  # whoever asked this process may have asked the child as well
            child.asked = "interrupted"
        child.result = child.result or self.judge(child, status)
        child.result.write(self.home.run(child.id).result)
        state = self.queue.settle(child.claim, child.result)
        self.children.remove(child)
        child.close()
        self.num_unsuccessful += state in ("failed", "cancelled")
        self.display.say(f"{child.id}: {child.result.outcome}: {child.result.why}" + _and_now(state))
        if state != "pending":
            self.reports.ask(child.id)

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
        """Wait for neither checkpoints nor reports any longer; jobs go on from the last checkpoint that was written."""
        for child in self.children:
            child.ask_to_stop("interrupted")
            child.kill_at = 0.0
        self.reports.abandon()

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
        outcome: Outcome = "lost" if -status in KILLED_FROM_OUTSIDE else "failed"
        if status == -signal.SIGKILL:
            why = "the training process was killed (SIGKILL); often that is the kernel, out of memory"
        elif status < 0:
            why = f"the training process was ended by a signal ({signal.strsignal(-status) or -status}); see the log"
        else:
            why = f"the training process left with exit code {status} and no result; see the log"
        return Result(number, outcome, why, p.epoch, p.epochs, p.step, p.metrics, finished_at=now())

    def pass_on_log(self, child: Child, *, to_the_end: bool = False) -> None:
        """What the child wrote since the last look: whole lines, and a chunk at most unless all of it is wanted."""
        while text := child.log.read(LOG_CHUNK_BYTES):
            is_full = to_the_end or (len(text) == LOG_CHUNK_BYTES and b"\n" not in text)
            whole = len(text) if is_full else text.rfind(b"\n") + 1
            child.log.seek(whole - len(text), os.SEEK_CUR)
            for line in text[:whole].decode("utf-8", "replace").splitlines():
                self.display.log_line(child.id, line)
            if not to_the_end:
                break


def _why(child: Child, left: Result) -> str:
    if child.asked == "timed_out":
        return f"ran longer than resources.timeout, {child.timeout_s:g} s; `retry` goes on from its last checkpoint"
    if child.asked == "cancelled":
        return f"cancelled at step {left.step}" if left.step else "cancelled"
    return left.why if left.outcome == "interrupted" else "asked to stop; goes on from its last checkpoint"


def _and_now(state: str) -> str:
    return "; queued again" if state == "pending" else ""
