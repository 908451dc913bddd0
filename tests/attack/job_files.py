"""A fuzzer over job files: whatever stands in one, the answer is a spec or an ordinary error, and comes at once.

The inputs are tried by the thousand, in a process with little memory, each by the processor time that it takes there.
What is accepted is the same when a worker reads it from its ticket or its run. A few are given to the console command.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from attack import apart
from attack.campaign import Case, Scale
from attack.hostile_job_files import KINDS, WITNESS, make
from pipeline.errors import PipelineError
from pipeline.home.paths import RunPaths
from pipeline.jobfile import frozen, reading
from pipeline.jobfile.spec import Spec
from pipeline.queue.tickets import Ticket

AT_ONCE_S = 1.0  # of processor time
MEMORY_BYTES = 256 * 1024**2
MAX_MESSAGE = 100_000  # characters: of a hundred problems
BATCH, BATCH_HANGS_S = 1000, 600.0
FROZEN = 20  # of so many that are accepted, one is written as that of a run
TYPED = 2000  # of so many inputs, one of each kind is given to the command

Found = list[tuple[int, str]]  # the number of an input, and what was violated


def attack(scale: Scale) -> Iterator[Case]:
    number = 0
    while number < scale.cases:
        end = min(number + BATCH, scale.cases)
        found, lost = apart.call(
            try_all, scale.folder, scale.seed, number, end, hangs_s=BATCH_HANGS_S, memory_bytes=MEMORY_BYTES
        )
        if lost:
            end = int((scale.folder / "begun").read_text()) + 1
            found = [(end - 1, line) for line in lost]
        for each in range(number, end):
            yield Case(name(each), tuple(why for of, why in found if of == each))
        number = end
    for each in range(scale.cases):
        if each % TYPED < len(KINDS):
            yield Case(f"{name(each)}, typed", tuple(type_it(scale.folder, scale.seed, each)))


def name(number: int) -> str:
    return f"{KINDS[number % len(KINDS)].__name__}, input {number}"


def try_all(folder: Path, seed: int, begin: int, end: int) -> Found:
    """Try the inputs of these numbers. The one that was begun last stands in a file, should this process die of it."""
    os.chdir(folder)
    found = []
    with (folder / "begun").open("w") as begun:
        for number in range(begin, end):
            os.pwrite(begun.fileno(), f"{number:12}".encode(), 0)
            data, overrides = make(seed, number)
            found += [(number, why) for why in try_one(folder, data, overrides, freeze=number % FROZEN == 0)]
    return found


def try_one(folder: Path, data: bytes, overrides: list[str], *, freeze: bool) -> list[str]:
    seconds, answer = measure(data, overrides)
    if seconds > AT_ONCE_S:  # the processor may have been slow for once
        seconds = min(seconds, *(measure(data, overrides)[0] for _ in range(2)))
    violations = [f"it takes {seconds:.1f} s"] if seconds > AT_ONCE_S else []
    if (folder / WITNESS).exists():
        (folder / WITNESS).unlink()
        violations.append("it has run a program")
    if isinstance(answer, Spec):
        return violations + read_back(folder, answer, freeze=freeze)
    if not isinstance(answer, PipelineError):
        return [*violations, f"{type(answer).__name__}: {str(answer)[:300]}"]
    if not 0 < len(str(answer)) < MAX_MESSAGE:
        violations.append(f"its message has {len(str(answer)):,} characters")
    return violations


def measure(data: bytes, overrides: list[str]) -> tuple[float, Spec | Exception]:
    began = time.process_time()
    answer: Spec | Exception
    try:
        answer = reading.parse(data, "job.yaml", overrides)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
        answer = error
    return time.process_time() - began, answer


def read_back(folder: Path, spec: Spec, *, freeze: bool) -> list[str]:
    """What is accepted must be the same in its ticket, and as the spec of its run."""
    ticket = Ticket.new(spec)
    violations = []
    if Ticket.parse(ticket.to_json(), ticket.id).validated() != spec:
        violations.append("its ticket says another job")
    if freeze:
        run = RunPaths(folder / "run")
        frozen.save(run, spec)
        if frozen.load(run) != spec or reading.load(run.spec) != spec:
            violations.append("the spec of its run says another job")
    return violations


def type_it(folder: Path, seed: int, number: int) -> list[str]:
    """Give it to `pipeline validate`, as a person does: the same answer, and no traceback."""
    data, overrides = make(seed, number)
    overrides = [override.replace("\0", "").encode("utf-8", "replace").decode() for override in overrides]
    (folder / "job.yaml").write_bytes(data)
    options = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "pipeline.cli", "validate", "job.yaml", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60)
    _, answer = measure(data, overrides)
    expected = answer.exit_code if isinstance(answer, PipelineError) else 0
    violations = [f"`validate` leaves with {done.returncode}, not {expected}"] if done.returncode != expected else []
    if b"Traceback" in done.stderr or (expected and not done.stderr.strip()):
        violations.append(f"`validate` says {done.stderr[-300:]!a}")
    return violations
