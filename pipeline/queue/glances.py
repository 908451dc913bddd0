"""The jobs of a home as somebody sees them who looks again and again: what has not changed is not read again.

A folder of tickets is listed when something was moved in it, and the ticket of a job that waits is read once: of
100,000 jobs, a glance reads those that run and those that are shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.home.ids import by_age
from pipeline.home.paths import STATES
from pipeline.queue import views
from pipeline.queue.job_queue import Queue
from pipeline.queue.views import ENDED, JobView
from pipeline.queue.waiting import Waiting

YOUNG_NS = 1_000_000_000  # a folder that changed so recently may change again within a tick of its clock
LOOKS = 3  # at folders that tickets move between
MOST_TRIALS = 500  # ended trials that are passed over in search of other jobs


@dataclass(frozen=True)
class Glance:
    """What there is at a moment. `running` has a sweep's trials behind it; `ended` has none of them."""

    counts: Mapping[str, int]  # jobs by state
    running: list[JobView] = field(default_factory=list)
    waiting: list[JobView] = field(default_factory=list)  # the next ones, first the one that is claimed first
    ended: list[JobView] = field(default_factory=list)  # the latest
    workers: list[str] = field(default_factory=list)
    state: str | None = None  # of the jobs that were wanted; None: all


@dataclass
class Listing:
    ids: set[str]
    stamp: int  # of the folder, when it was listed
    is_young: bool


class Watcher:
    """Raises OSError from its methods where a folder of the queue cannot be listed now."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._listings: dict[str, Listing] = {}
        self._waiting = Waiting(queue.tickets)
        self._ended: list[str] = []  # the ids, latest first: those that were seen to end, then the youngest
        self._seen_to_end: dict[str, None] = {}  # the latest last
        self.num_changes = 0  # of what the folders hold, that were seen
        self._trials: set[str] = set()  # ids of ended jobs that are trials of sweeps

    def look(self, *, most: int, state: str | None = None, with_trials: bool = False) -> Glance:
        """most: jobs that wait, and that have ended. state: of the jobs that are wanted; all are counted."""
        self._list()
        ids = {name: self._listings[name].ids for name in STATES}
        running = [] if state not in (None, "running") else self._views("running", by_age(ids["running"]))
        waiting = [] if state not in (None, "pending") else self._views("pending", self._waiting, most)
        ended = [] if state in ("pending", "running") else list(self._latest(most, state, with_trials=with_trials))
        counts = {name: len(found) for name, found in ids.items()}
        return Glance(counts, _grouped(running), waiting, ended, self.queue.live_workers(), state)

    def all_ids(self) -> Iterator[str]:
        """Those of the last look."""
        return (job_id for listing in self._listings.values() for job_id in listing.ids)

    def _list(self) -> None:
        """Sees what each folder holds; a ticket that moves meanwhile is not missed."""
        is_first = not self._listings
        before = {state: self._listings[state].ids if self._listings else set() for state in STATES}
        for _ in range(LOOKS):
            if not [state for state in STATES if self._list_one(state)]:
                break
        if "pending" in self._changed(before):
            self._waiting.look()
        if self._changed(before) & ENDED:
            self._sort_ended(None if is_first else set().union(*(before[state] for state in ENDED)))

    def _changed(self, before: Mapping[str, set[str]]) -> set[str]:
        return {state for state in STATES if self._listings[state].ids is not before[state]}

    def _list_one(self, state: str) -> bool:
        """Whether there is something that was not there before, or that is not there any more."""
        try:
            stamp = os.stat(self.queue.paths.state(state)).st_mtime_ns  # noqa: PTH116
        except FileNotFoundError:
            stamp = 0
        known = self._listings.get(state)
        if known is not None and known.stamp == stamp and not known.is_young:
            return False
        is_young = abs(time.time_ns() - stamp) < YOUNG_NS
        ids = set(self.queue.tickets.ids(state))
        is_same = known is not None and known.ids == ids
        self._listings[state] = Listing(known.ids if known and is_same else ids, stamp, is_young)
        self.num_changes += not is_same
        return not is_same

    def _sort_ended(self, before: set[str] | None) -> None:
        now = set().union(*(self._listings[state].ids for state in ENDED))
        self._seen_to_end = {job_id: None for job_id in self._seen_to_end if job_id in now}
        if before is not None:
            self._seen_to_end |= dict.fromkeys(by_age(now - before))
        others = by_age(now - self._seen_to_end.keys())
        self._ended = [*reversed(self._seen_to_end), *reversed(others)]

    def _latest(self, most: int, state: str | None, *, with_trials: bool) -> Iterator[JobView]:
        num_left, num_passed = most, 0
        wanted = ENDED if state is None else {state}
        where = {job_id: name for name in wanted for job_id in self._listings[name].ids}
        for job_id in self._ended:
            if num_left <= 0 or num_passed >= MOST_TRIALS:
                return
            if job_id not in where or (job_id in self._trials and not with_trials):
                continue
            view = views.job(self.queue, job_id, where[job_id])
            if view is not None and view.trial is not None and not with_trials:
                self._trials.add(job_id)
                num_passed += 1
            elif view is not None:
                num_left -= 1
                yield view

    def _views(self, state: str, ids: Iterator[str] | list[str] | Waiting, most: int | None = None) -> list[JobView]:
        found: list[JobView] = []
        for job_id in ids:
            if most is not None and len(found) >= most:
                break
            view = views.job(self.queue, job_id, state)
            found += [] if view is None else [view]
        return found


def _grouped(running: list[JobView]) -> list[JobView]:
    """The trials of each sweep behind it."""
    sweeps = {job.id for job in running if job.is_sweep}
    groups: dict[str, list[JobView]] = {}
    for job in sorted(running, key=lambda job: not job.is_sweep):
        groups.setdefault(str(job.sweep) if job.sweep in sweeps else job.id, []).append(job)
    return [job for group in groups.values() for job in group]
