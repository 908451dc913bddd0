"""The one thread that talks to an engine, which may take long to answer, or not answer at all."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pipeline.worker.executors.engine import BusyError, Engine, RefusedError, Seen, Task, UnreachableError

LOOK_EVERY_S = 1.0
MOST_SHARE = 0.2  # of its time that it looks, however slow the engine is
TRY_AGAIN_S = 5.0  # after the engine did not answer
BUSY_S = 60.0  # at most, after the engine had no place
FORGOTTEN_S = 10.0  # for which an engine that answers must not know a task, to believe it that there is none


@dataclass
class Watched:
    """A task, and what the worker may know of it at any time; written by the desk alone."""

    name: str
    task: Task | None = None  # to be handed over; None of one that was before
    seen: Seen | None = None
    refusal: str = ""  # why the engine will never run it
    busy: str = ""  # why the engine does not take it now
    num_tries: int = 0  # for which the engine was too busy
    missing_since: float | None = None  # on the monotonic clock: since when an engine that answers does not know it
    is_forgotten: bool = False  # whether the engine has gone on answering for a while, and knows no such task

    @property
    def is_over(self) -> bool:
        return bool(self.refusal) or (self.seen is not None and self.seen.phase == "ended")


@dataclass
class Desk:
    engine: Engine
    watched: dict[str, Watched] = field(default_factory=dict)
    problem: str = ""  # why the engine does not answer now

    def __post_init__(self) -> None:
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._later: list[tuple[float, Watched]] = []  # to be handed over once more, and when
        self._looked_at = -math.inf
        self._look_every_s = LOOK_EVERY_S
        self._thread = threading.Thread(target=self._work, name=f"desk-{self.engine.name}", daemon=True)
        self._thread.start()

    def hand_over(self, task: Task) -> Watched:
        """Have a task submitted, as soon as the engine answers."""
        watched = self.watched[task.name] = Watched(task.name, task)
        self._orders.put(lambda: self._submit(watched))
        return watched

    def watch(self, name: str) -> Watched:
        """Ask from now on for a task that was handed over before."""
        watched = self.watched[name] = Watched(name)
        return watched

    def ask_to_stop(self, watched: Watched) -> None:
        """What waits is taken back."""
        self._orders.put(lambda: self._ask_to_stop(watched))

    def kill(self, watched: Watched) -> None:
        self._orders.put(lambda: self._kill(watched))

    def forget(self, watched: Watched) -> None:
        self.watched.pop(watched.name, None)

    def close(self) -> None:
        """What was ordered before is done first, for as long as a second."""
        self._orders.put(None)
        self._thread.join(1)

    def _work(self) -> None:
        """Orders as they come, and a look now and then. One that the engine did not hear is given once more."""
        order: Callable[[], None] | None = None
        while True:
            try:
                if order is not None:
                    order()
                    order = None
                self._hand_over_again()
                self._look_if_due()
                self.problem = ""
            except UnreachableError as error:
                self._hear_nothing(str(error))
                continue
            except Exception as error:  # noqa: BLE001 - an answer that nobody foresaw must not end all watching
                self._hear_nothing(f"{type(error).__name__}: {error}")
                order = None
            with contextlib.suppress(queue.Empty):
                order = self._orders.get(timeout=max(0.01, self._looked_at + self._look_every_s - time.monotonic()))
                if order is None:
                    return

    def _hear_nothing(self, problem: str) -> None:
        """What an engine does not say is not so: who was missing before is looked for anew."""
        self.problem = problem
        for watched in list(self.watched.values()):
            watched.missing_since = None
        time.sleep(TRY_AGAIN_S)

    def _hand_over_again(self) -> None:
        due = [watched for at, watched in self._later if at < time.monotonic()]
        self._later = [(at, watched) for at, watched in self._later if watched not in due]
        for watched in due:
            self._orders.put(partial(self._submit, watched))

    def _look_if_due(self) -> None:
        began = time.monotonic()
        asked = {name: each for name, each in list(self.watched.items()) if not each.is_over and each.task is None}
        if began < self._looked_at + self._look_every_s:
            return
        if asked or self._looked_at == -math.inf:  # an engine that is not there is told at once, not with the first job
            self._take(asked, self.engine.look([*asked]))
        self._looked_at = time.monotonic()
        self._look_every_s = max(LOOK_EVERY_S, (self._looked_at - began) / MOST_SHARE)

    def _take(self, asked: Mapping[str, Watched], found: Mapping[str, Seen]) -> None:
        for name, watched in asked.items():
            if name in found:
                watched.seen, watched.missing_since = found[name], None
            elif watched.missing_since is None:
                watched.missing_since = time.monotonic()
            elif time.monotonic() > watched.missing_since + FORGOTTEN_S:
                watched.is_forgotten = True

    def _submit(self, watched: Watched) -> None:
        """The engine may have taken it though it did not answer the last time: so it is asked first."""
        if watched.task is None:
            return
        known = self.engine.look([watched.name]).get(watched.name) if self.problem else None
        try:
            watched.seen = known or Seen(self.engine.submit(watched.task), "waits")
        except RefusedError as error:
            watched.refusal = str(error)
        except BusyError as error:  # others may be told to end meanwhile
            watched.busy = str(error)
            wait_s = min(BUSY_S, TRY_AGAIN_S * 2**watched.num_tries)
            watched.num_tries += 1
            self._later.append((time.monotonic() + wait_s, watched))
            return
        except UnreachableError:
            raise
        except Exception as error:  # noqa: BLE001 - of this task alone
            watched.refusal = f"{type(error).__name__}: {error}"
        watched.task, watched.busy = None, ""

    def _ask_to_stop(self, watched: Watched) -> None:
        if watched.seen is None and watched.task is None:  # it was handed over by another worker
            self._take({watched.name: watched}, self.engine.look([watched.name]))
        if watched.task is not None or (watched.seen is not None and watched.seen.phase == "waits"):
            self._kill(watched)
        elif not watched.is_over:
            self.engine.ask_to_stop(watched.name)

    def _kill(self, watched: Watched) -> None:
        if watched.task is not None:  # it was never handed over
            watched.task, watched.refusal = None, "it was not handed over"
        if not watched.is_over:
            self.engine.kill(watched.name)
