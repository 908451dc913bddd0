"""Provenance of a run: what would have to be the same for the same result, in `manifest.json`, once an attempt."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import pipeline
from pipeline.data.dataset import Dataset
from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.home.records import now
from pipeline.jobfile import own_files
from pipeline.jobfile.spec import Spec
from pipeline.training.device import Setting

PACKAGES = ("torch", "torchvision", "tensorboard", "numpy", "pillow", "pydantic")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # environment variable, as the worker or the user has set it
IMAGE_DIGEST = "PIPELINE_IMAGE_DIGEST"  # environment variables, set in a container
REVISION = "PIPELINE_REVISION"  # the commit that the image was built from; with "-dirty" if files differed from it


def spec_hash(spec: Spec) -> str:
    """Returns the hash of the spec with every default filled in: order and spelling of a job file do not count.

    Nor does what the job waited for.
    """
    fields = {name: value for name, value in spec.model_dump(mode="json").items() if name != "after"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def write(
    run: RunPaths,
    spec: Spec,
    dataset: Dataset,
    setting: Setting,
    *,
    job_id: str,
    attempt: int,
    begun_with: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Add this attempt to the run's manifest, and return all of it.

    begun_with: where its first weights are from, if this attempt has begun with such of another network.
    """
    before = durable.read_json(run.manifest) or {}
    begun_with = begun_with or before.get("begun_with")
    entry = {"attempt": attempt, "started_at": now(), **environment(), "computes": setting.describe()}
    manifest = {
        "id": job_id,
        "spec_sha256": spec_hash(spec),
        **({"modules": own_files.hashes(files)} if (files := spec.own_files()) else {}),  # SHA-256 by file
        **({"begun_with": begun_with} if begun_with else {}),
        "seed": spec.train.seed,
        "dataset": {
            "name": spec.data.name,
            "sha256": dataset.fingerprint,
            **dataset.sizes,
            "classes": list(dataset.classes),
            "channels": dataset.train.channels,
            "image_size": dataset.train.image_size,
            "mean": dataset.mean,  # per channel, of pixels in [0, 1], as is the deviation
            "std": dataset.std,
        },
        "attempts": [*before.get("attempts", []), entry],
    }
    durable.replace_json(run.manifest, manifest, indent=2)
    return manifest


def latest_setting(run: RunPaths) -> dict[str, Any]:
    """Returns how the attempt before this one computed; nothing where that is not known."""
    try:
        return dict(((durable.read_json(run.manifest) or {})["attempts"])[-1]["computes"])
    except (OSError, LookupError, TypeError, ValueError):
        return {}


def environment() -> dict[str, Any]:
    """Returns what this process runs on and from: code, versions, image."""
    return {
        "code": {"version": pipeline.__version__, **_git()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
        "cluster_job": os.environ.get("SLURM_JOB_ID"),
        "visible_gpus": os.environ.get(VISIBLE_GPUS),
        "image_digest": os.environ.get(IMAGE_DIGEST) or None,
    }


def _git() -> dict[str, Any]:
    """Returns the commit of the code and whether files differ from it; None each where it is in no checkout."""
    if revision := os.environ.get(REVISION):
        return {"commit": revision.removesuffix("-dirty"), "dirty": revision.endswith("-dirty")}
    folder = Path(pipeline.__file__).parent  # not of this file, which lies deeper
    try:
        if Path(_output(folder, "rev-parse", "--show-toplevel")) != folder.parent.resolve():
            return {"commit": None, "dirty": None}  # somebody else's checkout, with an environment in it
        commit = _output(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_output(folder, "status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _output(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
