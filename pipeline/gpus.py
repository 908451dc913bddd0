"""GPUs of a machine shared out: each job gets one of its own, as long as there are enough; then they are shared evenly.

Workers know of one another only by the leases in their queue. Nothing here imports torch or opens a GPU.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.lease import Lease
from pipeline.paths import QueuePaths

VISIBLE = "CUDA_VISIBLE_DEVICES"
NVIDIA_SMI_S = 30.0  # it wakes a driver that sleeps
MOST_JOBS_ON_ONE = 64


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What a process started here may compute on: the entries of CUDA_VISIBLE_DEVICES, else UUIDs; none without any."""
    if VISIBLE in environment:
        return [entry for entry in map(str.strip, environment[VISIBLE].split(",")) if entry not in ("", "-1")]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return uuids(done.stdout)


def uuids(listing: str) -> list[str]:
    """Of the GPUs in the output of `nvidia-smi -L`; of one that is divided (MIG), its parts."""
    found: list[str] = []
    for uuid in re.findall(r"UUID: ((?:GPU|MIG)-[\w/-]+)", listing):
        if uuid.startswith("MIG-") and found and found[-1].startswith("GPU-"):
            found.pop()  # its parts follow it, and it cannot be used as a whole
        found.append(uuid)
    return found


@dataclass(frozen=True)
class Place:
    """A job's right to compute on a GPU, as long as it or its worker holds the lease."""

    gpu: str
    lease: Lease
    environment: dict[str, str]


@dataclass(frozen=True)
class Gpus:
    queue: QueuePaths
    all: tuple[str, ...]

    def take(self, device: str) -> Place | None:
        """A place for a job with this `resources.device`; None where it computes on no GPU that is known.

        A device with a number is the one that the job file wants, among all of them.
        """
        kind, _, index = device.partition(":")
        wanted = self.all[int(index) : int(index) + 1] if index else self.all
        if kind == "cpu":
            return None
        for level in range(MOST_JOBS_ON_ONE):
            for gpu in wanted:
                lease = Lease.acquire(self.queue.gpu_lease(gpu.replace("/", "-"), level))
                if lease is not None:
                    return Place(gpu, lease, {} if index else {VISIBLE: gpu})
        return None
