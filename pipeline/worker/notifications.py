"""Who is told that a job has ended: whoever PIPELINE_NOTIFY names, by a process of its own (notifier.py).

A job's end is told by the process that has recorded it, once; that of a sweep's trial is not, as the sweep's own is. A
notification that fails is said, and changes nothing else. The addresses have passwords in them: they are taken out of
the environment, so that no attempt has them, and are neither in a command line nor in anything that is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline.home import durable
from pipeline.home.paths import NOTIFY, Home
from pipeline.home.records import WELL, End, Progress
from pipeline.queue.checks import Check
from pipeline.wording import in_words
from pipeline.worker import notifier
from pipeline.worker.errands import Ended, Errand, Errands
from pipeline.worker.notifier import Message, Task, Trouble

LIMIT_S = 60.0  # of one notification
POLL_S = 0.05
MOST_WAITING = 1_000
MAX_WHY = 1_000  # characters
TEST_ACCURACY, TEST_BEST = "test/accuracy", "test/best_accuracy"
VAL_ACCURACY, VAL_BEST = "val/accuracy", "val/best_accuracy"
COMMAND = (sys.executable, "-P", "-m", "pipeline.worker.notifier")


class Notifications:
    """addresses: as `take_addresses` gives them. say: told what goes wrong."""

    def __init__(self, home: Home, say: Callable[[str], None], addresses: Sequence[str]) -> None:
        self.home, self.say = home, say
        self.addresses = dict(enumerate(addresses))  # those that are of use
        self.errands = Errands(LIMIT_S, self._look_at)
        self._names = names(addresses)

    def ask_whether_it_works(self) -> None:
        """Have it said soon which addresses are of no use."""
        if self.addresses:
            self.errands.ask(Errand("", COMMAND, partial(self._task, None)))

    def ask(self, job_id: str, end: End) -> None:
        """Have somebody told how a job has ended, unless it was a sweep's trial."""
        if not self.addresses or end.trial is not None:
            return
        if len(self.errands.waiting) >= MOST_WAITING:
            self._complain(job_id, f"{MOST_WAITING:,} others are not told yet")
            return
        self.errands.ask(Errand(job_id, COMMAND, partial(self._task, message_of(self.home, job_id, end))))

    def leave(self) -> None:
        """Tell no more, and say what is left out."""
        left_out = [job_id for job_id in self.errands.give_up() if job_id]
        if left_out:
            self.say(f"no longer waits until it is told that {', '.join(left_out)} ended; `pipeline show ID` tells")

    def _task(self, message: Message | None) -> str:
        task = Task(list(self.addresses.values()), message, 0.9 * self.errands.limit_s)
        return json.dumps(dataclasses.asdict(task))

    def _look_at(self, ended: Ended) -> None:
        keys = list(self.addresses)
        for trouble in troubles_in(ended):
            key = None if trouble.address is None else keys[trouble.address]
            if ended.about:
                self._complain(ended.about, trouble.why, key)
            else:
                self._strike_out(trouble.why, key)

    def _strike_out(self, why: str, key: int | None) -> None:
        """Do without an address that is of no use, or without any."""
        if key is not None:
            del self.addresses[key]
            self.say(f"{NOTIFY}: {self._names[key]}: nobody is told there how jobs end: {why}")
        elif why == notifier.NOT_INSTALLED:
            self.addresses.clear()
            self.say(f"{NOTIFY}: nobody is told how jobs end: {why}")
        else:
            self.say(f"{NOTIFY}: cannot be checked: {why}")
        if not self.addresses:
            self.errands.give_up_waiting()

    def _complain(self, job_id: str, why: str, key: int | None = None) -> None:
        where = "" if key is None else f" at {self._names[key]}"
        self.say(f"{job_id}: its end was not told{where}: {why}")


def take_addresses() -> list[str]:
    """What PIPELINE_NOTIFY names, which is taken out of the environment: what is started from now on has it not."""
    for made in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):  # which have it too, where it was given to make
        os.environ.pop(made, None)
    return notifier.split(os.environ.pop(NOTIFY, ""))


def tell(home: Home, job_id: str, end: End, say: Callable[[str], None], addresses: Sequence[str]) -> None:
    """Tell how a job has ended and wait for that, a minute at most: for whoever has no loop. Raises nothing."""
    notifications = Notifications(home, say, addresses)
    notifications.ask(job_id, end)
    _wait_for(notifications.errands)


def _wait_for(errands: Errands) -> None:
    try:
        errands.tick()
        while errands.is_busy:
            time.sleep(POLL_S)
            errands.tick()
    finally:
        errands.give_up()


def check() -> Check:
    """Whether it would work, for `doctor`; nothing is sent."""
    addresses = notifier.split(os.environ.get(NOTIFY, ""))
    if not addresses:
        return Check("notify", "ok", f"{NOTIFY} is not set, and nobody is told how jobs end")
    said, found = names(addresses), list[Ended]()
    errands = Errands(LIMIT_S, found.append)
    task = Task(addresses, None, 0.9 * LIMIT_S)
    errands.ask(Errand("", COMMAND, lambda: json.dumps(dataclasses.asdict(task))))
    _wait_for(errands)
    wrong = [
        trouble.why if trouble.address is None else f"{said[trouble.address]}: {trouble.why}"
        for ended in found
        for trouble in troubles_in(ended)
    ]
    if wrong:
        return Check("notify", "error", f"{NOTIFY}: {'; '.join(wrong)}")
    return Check("notify", "ok", f"how jobs end is told at {', '.join(said)}")


def names(addresses: Sequence[str]) -> list[str]:
    """What may be said of addresses: the scheme, and which it is where there are several of it."""
    found = list(map(notifier.name, addresses))
    seen = [found[: index + 1].count(name) for index, name in enumerate(found)]
    return [
        name if found.count(name) == 1 else f"{name} ({number} of {found.count(name)})"
        for name, number in zip(found, seen, strict=True)
    ]


def troubles_in(ended: Ended) -> list[Trouble]:
    """What has gone wrong, by what the process has printed; what is no line of its own is not shown to anybody."""
    found = []
    for line in ended.output.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            found.append(Trouble(**json.loads(line)))
    return found or ([Trouble(None, ended.why)] if ended.why else [])


# What is told


def message_of(home: Home, job_id: str, end: End) -> Message:
    kind = "success" if end.outcome in WELL else "info" if end.outcome == "cancelled" else "failure"
    return Message(f"{job_id} {end.outcome.replace('_', ' ')}", "\n".join(_lines(home, job_id, end)), kind)


def _lines(home: Home, job_id: str, end: End) -> Iterator[str]:
    run, is_sweep = home.run(job_id), end.sweep == job_id
    yield end.why if len(end.why) <= MAX_WHY else f"{end.why[:MAX_WHY]}..."
    if is_sweep and "best: " not in end.why and (progress := Progress.glance(run.progress)) and progress.note:
        yield progress.note
    if figures := figures_of(end):
        yield f"{'of the best trial: ' if is_sweep else ''}{figures}"
    if end.took_s is not None:
        yield f"took {in_words(end.took_s)}" + (f", in {end.attempt} attempts" if end.attempt > 1 else "")
    has_run = _is_there(run.root)
    if has_run:
        yield f"run: {run.root} on {platform.node()}"
    if end.outcome not in WELL:
        yield f"look: {command(home, 'logs' if has_run else 'show', job_id)}"
    elif is_sweep:
        yield f"best: {command(home, 'best', job_id)}"


def _is_there(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return durable.is_there(path)
    return False


def figures_of(end: End) -> str:
    """`test accuracy 99.17 %, best 99.44 %`."""
    by_val = VAL_BEST in end.metrics
    labels = {TEST_ACCURACY: "test accuracy", TEST_BEST: "best"}
    labels |= {VAL_BEST: "best val accuracy"} if by_val else {VAL_ACCURACY: "val accuracy"}
    return ", ".join(f"{label} {100 * end.metrics[tag]:.2f} %" for tag, label in labels.items() if tag in end.metrics)


def command(home: Home, verb: str, job_id: str) -> str:
    is_found = home == Home.find() and not os.environ.get("PIPELINE_HOME")  # whoever is told may have another
    where = [] if is_found else ["--home", str(home.root)]
    return shlex.join(["pipeline", *where, verb, job_id])
