"""A worker without processes: it claims, leaves what an attempt leaves, and settles, all in a few milliseconds."""

from __future__ import annotations

import os

from quick import quick_spec

from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.home.records import Outcome, Result
from pipeline.queue import repair
from pipeline.queue.claims import Claim
from pipeline.queue.drained import is_drained
from pipeline.queue.job_queue import Queue

TURNS = 30  # of repairing and working, after which a queue that still has something to do has got stuck


def queue_at(home: Home) -> Queue:
    queue = Queue(home)
    queue.create()
    return queue


def leave_result(home: Home, claim: Claim, outcome: Outcome) -> Result:
    """What the attempt's own process would leave in the run."""
    run, number = home.run(claim.id), claim.attempts.number
    durable.make_folder(run.root)
    with run.log(number).open("ab") as log:
        log.write(b"began\n")
    result = Result(number, outcome, f"{outcome}, as it was", step=10)
    result.write(run.result)
    return result


def take_turn(queue: Queue, outcome: Outcome = "succeeded") -> list[str] | None:
    """Claim a job and end its attempt. What was wrong with that; None where nothing could be claimed."""
    claim = queue.claim("stand-in")
    if not isinstance(claim, Claim):
        return None if claim is None else []
    log = queue.home.run(claim.id).log(claim.attempts.number)
    wrong = [f"{log.name} of {claim.id} began twice"] if log.exists() and log.read_bytes() else []
    queue.settle(claim, leave_result(queue.home, claim, outcome))
    claim.lease.release()
    return wrong


def abandon(queue: Queue, *, result: Outcome | None = None) -> str:
    """Claim a job and leave it as a worker does that is killed with its attempt, before or after its result."""
    claim = queue.claim("victim")
    assert isinstance(claim, Claim)
    if result is not None:
        leave_result(queue.home, claim, result)
    os.close(claim.lease.fd)
    return claim.id


def drain(home: Home) -> list[str]:
    """Repair the queue and carry out all that waits. What was wrong with that."""
    queue, wrong = queue_at(home), []
    for _ in range(TURNS):
        repair.repair(queue)
        for path in queue.paths.control.glob("*.wait"):  # nobody waits for a back-off here
            path.unlink()
        while (complaint := take_turn(queue)) is not None:
            wrong += complaint
        if is_drained(queue):
            return wrong + held_leases(queue)
    left = {state: queue.tickets.ids(state) for state in ("pending", "running")}
    return [*wrong, f"it does not drain: {left}"]


def held_leases(queue: Queue) -> list[str]:
    held = [path.name for path in queue.paths.leases.iterdir() if Lease.is_held(path)]
    return [f"a lease is held although nobody works: {name}" for name in held]


def make_jobs(home: Home) -> list[str]:
    """Jobs in every state, as the queue leaves them; their ids."""
    queue = queue_at(home)
    retries = {"retries": 5}
    done, failed, cancelled, tried, abandoned = (
        queue.submit(quick_spec(name, resources={**retries, "priority": priority}))
        for name, priority in (("done", 5), ("failed", 4), ("cancelled", -1), ("tried", 2), ("abandoned", 1))
    )
    take_turn(queue)
    take_turn(queue, "failed")
    repair.cancel(queue, cancelled)
    take_turn(queue, "lost")
    abandon(queue)
    waits = queue.submit(quick_spec("waits"))
    return [done, failed, cancelled, tried, abandoned, waits]
