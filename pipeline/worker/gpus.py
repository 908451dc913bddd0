"""GPUs of a machine shared out: each job gets one of its own, as long as there are enough; then they are shared evenly.

Workers know of one another only by the leases in their queue. Nothing here imports torch or opens a GPU.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import QueuePaths
from pipeline.stop import LEASED_GPU

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPU_NAME = re.compile(r"[0-9]+|(GPU|MIG)-[\w/-]+")
LISTED = re.compile(r"^(?:GPU (\d+): *| +)(.+?)(?: +Device +\d+:)? *\(UUID: ((?:GPU|MIG)-[\w/-]+)\)", re.MULTILINE)
DRIVER_DEVICES = ("/dev/nvidiactl", "/dev/dxg")  # the latter on Windows
NVIDIA_SMI_S = 30.0  # it wakes a driver that sleeps
TRIES = 100


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What a process started here may compute on: the entries of CUDA_VISIBLE_DEVICES, else UUIDs; none without any."""
    if VISIBLE in environment:
        entries = map(str.strip, environment[VISIBLE].split(","))
        named = list(itertools.takewhile(GPU_NAME.fullmatch, entries))  # as CUDA reads it; Slurm writes NoDevFiles
        return named if has_driver() else []
    return uuids(ask_driver())


def ask_driver() -> str:
    """What `nvidia-smi -L` lists; empty where it does not work."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def has_driver() -> bool:
    """Whether there is an NVIDIA driver, which alone makes a number in CUDA_VISIBLE_DEVICES a GPU."""
    return shutil.which("nvidia-smi") is not None or any(map(os.path.exists, DRIVER_DEVICES))


def uuids(listing: str) -> list[str]:
    """Returns the UUIDs of the GPUs that `nvidia-smi -L` lists; in place of one that is divided (MIG), its parts'."""
    found: list[str] = []
    for uuid in re.findall(r"UUID: ((?:GPU|MIG)-[\w/-]+)", listing):
        if uuid.startswith("MIG-") and found and found[-1].startswith("GPU-"):
            found.pop()  # its parts follow it, and it cannot be used as a whole
        found.append(uuid)
    return found


def names(listing: str) -> dict[str, str]:
    """Returns what people call each GPU that `nvidia-smi -L` lists, as `0 NVIDIA H200`, by UUID.

    A part of one has the number of the whole.
    """
    found: dict[str, str] = {}
    number = ""
    for of_gpu, model, uuid in LISTED.findall(listing):
        number = of_gpu or number
        found[uuid] = " ".join(f"{number} {model}".split())
    return found


@dataclass(frozen=True)
class GpuLease:
    """A job's right to compute on a GPU, as long as it or its worker holds the lease."""

    gpu: str
    lease: Lease
    environment: dict[str, str]
    name: str = ""  # as people call it, where the driver was asked

    @property
    def handle(self) -> dict[str, str]:
        """What the record of an attempt says of it, for people."""
        return {"gpu": self.gpu, "gpu_name": self.name} if self.name else {"gpu": self.gpu}


@dataclass(frozen=True)
class Gpus:
    queue: QueuePaths
    all: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)  # as people call them, where the driver was asked

    @classmethod
    def here(cls, queue: QueuePaths) -> Gpus:
        """Those that a process started here may compute on."""
        if VISIBLE in os.environ:
            return cls(queue, tuple(visible_gpus()))
        listing = ask_driver()
        return cls(queue, tuple(uuids(listing)), names(listing))

    def take(self, device: str) -> GpuLease | None:
        """A GPU for a job with this `resources.device`; None where it computes on no GPU that is known.

        A device with a number is the one that the job file wants, among all of them.
        """
        kind, _, index = device.partition(":")
        wanted = self.all[int(index) : int(index) + 1] if index else self.all
        if kind == "cpu":
            return None
        for _ in range(TRIES if wanted else 0):
            jobs = {gpu: self._levels(gpu) for gpu in wanted}
            gpu = min(wanted, key=lambda gpu: len(jobs[gpu]))
            level = next(level for level in itertools.count() if level not in jobs[gpu])
            lease = Lease.acquire(self._path(gpu, level))
            if lease is not None:  # else another worker was quicker, and there may be a better one now
                seen = self._number_as_listed() if index else {VISIBLE: gpu}
                return GpuLease(gpu, lease, {LEASED_GPU: gpu, **seen}, self.names.get(gpu, ""))
        return None

    def _number_as_listed(self) -> dict[str, str]:
        """Makes cuda:1 the one that nvidia-smi calls 1; where the user has chosen GPUs, that choice and order stand."""
        return {} if VISIBLE in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    def _levels(self, gpu: str) -> set[int]:
        """Returns the levels of the jobs that compute on a GPU: 0 for the first, 1 for the next."""
        first = self._path(gpu, 0)
        paths = {path.suffix[1:]: path for path in first.parent.glob(f"{first.stem}.*")}
        return {int(level) for level, path in paths.items() if level.isdecimal() and _is_taken(path)}

    def _path(self, gpu: str, level: int) -> Path:
        return self.queue.gpu_lease(gpu.replace("/", "-"), level)


def _is_taken(path: Path) -> bool:
    """Whether somebody has the lease, or nobody can have it: what lies there is no file, or cannot be opened."""
    try:
        return Lease.is_held(path) or (durable.is_there(path) and not durable.is_plain(path))
    except OSError:
        return True
