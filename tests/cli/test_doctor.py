"""doctor tells a good home from a bad one."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torchvision
from cli_runs import Pipeline

from pipeline.cli import doctor
from pipeline.home.paths import Home
from pipeline.queue import checks
from pipeline.training import gpu_driver


def test_doctor_tells_a_good_home_from_a_bad_one(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    verdicts = {check.name: check.verdict for check in checks.check_home(home)}
    assert verdicts["home"] == "ok"
    assert verdicts.keys() == {"home", "filesystem", "free disk", "workers"}

    (tmp_path / "file").touch()
    bad = pipeline("doctor", "--json", home=Home(tmp_path / "file" / "x"))
    assert bad.returncode == 1
    found = {check["name"]: check for check in json.loads(bad.stdout)}
    assert found["home"]["verdict"] == "error"
    assert found["home"]["text"].endswith("choose another with --home or PIPELINE_HOME")
    assert {"python", "torch", "processors"} <= found.keys()


@pytest.mark.parametrize(("kind", "verdict"), [("ext4", "ok"), ("nfs4", "error"), ("overlay", "warning")])
def test_doctor_judges_the_filesystem_where_the_queue_lies(
    kind: str, verdict: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the queue is a volume of its own, in a home of another kind."""
    other = "nfs4" if verdict == "ok" else "ext4"
    monkeypatch.setattr(checks, "filesystem_of", lambda path: kind if path == home.queue.root else other)
    assert {check.name: check.verdict for check in checks.check_home(home)}["filesystem"] == verdict


def test_doctor_measures_the_disk_that_runs_are_written_to(home: Home, small_disk: Path) -> None:
    home.root.mkdir()
    home.runs.symlink_to(small_disk)
    (disk,) = (check for check in checks.check_home(home) if check.name == "free disk")
    assert (disk.verdict, disk.text) == ("warning", "0.0 GiB")


# PyTorch and the driver

GPU = "GPU-11111111-2222-3333-4444-555555555555"


@dataclass
class Machine:
    """A machine with a driver or without, and a PyTorch that sees no GPU."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def has_driver(self, version: str, *, nvidia_smi: bool = True) -> None:
        module = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Sat Aug 19\nGCC version:  gcc 11\n"
        gpu_driver.KERNEL_MODULE.write_text(module)
        if nvidia_smi:
            (self.folder / "nvidia-smi").write_text(f"#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: {GPU})'\n")
            (self.folder / "nvidia-smi").chmod(0o755)

    def checks(self, cuda: str | None) -> dict[str, tuple[str, str]]:
        """By name: verdict and text."""
        self.monkeypatch.setattr(torch.version, "cuda", cuda)
        return {check.name: (check.verdict, check.text) for check in doctor.check_torch()}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(gpu_driver, "KERNEL_MODULE", tmp_path / "version")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(("cuda", "said"), [("13.0", "built for CUDA 13.0"), (None, "built for the CPU alone")])
def test_doctor_says_which_build_of_pytorch_is_there(machine: Machine, cuda: str | None, said: str) -> None:
    verdict, text = machine.checks(cuda)["torch"]
    assert verdict == "ok"
    assert text == f"{torch.__version__}, torchvision {torchvision.__version__}, {said}"


@pytest.mark.parametrize(
    ("version", "cuda", "verdict", "text"),
    [
        ("580.65.06", "13.0", "ok", "NVIDIA 580.65.06; CUDA 13.0 needs 580 or later"),
        ("580.65.06", "13.2", "ok", "NVIDIA 580.65.06; CUDA 13.2 needs 580 or later"),
        ("575.57.08", "13.0", "error", "NVIDIA 575.57.08; CUDA 13.0 needs 580 or later; update it"),
        ("525.60.13", "12.9", "ok", "NVIDIA 525.60.13; CUDA 12.9 needs 525 or later"),
        ("520.61.05", "12.0", "error", "NVIDIA 520.61.05; CUDA 12.0 needs 525 or later; update it"),
    ],
)
def test_doctor_judges_whether_the_driver_is_new_enough(
    machine: Machine, version: str, cuda: str, verdict: str, text: str
) -> None:
    machine.has_driver(version)
    found = machine.checks(cuda)["driver"]
    assert found[0] == verdict
    assert found[1].startswith(text)


def test_doctor_names_the_way_from_a_pytorch_without_cuda_to_one_with_it(machine: Machine) -> None:
    machine.has_driver("580.65.06")
    checks = machine.checks(None)
    assert "driver" not in checks
    verdict, text = checks["gpu"]
    assert verdict == "error"
    assert GPU in text
    assert "`make clean`, then `make demo` without TORCH=cpu" in text


def test_doctor_warns_where_a_driver_is_all_that_is_seen_of_a_gpu(machine: Machine) -> None:
    machine.has_driver("580.65.06", nvidia_smi=False)
    verdict, text = machine.checks(None)["gpu"]
    assert verdict == "warning"
    assert "`make clean`" in text
    machine.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.checks(None)["gpu"][0] == "ok", "hidden on purpose"


@pytest.mark.parametrize(
    ("cuda", "by_make", "is_told"), [("13.0", True, True), ("13.0", False, False), (None, True, False)]
)
def test_doctor_tells_of_the_smaller_pytorch_where_no_gpu_is(
    machine: Machine, cuda: str | None, by_make: bool, is_told: bool
) -> None:
    """In an environment that `make` has made: one of an image, or of the user's, is not for `make clean`."""
    if by_make:
        (machine.folder / doctor.MARK_OF_MAKE).write_text("cuda")
    checks = machine.checks(cuda)
    assert "driver" not in checks
    assert checks["gpu"][0] == "ok"
    assert ("`make demo TORCH=cpu`" in checks["gpu"][1]) == is_told
