"""How much memory a session of processes takes, as the system tells it in /proc."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

PROC = Path("/proc")


def used_bytes(processes: Iterable[int], limit: int) -> int:
    """What the processes take together, swapped out or not, without files that they map, which the system can drop.

    A page that several of them share, as the workers of a DataLoader do with their parent, counts once. That takes the
    system 1 to 30 ms a process, so it is asked only where the sum that counts it several times is over the limit.
    """
    found = [*processes]
    at_most = _sum_of(found, "status", ("RssAnon:", "RssShmem:", "VmSwap:"))
    return at_most if at_most <= limit else _sum_of(found, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"))


def _sum_of(processes: Iterable[int], file: str, names: tuple[str, ...]) -> int:
    return sum(_kilobytes(_read(PROC / str(process) / file), names.__contains__) for process in processes) * 1024


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it is gone
        return ""


def _kilobytes(text: str, is_wanted: Callable[[str], bool]) -> int:
    words = [line.split() for line in text.splitlines()]
    return sum(int(line[1]) for line in words if len(line) == 3 and is_wanted(line[0]))
