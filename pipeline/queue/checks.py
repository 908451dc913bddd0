"""Checks of a home, for `doctor` and for a worker's start: whether a queue can live there, and what to do."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import QueueError
from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.queue.job_queue import Queue
from pipeline.wording import plural

NETWORK_FILESYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "fuse.sshfs")
LOW_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Check:
    name: str
    verdict: Literal["ok", "warning", "error"]
    text: str


def check_home(home: Home) -> list[Check]:
    """Whether a queue can live here: one local filesystem with renames, links and locks, and room."""
    queue = Queue(home)
    try:
        queue.create()
        check_operations(queue)
    except (QueueError, OSError) as error:
        return [Check("home", "error", f"{home.root}: {error}; choose another with --home or PIPELINE_HOME")]
    return [Check("home", "ok", str(home.root)), check_filesystem(home), check_disk(home), check_workers(queue)]


def complaints(home: Home) -> list[str]:
    """What a worker that starts should say of its home."""
    found = [check for check in check_home(home) if check.verdict != "ok" and check.name != "workers"]
    return [f"{check.verdict}: {check.name}: {check.text}" for check in found]


def check_operations(queue: Queue) -> None:
    """Do once what the queue rests on. Raises OSError, EXDEV where its folders are on different filesystems."""
    name = f".doctor-{secrets.token_hex(4)}"  # in two containers, two processes may have the same id
    first, second = queue.paths.tmp / name, queue.paths.control / name
    lease = Lease.acquire(queue.paths.leases / name)
    if lease is None:
        raise OSError("files cannot be locked here")
    lease.release()
    try:
        durable.replace(first, lambda file: file.write(b"test"))
        second.unlink(missing_ok=True)
        os.link(first, second)
        first.replace(second)
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def check_filesystem(home: Home) -> Check:
    kind = filesystem_of(home.queue.root)  # in a container a volume of its own
    if kind is None:
        return Check("filesystem", "warning", "its kind cannot be told; the queue must be on one local filesystem")
    if any(kind.startswith(network) for network in NETWORK_FILESYSTEMS):
        return Check("filesystem", "error", f"{kind} is shared over a network, where locks cannot be relied on")
    if kind == "overlay":
        return Check("filesystem", "warning", "this is a container's own layer, and is lost with it; mount a volume")
    return Check("filesystem", "ok", kind)


def filesystem_of(path: Path) -> str | None:
    """The kind of filesystem that holds a folder, as `ext4`; None where the system does not say."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4])  # a blank is \040
        if path.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def check_disk(home: Home) -> Check:
    free = shutil.disk_usage(home.runs).free
    verdict: Literal["ok", "warning"] = "ok" if free > LOW_DISK_BYTES else "warning"
    return Check("free disk", verdict, f"{free / 1024**3:.1f} GiB")


def check_workers(queue: Queue) -> Check:
    waiting, workers = len(queue.tickets.ids("pending")), len(queue.live_workers())
    text = f"{workers} working, {plural(waiting, 'job')} waiting"
    return Check("workers", "warning" if waiting and not workers else "ok", text)
