"""Job ids: `<name>-<number>`, as `vgg11-3f2a`. The number counts the jobs of the home (`sequence.py`), in hexadecimal.

So ids are short, and say the order of submission whatever the clock did. Those that were made before, as
`vgg11-20260101T000000000000Z-abcdef`, are older than all of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MIN_DIGITS = 4
ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63}?)-(\d{8}T\d{12}Z-[0-9a-f]{6}|[0-9a-f]{4,12})")
_LEN_OF_BEFORE = len("20260101T000000000000Z-abcdef")


def make_id(name: str, number: int) -> str:
    """The id of the job of that number, from 1."""
    return f"{name}-{number:0{MIN_DIGITS}x}"


def number_of(job_id: str) -> int:
    """The number in an id; 0 where it has none."""
    match = ID.fullmatch(job_id)
    return 0 if match is None or "T" in match[2] else int(match[2], 16)


def age_key(job_id: str) -> str:
    """Sorts ids by the order of submission; empty for what is no id."""
    return _age_key(job_id) if ID.fullmatch(job_id) else ""


def by_age(job_ids: Iterable[str]) -> list[str]:
    """Ids, oldest first. Nothing but ids may be among them."""
    return sorted(job_ids, key=_age_key)


def _age_key(job_id: str) -> str:
    """Of an id. Without a regular expression: `status` sorts 100,000."""
    number = job_id[job_id.rfind("-") + 1 :]
    if len(number) == 6 and job_id[-8:-7] == "Z" and job_id[-_LEN_OF_BEFORE:-21].isdigit():
        return job_id[-_LEN_OF_BEFORE:]
    return "~" + number.zfill(12)  # after every digit


def name_of(job_id: str) -> str:
    """The job file's name in an id."""
    match = ID.fullmatch(job_id)
    return match[1] if match else job_id.rpartition("-")[0]
