"""What does not belong there, of every kind, at every name that the program looks at: in the queue and in runs.

`status`, `show` and a worker run in a process that is killed if it hangs, as at a pipe that nobody writes to. The job
whose name was taken may wait for somebody to clear it away; all others end, and the worker leaves.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from attack import apart, invariants, stand_in, worker_calls
from attack.campaign import Case, Scale
from pipeline.home.paths import STATES, Home

HUGE = 20 * 1024**2
FOREIGN_ID = "foreign-20260101T000000000000Z-0000ff"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o644)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("{}")


def dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def loop_link(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_folder(path: Path) -> None:
    path.symlink_to("/")


def unreadable(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


def binary(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(5000))


def empty(path: Path) -> None:
    path.touch()


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def number(path: Path) -> None:
    path.write_text("1e999")


def strange_record(path: Path) -> None:
    path.write_text('{"entries":[{}],"attempt":-1,"outcome":"succeeded","why":"","until":"soon","id":null,"spec":[]}')


KINDS: tuple[Callable[[Path], None], ...] = (
    fifo,
    unix_socket,
    folder,
    dangling_link,
    loop_link,
    link_to_device,
    link_to_folder,
    unreadable,
    huge,
    binary,
    empty,
    deep,
    number,
    strange_record,
)


def places(home: Home, job_ids: list[str]) -> Iterator[Path]:
    """Every name that is looked at, of jobs in each state and of nobody, relative to the home."""
    paths = home.queue
    for name in (f"{FOREIGN_ID}.json", "README", "\udcff\n", ".hidden.tmp", "x" * 255):
        yield from (paths.state(state) / name for state in STATES)
    yield from (paths.tmp / "x", paths.leases / FOREIGN_ID, paths.leases / ".worker-x", paths.quarantine / "x.why")
    yield from (paths.control / name for name in (".worker-x.stop", f"{FOREIGN_ID}.wait", f"{FOREIGN_ID}.cancel"))
    yield from (home.runs / FOREIGN_ID, home.runs / "README", paths.jobs / FOREIGN_ID)
    for job_id in job_ids:
        state = next(state for state in STATES if paths.ticket(state, job_id).exists())
        run = home.run(job_id)
        yield from (paths.ticket(state, job_id), paths.attempts(job_id), paths.end(job_id), paths.job(job_id))
        yield from (paths.wait(job_id), paths.cancel_request(job_id), paths.lease(job_id))
        yield from (run.root, run.result, run.progress, run.log(1), run.log(9), run.spec, run.evaluation, run.manifest)


def attack(scale: Scale) -> Iterator[Case]:
    source, target = Home(scale.folder / "source"), Home(scale.folder / "target")
    job_ids = stand_in.make_jobs(source)
    tried = [(place.relative_to(source.root), kind) for place in places(source, job_ids) for kind in KINDS]
    for place, kind in random.Random(scale.seed).sample(tried, min(scale.cases, len(tried))):
        shutil.rmtree(target.root, ignore_errors=True)
        shutil.copytree(source.root, target.root)
        put(kind, target.root / place)
        touched = [job_id for job_id in job_ids if job_id in str(place)]
        is_ticket = place.parent.name in STATES
        violations = apart.judge(judge, target, job_ids, touched, is_ticket)
        yield Case(f"{kind.__name__} as {str(place)!a}", tuple(violations))


def put(kind: Callable[[Path], None], path: Path) -> None:
    """In place of what lies there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind(path)


def judge(home: Home, job_ids: list[str], touched: list[str], is_ticket: bool) -> list[str]:
    damaged = touched if is_ticket else []
    sound = [job_id for job_id in job_ids if job_id not in damaged]
    violations = [f"before repair: {line}" for line in invariants.looks(home, sound)]
    worker_calls.work(str(home.root), "")()
    return violations + invariants.check(home, job_ids, damaged=damaged) + invariants.is_drained(home, but_for=touched)
