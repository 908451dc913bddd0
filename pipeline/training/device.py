"""Where and how a job computes: device, precision, memory format and determinism.

What a job file leaves at `auto` is decided here, from what the device is and from what was measured on such devices
(docs/benchmarks.md).
"""

from __future__ import annotations

import functools
import os
import platform
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import DeviceError
from pipeline.jobfile.spec import Spec
from pipeline.stop import LEASED_GPU
from pipeline.training.gpu_driver import open_early, why_no_gpu
from pipeline.wording import plural

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """How a job computes, with every `auto` decided."""

    device: torch.device
    dtype: torch.dtype  # of the forward and backward pass; weights are float32
    memory_format: torch.memory_format
    fused: bool
    compile: bool
    capture: bool  # a whole step as one CUDA graph
    onednn: bool = True  # whether a step on a CPU has its convolutions from there; an evaluation always has

    @property
    def precision(self) -> str:
        """The name that a job file has for it."""
        return next(name for name, dtype in PRECISIONS.items() if dtype is self.dtype)

    @property
    def in_words(self) -> str:
        """The precision, and what is not as it is by default, for the log."""
        contiguous = ["contiguous"] if self.memory_format is torch.contiguous_format else []
        return " ".join((self.precision, *contiguous, *([] if self.onednn else ["without oneDNN"])))

    def describe(self) -> dict[str, object]:
        """Returns all of it in words and numbers, for the manifest."""
        return {
            "device": str(self.device),
            "name": device_name(self.device),
            "uuid": gpu_uuid(self.device),
            "precision": self.precision,
            "channels_last": self.memory_format is torch.channels_last,
            "fused": self.fused,
            "compile": self.compile,
            "capture": self.capture,
            "onednn": self.onednn,
            "threads": torch.get_num_threads(),
        }

    def autocast(self) -> AbstractContextManager[None]:
        """Returns mixed precision. A weight is used once a step, so a cache of cast weights would only cost."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32, cache_enabled=False
        )

    def memory_mib(self) -> float:
        """Returns the most that was allocated on a GPU; on a CPU, this process's resident memory, 0 if unknown."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except OSError:
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def begin_to_choose(spec: Spec) -> Callable[[], Setting]:
    """Begins to open the job's GPU, and returns what waits for that and then decides, as `choose` does, once."""
    opening = open_early(spec.resources.device)

    @functools.cache
    def chosen() -> Setting:
        if opening is not None:
            opening.join()
        return choose(spec)

    return chosen


def choose(spec: Spec) -> Setting:
    """Decide what the job file leaves open. Raises DeviceError where the device that it names is not there."""
    train = spec.train
    device = _device(spec.resources.device)
    dtype = _fast_dtype(device, spec) if train.precision == "auto" else PRECISIONS[train.precision]
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else pinned memory and the like open the first GPU too
        _allow_tf32(dtype is not torch.float32)
    return Setting(
        device=device,
        dtype=dtype,
        memory_format=memory_format_of(spec),
        fused=train.fused is not False,
        compile=train.compile is True,
        capture=_captures(device, spec),
    )


def memory_format_of(spec: Spec) -> torch.memory_format:
    """Returns what images and weights have, but for steps of tiny batches on a CPU (`cpu_choice.py`)."""
    return torch.contiguous_format if spec.train.channels_last is False else torch.channels_last


def _captures(device: torch.device, spec: Spec) -> bool:
    """Whether steps are to be captured: of `auto`, those of a GPU whose code is all of this project or of PyTorch.

    What code of the user's own does in Python, a replay would not do. Raises DeviceError where it is asked for without
    a GPU.
    """
    train = spec.train
    if train.capture is True and device.type == "cpu":
        raise DeviceError("train.capture is true, and only a GPU's work can be captured; to train here: auto or false")
    if train.capture != "auto":
        return train.capture
    is_own = any(section.entry.own is not None for section in (spec.model, train.optimizer, train.loss))
    return device.type == "cuda" and not is_own and train.fused is not False


def _allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round factors of what is computed in float32 to 10 bits: convolutions and products alike.

    PyTorch allows it for convolutions alone. `fp32` means float32 here; in a half precision, what is left in float32
    need not be better. By the older switches: with the newer ones `torch.compile` of torch 2.10 fails (pytorch#166387).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions advise to use the newer ones
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if gpu := os.environ.get(LEASED_GPU):
            what = f"the job was given {gpu}, but PyTorch sees no GPU"
            raise DeviceError(f"{what}: {why_no_gpu()}. To train without: resources.device: cpu")
        return torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            what = f"resources.device is {name!r}, but PyTorch sees no GPU here"
            raise DeviceError(f"{what}: {why_no_gpu()}. To train without: auto or cpu")
        device = torch.device("cuda", device.index or 0)
        if device.index >= torch.cuda.device_count():
            found = plural(torch.cuda.device_count(), "GPU")
            raise DeviceError(f"resources.device is {name!r}, but PyTorch sees {found}, from cuda:0")
    return device


SMALL_BATCH = 32  # below it, casting the weights costs a CPU more than bf16 gains: 0.89 times at batch 4 of `net`


def _fast_dtype(device: torch.device, spec: Spec) -> torch.dtype:
    """What may be fastest; of a CPU it is measured later, and not for a job that is to be the same everywhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    capabilities = _cpu_capabilities()
    has_it = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    is_open = spec.data.batch_size >= SMALL_BATCH and not spec.train.deterministic
    return torch.bfloat16 if has_it and is_open else torch.float32


def _cpu_capabilities() -> dict[str, Any]:
    """Returns what torch knows of the processor; nothing where torch is too old to tell."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities


def cpu_instructions() -> list[str]:
    """Returns the instruction sets that torch knows of, which tell processors of one name apart."""
    return sorted(name for name, value in _cpu_capabilities().items() if value is True)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(_cpu_capabilities().get("cpu_name") or platform.processor() or platform.machine())


def gpu_uuid(device: torch.device) -> str | None:
    """Returns the GPU's UUID, as nvidia-smi lists it after `GPU-`, or None on a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def use_onednn(is_used: bool) -> None:
    """Let this process compute convolutions on the CPU with oneDNN, as is the default, or with PyTorch's own code."""
    torch.backends.mkldnn.enabled = is_used  # type: ignore[assignment] # a property of the module


def make_deterministic() -> None:
    """Allow deterministic kernels alone. Must come before the first use of CUDA, and before a compiler is loaded.

    As `torch.use_deterministic_algorithms` does, which imports `torch._inductor` to tell it so, in 1.3 s.
    Inductor, once it is imported, reads the same from the environment.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # it costs, for nothing
