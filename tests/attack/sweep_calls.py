"""kill -9 and refusals at the calls of the system that a sweep makes, and the workers of its trials, in one process.

So all of them are gone at once; what goes on with what they left must end with each trial once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import small_sweeps
from small_sweeps import Workers

from attack import invariants
from attack.campaign import Case, Scale
from pipeline.home.paths import Home
from pipeline.queue import refusals, repair
from pipeline.queue.job_queue import Queue
from pipeline.search import sweep

MAX_CALLS = 300  # that a small sweep makes, with its workers'
SEARCHES: list[dict[str, Any]] = [
    {},
    {"sampler": "tpe", "pruner": "hyperband"},
    {"sampler": "grid", "trials": None, "space": {small_sweeps.LR: [0.01, 0.1], "train.seed": [1, 2]}},
]


def work(root: Path, sweep_id: str) -> str:
    """In the process of the case: nobody else sees what is changed here."""
    sweep.POLL_S = refusals.PASS_OVER_S = 0.0
    queue = Queue(Home(root))
    queue.create()
    return small_sweeps.drive(queue, sweep_id, Workers(queue))


def attack(scale: Scale) -> Iterator[Case]:
    chance: random.Random = scale.random
    for number in range(scale.cases):
        home = Home(scale.folder / f"home-{number}")
        queue, search = Queue(home), chance.choice(SEARCHES)
        queue.create()
        sweep_id = small_sweeps.submit(queue, **search)
        fault: faults.Fault = chance.choice(["kill", "kill", "one EIO", "full disk"])
        at = chance.randint(1, MAX_CALLS)
        outcome = faults.run(work, home.root, sweep_id, fault=fault, at=at)
        violations = [] if fault != "kill" or outcome.killed or not outcome.error else [f"it raises {outcome.error!r}"]
        violations += go_on(queue, sweep_id)
        yield Case(f"{search}, {fault} at call {at}", tuple(violations))


def go_on(queue: Queue, sweep_id: str) -> list[str]:
    """In this process, with other workers."""
    was, sweep.POLL_S = sweep.POLL_S, 0.0
    try:
        repair.repair(queue)
        state = small_sweeps.drive_to_the_end(queue, sweep_id, Workers(queue))
    except AssertionError as error:
        return [str(error)]
    finally:
        sweep.POLL_S = was
    violations = [] if state == "done" else [f"it is {state}: {queue.records.sound_end(sweep_id)}"]
    repair.repair(queue)
    violations += small_sweeps.check(queue.home, sweep_id) + invariants.check(queue.home, [sweep_id])
    return violations + invariants.is_drained(queue.home)
