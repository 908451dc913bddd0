"""Whether a processor trains a network faster in bfloat16: measured, as nothing that it says of itself tells.

Of processors with instructions for bfloat16, some gain 1.3 to 3 times by it and some lose, by up to five times where
one kernel of one layer is slow. What was measured is kept in `datasets/.cache/precision-*.json`, so that a job that
goes on later computes as before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pipeline.data.dataset import Dataset
from pipeline.home import durable
from pipeline.jobfile.spec import Spec
from pipeline.training.device import Setting, device_name
from pipeline.training.engine import build_model

WORTH_IT = 1.1  # times as fast, from which bfloat16 is worth its rounding
MOST_IMAGES = 32  # of a step that is measured
ROUNDS = 3  # and one before them, in which kernels are made and memory is fetched


def settle(setting: Setting, spec: Spec, dataset: Dataset, *, datasets: Path) -> Setting:
    """Returns the setting with float32 in the place of bfloat16 where `auto` has left it open and that is slower.

    datasets: the home's folder.
    """
    if spec.train.precision != "auto" or setting.device.type != "cpu" or setting.dtype is torch.float32:
        return setting
    about = {
        "processor": device_name(setting.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": spec.model.model_dump(mode="json"),
        "images": [min(MOST_IMAGES, spec.data.batch_size), dataset.train.channels, dataset.train.image_size],
        "channels_last": setting.memory_format is torch.channels_last,
    }
    gain = _kept(about, datasets)
    if gain is None:
        gain = measure(setting, spec, dataset)
        _keep(about, gain, datasets)
    return setting if gain >= WORTH_IT else dataclasses.replace(setting, dtype=torch.float32)


def measure(setting: Setting, spec: Spec, dataset: Dataset) -> float:
    """Returns how many times as fast a step of the network is in the setting's precision as in float32.

    Takes as long as eight steps of 32 images. Leaves torch's random state at another place.
    """
    num, train = min(MOST_IMAGES, spec.data.batch_size), dataset.train
    model = build_model(
        spec, num_classes=len(dataset.classes), channels=train.channels, image_size=train.image_size
    ).to(memory_format=setting.memory_format)
    images = torch.randn(num, train.channels, train.image_size, train.image_size)
    labels = torch.arange(num) % len(dataset.classes)

    def take_step(setting: Setting) -> float:
        given = images.to(setting.dtype, memory_format=setting.memory_format)
        began = time.perf_counter()
        with setting.autocast():
            loss = F.cross_entropy(model(given).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - began

    sides = (setting, dataclasses.replace(setting, dtype=torch.float32))
    rounds = [[take_step(side) for side in sides] for _ in range(1 + ROUNDS)][1:]
    half, full = map(min, zip(*rounds, strict=True))
    return float(full / half)


def _file(about: dict[str, Any], datasets: Path) -> Path:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    return datasets / ".cache" / f"precision-{digest}.json"


def _kept(about: dict[str, Any], datasets: Path) -> float | None:
    try:
        kept = durable.read_json(_file(about, datasets)) or {}
    except OSError:
        return None
    gain = kept.get("bf16_gain")
    return gain if isinstance(gain, float) and kept.get("about") == about else None


def _keep(about: dict[str, Any], gain: float, datasets: Path) -> None:
    path = _file(about, datasets)
    try:
        durable.make_folder(path.parent)
        durable.replace_json(path, {"about": about, "bf16_gain": gain}, indent=2)
    except OSError:  # a folder that cannot be written: the next attempt measures again
        return
