"""kill -9 and refusals at calls of the system that a real training makes, resumed by the next attempt.

The first attempt of each job runs under strace with one fault. One that the fault made fail is retried by a person.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attack import strace, trainings
from attack.campaign import Case, Scale
from attack.strace import Fault
from attack.trainings import Reference, Trainings
from pipeline.errors import QueueError
from pipeline.queue import repair
from pipeline.queue.job_queue import Queue

CALLS = ("write", "fsync", "rename", "link", "unlink", "mkdir")  # of imports there are none among them
TRACE = ("-e", f"trace=openat,{','.join(CALLS)}", "-e", "signal=none")
JOBS = 8  # that are in the queue at once


def attack(scale: Scale) -> Iterator[Case]:
    strace.find_strace()
    chance, what = random.Random(scale.seed), trainings.spec(epochs=4)
    reference = Reference.train(scale.folder / "alone", what)
    with trainings.trainings(scale.folder / "watched") as made:
        tried = faults_of(made)
    left = chance.sample(tried, min(scale.cases, len(tried)))
    for batch in range(0, len(left), JOBS):
        with trainings.trainings(scale.folder / f"batch-{batch}") as made:
            yield from inject(made, left[batch : batch + JOBS], reference)


def faults_of(made: Trainings) -> list[Fault]:
    """All that can be done to an attempt: at each of the calls, and where it opens what lies in the home."""
    job_id = Queue(made.home).submit(trainings.spec(epochs=4))
    trace = made.inject(job_id, *TRACE)
    assert made.drain() == []
    text = trace.read_text(errors="replace")
    calls = Counter({call: number for call, number in strace.counted(text).items() if call in CALLS})
    faults = [fault for fault in strace.faults_for(calls) if not fault.onwards]
    opened = strace.opened_below(made.home.root, text)
    return faults + [Fault("openat", kind, n) for n in opened for kind in strace.FAULTS["openat"]]


def inject(made: Trainings, faults: list[Fault], reference: Reference) -> Iterator[Case]:
    """One job a fault, two workers, and what became of each job."""
    queue = Queue(made.home)
    job_ids = queue.submit_all([trainings.spec(epochs=4)] * len(faults))
    traces = [made.inject(job_id, *TRACE, "-e", fault.option()) for job_id, fault in zip(job_ids, faults, strict=True)]
    made.start_worker("--drain").wait()
    for job_id in queue.tickets.ids("failed"):
        try:
            repair.retry(queue, job_id)
        except QueueError as error:
            yield Case(job_id, (str(error),))
    drained = made.drain()
    violations = [*drained, *reference.violations(made, job_ids)]
    for job_id, fault, trace in zip(job_ids, faults, traces, strict=True):
        if "INJECTED" in (text := _read(trace)) or "killed by" in text:
            yield Case(f"{fault} of a training", tuple(line for line in violations if job_id in line))
    others = [line for line in violations if not any(job_id in line for job_id in job_ids)]
    yield Case(f"together: {'; '.join(map(str, faults))}", tuple(others))


def _read(trace: Path) -> str:
    return trace.read_text(errors="replace") if trace.exists() else ""
