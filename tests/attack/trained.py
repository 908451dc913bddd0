"""A home with a job in every state and one that was really trained, on which commands and checkpoints are tried."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

from quick import quick_spec

from attack import apart, stand_in
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Result
from pipeline.jobfile import frozen
from pipeline.queue.claims import Claim

TRAINS_S = 120.0
MEMORY_BYTES = 3 * 1024**3  # of addresses; PyTorch's threads take most of them


@dataclass(frozen=True)
class Trained:
    """`target` is a copy of `source` for each case. job_id: of the trained one; `others` have no checkpoints."""

    source: Home
    target: Home
    job_id: str
    others: list[str]

    @classmethod
    def make(cls, folder: Path) -> Trained:
        home = Home(folder / "source")
        queue = stand_in.queue_at(home)
        spec = quick_spec("trained", epochs=2)
        job_id = queue.submit(spec)
        claim = queue.claim("trainer")
        assert isinstance(claim, Claim)
        frozen.save(home.run(job_id), spec)
        result, why = train(home, job_id, 1)
        assert result is not None, why
        queue.settle(claim, result)
        claim.lease.release()
        return cls(home, Home(folder / "target"), job_id, stand_in.make_jobs(home))

    def copy(self) -> Home:
        shutil.rmtree(self.target.root, ignore_errors=True)
        shutil.copytree(self.source.root, self.target.root, symlinks=True)
        return self.target

    def leave_one(self) -> None:
        """Take all other jobs out of the copy."""
        for job_id in self.others:
            for path in self.target.root.rglob(f"{job_id}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    @property
    def run(self) -> RunPaths:
        return self.target.run(self.job_id)


def train(home: Home, job_id: str, number: int) -> tuple[Result | None, list[str]]:
    """What an attempt leaves, its log in the run; and what was violated where it comes to no end."""
    return apart.call(_train, home, job_id, number, hangs_s=TRAINS_S, memory_bytes=MEMORY_BYTES)


def _train(home: Home, job_id: str, number: int) -> Result:
    from pipeline.stop import Stop
    from pipeline.training.attempt import Attempt

    warnings.simplefilter("ignore", UserWarning)  # of torch, about files that it refuses then
    with home.run(job_id).log(number).open("a", errors="backslashreplace") as log:
        return Attempt(home, job_id, number, Stop(), lambda line: print(line, file=log)).execute()
