"""Job ids: `<name>-<UTC time>-<random>`, made by the program alone, never from a path that somebody gave."""

from __future__ import annotations

import operator
import re
import secrets
import time
from collections.abc import Iterable

ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63}?)-(\d{8}T\d{12}Z-[0-9a-f]{6})")
_last_time = 0


def new_id(name: str) -> str:
    """`<name>-<UTC time>-<random>`; of two ids that one process makes, the later one sorts later."""
    global _last_time
    _last_time = max(time.time_ns() // 1000, _last_time + 1)
    seconds, micros = divmod(_last_time, 1_000_000)
    return f"{name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}{micros:06d}Z-{secrets.token_hex(3)}"


def age_key(job_id: str) -> str:
    """Sorts ids by the time of submission; empty for what is no id."""
    match = ID.fullmatch(job_id)
    return match[2] if match else ""


def by_age(job_ids: Iterable[str]) -> list[str]:
    """Ids, oldest first. Nothing but ids may be among them: the time of one is where it always is, at the end."""
    return sorted(job_ids, key=operator.itemgetter(slice(-29, None)))


def name_of(job_id: str) -> str:
    """The job file's name in an id."""
    return job_id.rsplit("-", 2)[0]
