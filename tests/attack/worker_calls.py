"""kill -9 and refusals at each call of the system that a whole worker makes: its start, two jobs, its end.

Its attempts are a shell that leaves a result at once, and nothing waits long. A worker that was refused something goes
on by itself and brings both jobs to their end; one that was killed leaves that to the next, and so does one that was
refused what it begins with: it says so, and has taken no job.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from quick import quick_spec

from attack import invariants, stand_in, strace
from attack.campaign import Case, Scale
from attack.strace import Act, Outcome
from attack.system_calls import Operation, Template, sample
from pipeline.home.paths import Home
from pipeline.home.records import Progress
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue

HANGS_S = 40.0
TICK_S, SOON_S = 0.02, 0.4  # in place of 0.2 s and 10 s; a job that is passed over is so for many turns
ATTEMPT = """
test -e {run}/result.json && echo twice >> {run}/twice
printf '{{"attempt":{number},"outcome":"succeeded","why":"trained"}}' > {run}/.made && mv {run}/.made {run}/result.json
"""


class Nowhere:
    """A display that shows nothing."""

    def say(self, line: str) -> None:
        pass

    def log_line(self, job_id: str, line: str) -> None:
        pass

    def progress(self, jobs: Sequence[tuple[str, Progress]]) -> None:
        pass


def two_jobs(queue: Queue) -> str:
    return queue.submit_all([quick_spec("one", resources={"retries": 5}), quick_spec("two", resources={"retries": 5})])[
        0
    ]


def work(root: str, job_id: str) -> Act:  # noqa: ARG001
    """In the process of the case: nobody else sees what is changed here."""
    from pipeline.queue import back_off, refusals
    from pipeline.worker import background_reports, repairs, room, worker
    from pipeline.worker.executors import local

    def command(self: local.LocalExecutor, claim: Claim, alive_fd: int) -> list[str]:  # noqa: ARG001
        run = self.home.run(claim.id).root
        return ["sh", "-c", ATTEMPT.format(run=run, number=claim.attempts.number)]

    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    worker.TICK_S, refusals.PASS_OVER_S, repairs.EVERY_S, room.LOOK_EVERY_S = TICK_S, SOON_S, SOON_S, SOON_S
    back_off.BACK_OFF_S = (SOON_S,)
    local.LocalExecutor.command = command  # type: ignore[method-assign]
    background_reports.BackgroundReports.ask = lambda *_: None  # type: ignore[method-assign]
    made = worker.Worker(Home(Path(root)), Nowhere(), drain=True)
    return lambda: made.run()


WORK = Operation("a worker with two jobs", two_jobs, work)


def attack(scale: Scale) -> Iterator[Case]:
    template = Template(WORK, scale.folder)
    home, _ = template.copy()
    undisturbed = strace.run(work, str(home.root), "", follow=False)
    yield Case("undisturbed", tuple(judge(home, undisturbed)))
    for fault in sample(list(strace.faults_for(undisturbed.calls)), scale):
        if fault.onwards:  # it waits until there is room: small_disk.py
            continue
        home, _ = template.copy()
        outcome = strace.run(work, str(home.root), "", fault=fault, follow=False, timeout_s=HANGS_S)
        if outcome.struck:
            yield Case(str(fault), tuple(judge(home, outcome)))


def judge(home: Home, outcome: Outcome) -> list[str]:
    """What was violated: nothing may be left to do by a worker that was not killed."""
    job_ids = [
        job_id for state in ("pending", "running", "done", "failed") for job_id in Queue(home).tickets.ids(state)
    ]
    violations = [] if len(job_ids) == 2 else [f"of two jobs {job_ids} are left"]
    could_not_start = outcome.error.startswith("QueueError: ") and not list(home.queue.jobs.iterdir())
    if not (outcome.killed or could_not_start):
        violations += [outcome.error] if outcome.error else []
        violations += invariants.is_drained(home)
    violations += stand_in.drain(home) + invariants.check(home, job_ids) + invariants.is_drained(home)
    violations += [f"{path} ran after its result" for path in home.runs.glob("*/twice")]
    violations += [f"in quarantine: {line}" for line in Queue(home).tickets.quarantined()]
    for job_id in job_ids:
        if (state := Queue(home).tickets.state(job_id)) != "done":
            violations.append(f"{job_id} ends as {state}")
    return violations
