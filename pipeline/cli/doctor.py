"""The command `doctor`: checks of the home, the machine and the installation; what is missing, and what to do."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path
from typing import Literal

import typer

from pipeline.cli.arguments import Address, Json, On, make_home, print_json
from pipeline.cli.terminal import print_checks
from pipeline.errors import QueueError
from pipeline.home.paths import Home
from pipeline.queue.checks import Check, check_home
from pipeline.queue.job_queue import Queue
from pipeline.worker import notifications

MARK_OF_MAKE = ".torch"  # in an environment that docker/install.sh has made


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
    return [*check_home(home), check_python(), *check_torch(), check_processors(), notifications.check()]


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
    from pipeline.training.gpu_driver import build

    checks = [Check("torch", "ok", f"{torch.__version__}, torchvision {torchvision.__version__}, {build()}")]
    sees_gpu = torch.cuda.is_available()
    checks += check_driver(is_in_use=sees_gpu)
    if not sees_gpu:
        return [*checks, check_no_gpu()]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [*checks, *(Check(f"gpu {index}", "ok", name) for index, name in enumerate(names))]


def check_driver(*, is_in_use: bool) -> list[Check]:
    """Whether PyTorch's build fits the driver. is_in_use: it does, whatever its version: by NVIDIA's cuda-compat."""
    from pipeline.training.gpu_driver import driver_is_new_enough

    found = driver_is_new_enough()
    if found is None:
        return []
    fits, text = found
    if fits or is_in_use:
        return [Check("driver", "ok", text)]
    return [Check("driver", "error", f"{text}; update it, or build images for it as docs/operations.md says")]


def check_no_gpu() -> Check:
    """Where PyTorch sees no GPU: whether that is an error, and whether a smaller PyTorch would do."""
    import torch

    from pipeline.training.gpu_driver import driver_version, why_no_gpu
    from pipeline.worker.gpus import VISIBLE, visible_gpus

    gpus = visible_gpus()
    if gpus:
        return Check("gpu", "error", f"PyTorch does not see {', '.join(gpus)}: {why_no_gpu()}")
    if driver_version() and VISIBLE not in os.environ:
        return Check("gpu", "warning", f"there is an NVIDIA driver, and jobs run on the CPU: {why_no_gpu()}")
    text = "none; jobs with device auto run on the CPU"
    if torch.version.cuda is not None and Path(sys.prefix, MARK_OF_MAKE).exists():
        text += ", for which `make clean` and `make demo TORCH=cpu` install a PyTorch that is 4 GB smaller"
    return Check("gpu", "ok", text)
