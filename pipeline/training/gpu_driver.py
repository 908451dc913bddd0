"""A GPU opened ahead of PyTorch; and why PyTorch sees none where there should be one, nearly always an old driver."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
from pathlib import Path

import torch

OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""The driver that each major version of CUDA needs at least, whatever its minor version.

From NVIDIA's "CUDA Compatibility", chapter "Minor Version Compatibility".
"""
KERNEL_MODULE = Path("/proc/driver/nvidia/version")


def open_early(device: str) -> threading.Thread | None:
    """Begins to open the GPU that a job may compute on, and returns the thread that does, to be waited for.

    To open a GPU takes most of a second, and PyTorch holds Python's lock all the while; a call by ctypes gives it up.
    It makes what belongs to the whole process, which PyTorch's own calls then find. An error they meet again, and tell.
    Until the thread has ended, no environment variable may be set: CUDA reads some, and C has no lock for them.

    device: as a job file names it.
    """
    if device == "cpu" or torch.version.cuda is None:
        return None
    thread = threading.Thread(target=_open, args=(int(device.partition(":")[2] or 0),))
    thread.start()
    return thread


def _open(index: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # a PyTorch that has the runtime inside
        runtime = ctypes.CDLL(None)  # PyTorch's, as it is loaded
        if runtime.cudaSetDevice(index) == 0:
            runtime.cudaFree(None)  # makes the context, which before CUDA 12 the other call does not


def why_no_gpu() -> str:
    """Says what keeps PyTorch from seeing a GPU, and what to do about it."""
    if torch.version.cuda is None:
        return (
            "this PyTorch is built without CUDA; `make clean`, then `make demo` without TORCH=cpu, installs the other"
        )
    supported, needed = supported_cuda(), int(torch.version.cuda.partition(".")[0])
    if supported is None:
        return "no NVIDIA driver is to be found (libcuda.so.1); install one, or give the container the GPU"
    if supported[0] >= needed:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        chosen = "see nvidia-smi" if visible is None else f"CUDA_VISIBLE_DEVICES is {visible!r}; see nvidia-smi -L"
        return f"the NVIDIA driver{driver_version()} is new enough, but no GPU is usable: {chosen}"
    oldest = OLDEST_DRIVERS.get(needed)
    return (
        f"the NVIDIA driver{driver_version()} supports CUDA {_dotted(supported)}, and this PyTorch is built for CUDA "
        f"{torch.version.cuda}, which needs {f'driver {oldest} or later' if oldest else 'a later driver'}"
    )


def build() -> str:
    """Says what this PyTorch is built for."""
    if torch.version.cuda is not None:
        return f"built for CUDA {torch.version.cuda}"
    return f"built for ROCm {torch.version.hip}" if torch.version.hip is not None else "built for the CPU alone"


def driver_is_new_enough() -> tuple[bool, str] | None:
    """Returns whether the driver here fits this PyTorch, and why; None where there is no driver, or PyTorch needs none.

    By the driver's version, which a container and a machine whose GPU does not answer have, too.
    """
    version = driver_version().strip()
    if not version or torch.version.cuda is None:
        return None
    oldest = OLDEST_DRIVERS.get(int(torch.version.cuda.partition(".")[0]))
    if oldest is None:
        return True, f"NVIDIA {version}; what CUDA {torch.version.cuda} needs is not known here"
    needs = f"NVIDIA {version}; CUDA {torch.version.cuda} needs {oldest} or later"
    return int(version.partition(".")[0]) >= oldest, needs


def supported_cuda() -> tuple[int, int] | None:
    """Returns the version of CUDA that the driver supports; None where there is no driver. Opens no GPU."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def driver_version() -> str:
    """Returns the driver's own version after a space, as ` 535.104.05`; nothing where the system does not tell."""
    try:
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", KERNEL_MODULE.read_text())
    except OSError:
        found = None
    return f" {found[1]}" if found else ""


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
