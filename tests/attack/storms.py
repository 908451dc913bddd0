"""SIGKILL, SIGTERM and SIGSTOP at random moments on workers and training processes, while several jobs train."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

from attack.campaign import Case, Scale
from attack.trainings import Reference, Trainings, spec, trainings
from pipeline.queue.job_queue import Queue

NUM_WORKERS = 2
PAUSE_S = 3.0  # between two strikes, at most
STOPPED_S = 2.0
JOBS = 3  # that are under way, as long as there are strikes left

ORPHANS = 0.15  # of all strikes
ORPHANED_S = 4.0  # at most: a new worker has begun to look for jobs by then

Disturb = Callable[[Trainings, random.Random], str]  # does something to them, and says what


def strike(made: Trainings, chance: random.Random) -> str:
    """A signal to a worker or a training process, by chance; one that is stopped goes on later, or is killed."""
    if (children := made.children()) and chance.random() < ORPHANS:
        return orphan(made, chance.choice(children), chance.uniform(ORPHANED_S / 2, ORPHANED_S))
    targets = [("a worker", worker.pid) for worker in made.living_workers()]
    targets += [("a training", child) for child in children] * 2
    if not targets:
        return "nobody was there"
    who, pid = chance.choice(targets)
    number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
    said = f"{number.name} to {who}"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(chance.uniform(0, STOPPED_S))
            then = chance.choice([signal.SIGCONT, signal.SIGKILL])
            os.kill(pid, then)
            said += f", then {then.name}"
    return said


def orphan(made: Trainings, child: int, seconds: float) -> str:
    """Kill the workers while a training stands still, so that it cannot leave: nobody else may take its job."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGSTOP)
        for worker in made.living_workers():
            worker.kill()
            worker.wait()
        made.start_worker()
        time.sleep(seconds)
        os.kill(child, signal.SIGCONT)
    return f"SIGSTOP to a training, SIGKILL to all workers, a new worker, and SIGCONT {seconds:.1f} s later"


def storm(scale: Scale, disturb: Disturb) -> Iterator[Case]:
    """Let jobs train, disturb them as often as the scale says, and see what came of them."""
    chance = random.Random(scale.seed)
    reference = Reference.train(scale.folder / "alone", spec())
    with trainings(scale.folder / "storm") as made:
        queue, job_ids, said = Queue(made.home), [], []
        for number in range(1, scale.cases + 1):
            while len(queue.tickets.ids("pending") + queue.tickets.ids("running")) < JOBS:
                job_ids.append(queue.submit(spec()))
            while len(made.living_workers()) < NUM_WORKERS:
                made.start_worker()
            time.sleep(chance.uniform(0.2, PAUSE_S))
            said.append(disturb(made, chance))
            yield Case(f"strike {number}: {said[-1]}", tuple(made.twice()))
        violations = [*made.drain(), *reference.violations(made, job_ids)]
        yield Case(f"after all strikes: {'; '.join(said)}", tuple(violations))


def attack(scale: Scale) -> Iterator[Case]:
    return storm(scale, strike)
