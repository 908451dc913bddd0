"""The command `doctor`: checks of the home, the machine and the installation; what is missing, and what to do."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from typing import Literal

import typer

from pipeline.cli.arguments import Address, Json, On, make_home, print_json
from pipeline.cli.terminal import print_checks
from pipeline.errors import QueueError
from pipeline.home.paths import Home
from pipeline.queue.checks import Check, check_home
from pipeline.queue.job_queue import Queue


def doctor(context: typer.Context, on: On = None, address: Address = "auto", as_json: Json = False) -> None:
    """Check the home, the machine and the installation; with --on, what a node of the cluster sees, by a job there."""
    with contextlib.suppress(QueueError, OSError):  # the check of the home says why there can be none
        make_home(Queue(context.obj))
    found = check_all(context.obj)
    if on is not None:
        from pipeline.worker.executors import engines, probe

        engine = engines.make(on, address)
        assert engine is not None
        found += probe.check_cluster(context.obj, engine)
    if as_json:
        print_json([check.__dict__ for check in found])
    else:
        print_checks(found)
    if any(check.verdict == "error" for check in found):
        raise typer.Exit(1)


def check_all(home: Home) -> list[Check]:
    return [*check_home(home), check_python(), *check_torch(), check_processors()]


def check_python() -> Check:
    verdict: Literal["ok", "error"] = "ok" if sys.version_info >= (3, 11) else "error"
    return Check("python", verdict, f"{platform.python_version()} at {sys.executable}")


def check_processors() -> Check:
    return Check("processors", "ok", f"{os.cpu_count()}")


def check_torch() -> list[Check]:
    """Imports torch, which takes a second; so `doctor` alone does this."""
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:
        return [Check("torch", "error", f"cannot be imported: {error}; `make clean` and `make test` install it anew")]
    checks = [Check("torch", "ok", f"{torch.__version__}, torchvision {torchvision.__version__}")]
    if not torch.cuda.is_available():
        return [*checks, check_no_gpu()]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [*checks, *(Check(f"gpu {index}", "ok", name) for index, name in enumerate(names))]


def check_no_gpu() -> Check:
    """Where PyTorch sees no GPU: whether that is an error."""
    from pipeline.training.gpu_driver import why_no_gpu
    from pipeline.worker.gpus import visible_gpus

    gpus = visible_gpus()
    if not gpus:
        return Check("gpu", "ok", "none; jobs with device auto run on the CPU")
    return Check("gpu", "error", f"PyTorch does not see {', '.join(gpus)}: {why_no_gpu()}")
