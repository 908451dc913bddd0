"""A GPU opened early, and what is said of a driver that PyTorch cannot use.

Libraries of the tests' own stand in for the driver's and for CUDA's runtime.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training import gpu_driver

compiler = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(compiler is None, reason="needs a C compiler")
MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version:  gcc 11\n"
Driver = Callable[[int, int], None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Installs a driver that supports a version of CUDA, or answers with an error."""
    (tmp_path / "version").write_text(MODULE)
    monkeypatch.setattr(gpu_driver, "KERNEL_MODULE", tmp_path / "version")

    def install(version: int, error: int = 0) -> None:
        source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so.1"
        source.write_text(f"int cuDriverGetVersion(int *v) {{ *v = {version}; return {error}; }}")
        subprocess.run([str(compiler), "-shared", "-fPIC", source, "-o", library], check=True)
        opened = ctypes.CDLL(str(library))
        monkeypatch.setattr(ctypes, "CDLL", lambda name: {"libcuda.so.1": opened}[name])

    return install


def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(12020, 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert gpu_driver.why_no_gpu() == (
        "the NVIDIA driver 535.104.05 supports CUDA 12.2, and this PyTorch is built for CUDA 13.0, "
        "which needs driver 580 or later"
    )


def test_a_driver_of_the_same_major_version_is_not_blamed(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(12020, 0)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    new_enough = "the NVIDIA driver 535.104.05 is new enough, but no GPU is usable: "
    assert gpu_driver.why_no_gpu() == f"{new_enough}see nvidia-smi"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert gpu_driver.why_no_gpu() == f"{new_enough}CUDA_VISIBLE_DEVICES is '7'; see nvidia-smi -L"


def test_a_version_of_cuda_that_is_not_known_yet_needs_a_later_driver(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(13000, 0)
    monkeypatch.setattr(torch.version, "cuda", "99.1")
    assert gpu_driver.why_no_gpu().endswith("built for CUDA 99.1, which needs a later driver")


def test_a_system_without_a_driver_is_told_so(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    driver(0, 999)
    assert "no NVIDIA driver" in gpu_driver.why_no_gpu()

    def none(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert "no NVIDIA driver" in gpu_driver.why_no_gpu()


def test_a_pytorch_without_cuda_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in gpu_driver.why_no_gpu()


RUNTIME = """
#include <unistd.h>
volatile int is_released = 0, opened = -1, has_context = 0;
int cudaSetDevice(int number) {
  for (int turn = 0; !is_released; turn++) {
    if (turn == 10000) return 1;
    usleep(1000);
  }
  opened = number;
  return 0;
}
int cudaFree(void *at) { has_context = at == 0; return 0; }
"""


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:3", 3)])
def test_a_gpu_is_opened_while_python_goes_on(
    device: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, library = tmp_path / "cudart.c", tmp_path / "cudart.so"
    source.write_text(RUNTIME)
    subprocess.run([str(compiler), "-shared", "-fPIC", source, "-o", library], check=True)
    runtime = ctypes.CDLL(str(library))
    is_released, opened, has_context = (
        ctypes.c_int.in_dll(runtime, name) for name in ("is_released", "opened", "has_context")
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: {None: runtime}[name])
    thread = gpu_driver.open_early(device)
    assert thread is not None
    assert opened.value == -1
    is_released.value = 1  # which nobody could do, had the call kept Python's lock
    thread.join()
    assert (opened.value, has_context.value) == (number, 1)


def test_no_gpu_is_opened_for_a_job_on_the_cpu_or_by_a_pytorch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert gpu_driver.open_early("cpu") is None
    monkeypatch.setattr(torch.version, "cuda", None)
    assert gpu_driver.open_early("auto") is None


def test_a_pytorch_without_a_runtime_to_be_found_opens_the_gpu_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: {None: object()}[name])
    thread = gpu_driver.open_early("auto")
    assert thread is not None
    thread.join()
