"""A small filesystem that fills and empties while jobs are submitted, claimed, saved, settled, cancelled, retried."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quick import quick_spec

from attack import invariants, stand_in
from attack.campaign import CannotAttack, Case, Scale
from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.queue import repair
from pipeline.queue.claims import Claim

SIZE = "512k"
PAGE = 4096
MOVES = 40  # on one disk; then it is emptied, and the queue drained


@contextlib.contextmanager
def mounted(folder: Path, size: str = SIZE) -> Iterator[Path]:
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        raise CannotAttack("a small filesystem cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass
class SmallDisk:
    """A queue on a disk with room for some hundred pages, and what was told of it."""

    disk: Path
    chance: random.Random
    told: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.home = Home(self.disk / "home")
        self.queue = stand_in.queue_at(self.home)

    def leave_free(self, pages: int) -> None:
        """Let other files take all but so many pages."""
        ballast = self.disk / "ballast"
        with ballast.open("ab", buffering=0) as file:
            file.truncate(0)
            with contextlib.suppress(OSError):
                while shutil.disk_usage(self.disk).free > pages * PAGE:
                    file.write(bytes(PAGE))

    def submit(self) -> None:
        self.told += self.queue.submit_all([quick_spec(resources={"retries": 100})] * self.chance.randint(1, 3))

    def claim(self) -> None:
        for path in self.queue.paths.control.glob("*.wait"):
            path.unlink()
        claim = self.queue.claim("worker")
        if isinstance(claim, Claim):
            self.claims.append(claim)

    def settle(self) -> None:
        """As a worker does: where it cannot be recorded, the claim stays in its hands."""
        if self.claims:
            claim = self.chance.choice(self.claims)
            outcome = self.chance.choice(["succeeded", "failed", "lost", "interrupted"])
            self.queue.settle(claim, Result(claim.attempts.number, outcome, "because"), lacked_room=True)
            self.claims.remove(claim)
            claim.lease.release()

    def die(self) -> None:
        """The worker is killed, with all attempts."""
        for claim in self.claims:
            claim.lease.release()
        self.claims.clear()

    def cancel(self) -> None:
        if self.told:
            job_id = self.chance.choice(self.told)
            if repair.cancel(self.queue, job_id) == "cancelled":
                self.cancelled.add(job_id)

    def retry(self) -> None:
        if self.told:
            job_id = self.chance.choice(self.told)
            repair.retry(self.queue, job_id)
            self.cancelled.discard(job_id)

    def repair(self) -> None:
        repair.repair(self.queue)

    def save(self) -> None:
        if self.told:
            run = self.home.run(self.chance.choice(self.told))
            durable.make_folder(run.root)
            durable.replace_json(run.progress, {"attempt": 1, "note": "x" * self.chance.randint(1, 9000)})

    def move(self) -> Case:
        """One thing that somebody does, with little room or none."""
        pages, name = self.chance.choice([0, 0, 1, 2, 3, 5, 8, 50]), self.chance.choice(MOVE_NAMES)
        self.leave_free(pages)
        violations = []
        try:
            getattr(self, name)()
        except (OSError, QueueError):
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a violation
            violations.append(f"{type(error).__name__}: {error}")
        violations += invariants.looks(self.home, self.told)
        return Case(f"{name} with {pages} pages free", tuple(violations))

    def finish(self) -> Case:
        """The disk is emptied, and the next worker does all that is left."""
        self.die()
        (self.disk / "ballast").unlink()
        violations = [*stand_in.drain(self.home), *invariants.check(self.home, self.told)]
        violations += invariants.is_drained(self.home)
        states = {job_id: self.queue.tickets.state(job_id) for job_id in self.cancelled}
        violations += [
            f"{job_id} was told to be cancelled, and is {s}" for job_id, s in states.items() if s != "cancelled"
        ]
        return Case("after all moves", tuple(violations))


MOVE_NAMES = ("submit", "claim", "claim", "settle", "settle", "die", "cancel", "retry", "repair", "save")


def attack(scale: Scale) -> Iterator[Case]:
    chance = random.Random(scale.seed)
    for number in range(max(1, scale.cases // MOVES)):
        with mounted(scale.folder / f"disk-{number}") as disk:
            small = SmallDisk(disk, chance)
            for _ in range(MOVES):
                yield small.move()
            yield small.finish()
