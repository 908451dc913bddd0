"""What a worker may have to say with every turn of its loop, said once a minute."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.errors import QueueError
from pipeline.home import durable

EVERY_S = 60.0


@dataclass
class Complaints:
    say: Callable[[str], None]
    _quiet_until: dict[str, float] = field(default_factory=dict)  # by line, on the monotonic clock

    def make(self, line: str) -> None:
        """Say the line, unless it was said within the last minute."""
        now = time.monotonic()
        self._quiet_until = {said: until for said, until in self._quiet_until.items() if until > now}
        if line not in self._quiet_until:
            self._quiet_until[line] = now + EVERY_S
            self.say(line)

    @contextlib.contextmanager
    def in_place_of_errors(self, what: str, *, on_full_disk: Callable[[], None]) -> Iterator[None]:
        """Complains of what the system refuses inside; of a full disk somebody else does."""
        try:
            yield
        except OSError as error:
            if error.errno in durable.DISK_FULL:
                on_full_disk()
            else:
                self.make(f"{what}: does not work right now: {durable.in_words(error)}")
        except QueueError as error:
            self.make(f"{what}: does not work right now: {error}")
