"""What a worker may have to say with every turn of its loop, said once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

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
