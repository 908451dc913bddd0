"""A home with a job in every state and a run that was really trained, of which one file at a time is damaged."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attack import curves, invariants, stand_in
from attack.curves import Curves
from attack.trainings import spec, trainings, unlike
from pipeline.errors import CheckpointError
from pipeline.home.paths import STATES, Home, RunPaths
from pipeline.queue.job_queue import Queue

TRAINED_EPOCHS = 3


@dataclass(frozen=True)
class Damageable:
    """The home that cases are copies of, and the run with what it holds before it is damaged."""

    source: Home
    target: Home
    job_ids: list[str]
    run: RunPaths
    state: dict[str, Any]
    curves: Curves

    @classmethod
    def make(cls, folder: Path) -> Damageable:
        from pipeline.training import checkpoint

        with trainings(folder / "trained") as made:
            trained = Queue(made.home).submit(spec(TRAINED_EPOCHS))
            assert made.drain() == []
            run = made.home.run(trained)
            state = checkpoint.load(run.last)
            assert state is not None
            told = curves.exported(made.home, trained)
        source = Home(folder / "source")
        return cls(source, Home(folder / "target"), stand_in.make_jobs(source), run, state, told)

    def records(self) -> list[Path]:
        """All files of the queue and of the runs in its home, relative to it; leases are empty."""
        files = (path for path in self.source.root.rglob("*") if path.is_file() and path.parent.name != "leases")
        return sorted(path.relative_to(self.source.root) for path in files)

    def copy(self) -> Home:
        shutil.rmtree(self.target.root, ignore_errors=True)
        shutil.copytree(self.source.root, self.target.root)
        return self.target

    def judge_record(self, path: Path, content: bytes) -> list[str]:
        """Give a file of the home that content, and see what becomes of the home."""
        home = self.copy()
        (home.root / path).write_bytes(content)
        damaged = [path.stem] if path.parent.name in STATES else []
        sound = [job_id for job_id in self.job_ids if job_id not in damaged]
        violations = [f"before repair: {line}" for line in invariants.looks(home, sound)]
        violations += stand_in.drain(home)
        return violations + invariants.check(home, self.job_ids, damaged=damaged) + invariants.is_drained(home)

    def judge_checkpoint(self, content: bytes) -> list[str]:
        """A checkpoint that is not what was saved is refused, or is in all that counts what was saved."""
        from pipeline.training import checkpoint

        path = self.target.root / "last.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            state = checkpoint.load(path)
        except CheckpointError:
            return []
        except Exception as error:  # noqa: BLE001 - whatever else it is
            return [f"loading it raises {type(error).__name__}: {error}"]
        return [f"it is loaded, and {where} is not what was saved" for where in unlike(state, self.state)[:1]]

    def judge_events(self, content: bytes) -> list[str]:
        """`export` answers, and has no point that was never written."""
        home = Home(self.target.root / "events")
        shutil.rmtree(home.root, ignore_errors=True)
        folder = home.run(self.run.root.name).root
        folder.mkdir(parents=True)
        shutil.copy(self.run.spec, folder)
        (folder / self.run.events()[0].name).write_bytes(content)
        code, said = invariants.command(home, "export", folder.name)
        if code != 0:
            return [f"`export` does not answer: {said}"]
        found = curves.exported(home, folder.name)
        return [
            f"{tag} is {value} at step {step}, which was never written"
            for tag, points in found.items()
            for step, value in points.items()
            if self.curves.get(tag, {}).get(step) != value
        ][:1]


Judge = Callable[[bytes], list[str]]


def files(damageable: Damageable) -> Iterator[tuple[str, bytes, Judge]]:
    """Each file: what to call it, what it holds, and what judges it with other content."""
    for path in damageable.records():
        content = (damageable.source.root / path).read_bytes()
        yield str(path), content, functools.partial(damageable.judge_record, path)
    yield "last.pt", damageable.run.last.read_bytes(), damageable.judge_checkpoint
    yield "events", damageable.run.events()[0].read_bytes(), damageable.judge_events
