"""Ids where there is no room for them: cut such that they still differ, and can be typed where that is possible."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

LEAST_ID = 14  # columns


@dataclass
class ShortIds:
    """all_ids: gives those of the home, once a name has to be cut."""

    all_ids: Callable[[], Iterable[str]]

    def cut(self, job_id: str, room: int) -> str:
        """The beginning of an id where no other one begins so, which commands take; else without its middle."""
        indent = job_id[: len(job_id) - len(job_id.lstrip())]
        job_id, room = job_id[len(indent) :], room - len(indent)
        if len(job_id) <= room:
            return indent + job_id
        head = job_id[: max(1, room - 1)]
        if self._is_clear(head):
            return f"{indent}{head}…"
        tail = job_id[job_id.rindex("-") :] if "-" in job_id else job_id[-4:]
        return f"{indent}{job_id[: max(0, room - 1 - len(tail))]}…{tail}"

    def _is_clear(self, prefix: str) -> bool:
        at = bisect_left(self._sorted, prefix)
        return sum(job_id.startswith(prefix) for job_id in self._sorted[at : at + 2]) == 1

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.all_ids())
