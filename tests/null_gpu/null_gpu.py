"""A GPU that computes nothing, for processes of the tests' own: what PyTorch launches, copies and waits for is noted.

`environment` builds two libraries, once, and says how a process is started on them. Inside it, `Recording` tells what
happened, and `replace_convolutions` is called once: for their plans, PyTorch asks cuDNN in ways that need a device.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

HERE = Path(__file__).parent
COMPILE = ("g++", "-std=c++17", "-O1", "-shared", "-fPIC")


class CannotBuild(Exception):
    """The machine lacks what the libraries are made from; the message says what."""


def environment(folder: Path) -> dict[str, str]:
    """Builds the libraries in a folder, and returns the variables that a process needs to be started on them."""
    compiler = shutil.which(COMPILE[0])
    if compiler is None:
        raise CannotBuild("a null GPU needs g++")
    subprocess.run([*COMPILE, HERE / "driver.cpp", "-o", folder / "libcuda.so.1"], check=True)
    library, sources = folder / "null_gpu.so", (HERE / "runtime.cpp", HERE / "libraries.cpp")
    subprocess.run([*COMPILE, f"-I{HERE}", f"-I{headers()}", *sources, "-o", library], check=True)
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    return {"LD_PRELOAD": str(library), "LD_LIBRARY_PATH": paths, "CUDA_MODULE_LOADING": "LAZY"}


def headers() -> Path:
    """Where the headers of the CUDA runtime are that PyTorch was built with; they come with it."""
    if not (torch.version.cuda or "").startswith("13."):
        raise CannotBuild(f"a null GPU is of CUDA 13, and PyTorch here of {torch.version.cuda}")
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        found = Path(root) / "cu13" / "include"
        if (found / "driver_types.h").exists():
            return found
    raise CannotBuild("a null GPU needs the headers of nvidia-cuda-runtime, which come with PyTorch")


class Recording:
    """What happened while it was entered."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        _library().null_gpu_record(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        library = _library()
        self.lines = [library.null_gpu_line(number).decode() for number in range(library.null_gpu_count())]
        library.null_gpu_record(0)

    @property
    def launches(self) -> int:
        return sum(line.startswith("kernel") for line in self.lines)

    @property
    def waits(self) -> Counter[str]:
        """Each wait, and each copy that waits, by what is said of it."""
        copies = [re.sub(r" \d+$", "", line) for line in self.lines if "pageable" in line]
        return Counter([line for line in self.lines if line.startswith("wait")] + copies)

    @property
    def copies(self) -> Counter[str]:
        """From and to which kind of memory."""
        return Counter(line.split()[1] for line in self.lines if line.startswith("copy"))


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)  # it is in this process already
    library.null_gpu_line.restype, library.null_gpu_line.argtypes = ctypes.c_char_p, [ctypes.c_size_t]
    library.null_gpu_count.restype = ctypes.c_size_t
    library.null_gpu_note.argtypes = [ctypes.c_char_p]
    return library


def replace_convolutions() -> torch.library.Library:
    """Lets a convolution be one launch forward, and one for each gradient backward; keep what is returned.

    What they launch beside that, to add a bias and to sum its gradient, they launch here too.
    """
    library = torch.library.Library("aten", "IMPL")
    library.impl("convolution", _convolution, "CUDA")
    library.impl("convolution_backward", _convolution_backward, "CUDA")
    return library


def _like(values: torch.Tensor, shape: Sequence[int], *others: torch.Tensor) -> torch.Tensor:
    is_channels_last = any(each.is_contiguous(memory_format=torch.channels_last) for each in (values, *others))
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=values.dtype, device=values.device, memory_format=layout)


def _convolution(
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    *_: object,
) -> torch.Tensor:
    assert images.device == weight.device
    assert images.dtype == weight.dtype
    _library().null_gpu_note(b"kernel convolution")
    sides = [
        (images.shape[2 + n] + 2 * padding[n] - dilation[n] * (weight.shape[2 + n] - 1) - 1) // stride[n] + 1
        for n in range(2)
    ]
    found = _like(images, [images.shape[0], weight.shape[0], *sides], weight)
    return found if bias is None else found.add_(bias.reshape(1, -1, 1, 1))


def _convolution_backward(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, *rest: object
) -> tuple[torch.Tensor | None, ...]:
    wanted = rest[-1]
    assert isinstance(wanted, list)
    found: list[torch.Tensor | None] = []
    for of, is_wanted in zip((images, weight), wanted, strict=False):
        if is_wanted:
            _library().null_gpu_note(b"kernel convolution_backward")
        found.append(_like(of, of.shape, images, weight) if is_wanted else None)
    return (*found, gradient.sum((0, 2, 3)) if wanted[2] else None)
