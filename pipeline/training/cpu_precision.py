"""Whether a processor trains a network faster in bfloat16: measured, as nothing that it says of itself tells.

Of processors with instructions for bfloat16, some gain 1.3 to 3 times by it and some lose, by up to five times where
one kernel of one layer is slow. What was measured is kept in `datasets/.cache/precision-*.json`, for other jobs with
that network. A job that goes on computes as its checkpoint says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pipeline.data.dataset import Dataset
from pipeline.home import durable
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training.device import PRECISIONS, Setting, cpu_instructions, device_name
from pipeline.training.engine import build_model

WORTH_IT = 1.1  # times as fast, from which bfloat16 is worth its rounding
NUM_IMAGES = 32  # of 32 pixels, that a step is measured with; of larger ones fewer
ROUNDS = 5  # and one before them, in which kernels are made and memory is fetched
LIMIT_S = 5.0  # after which what is known must do


def settle(
    setting: Setting, spec: Spec, dataset: Dataset, *, datasets: Path, stop: Stop, before: str | None = None
) -> Setting:
    """Returns the setting with the precision that `auto` is for this network on this processor.

    Nothing is changed on a GPU, or where the job file names a precision. datasets: the home's folder. before: the
    precision that the job was trained in so far. Raises Interrupted where it is asked to stop.
    """
    if spec.train.precision != "auto" or setting.device.type != "cpu":
        return setting
    if before in PRECISIONS:
        return dataclasses.replace(setting, dtype=PRECISIONS[before])
    if setting.dtype is torch.float32:
        return setting
    about = {
        "processor": device_name(setting.device),
        "instructions": cpu_instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": spec.model.model_dump(mode="json"),
        "channels": dataset.train.channels,
        "image_size": dataset.train.image_size,
        "channels_last": setting.memory_format is torch.channels_last,
    }
    gain = _kept(about, datasets)
    if gain is None:
        gain = _keep(about, measure(setting, spec, dataset, stop), datasets)
    return setting if gain >= WORTH_IT else dataclasses.replace(setting, dtype=torch.float32)


def measure(setting: Setting, spec: Spec, dataset: Dataset, stop: Stop) -> float:
    """Returns how many times as fast a step of the network is in the setting's precision as in float32: the median of
    some rounds. Raises Interrupted where it is asked to stop.

    Takes as long as a dozen steps, or some seconds. Leaves torch's random state at another place.
    """
    size, channels = dataset.train.image_size, dataset.train.channels
    num = max(2, NUM_IMAGES * 32**2 // max(32, size) ** 2)
    model = build_model(spec, num_classes=len(dataset.classes), channels=channels, image_size=size)
    model.to(memory_format=setting.memory_format)
    images, labels = torch.randn(num, channels, size, size), torch.arange(num) % len(dataset.classes)

    def take_step(setting: Setting) -> float:
        stop.check()
        given = images.to(setting.dtype, memory_format=setting.memory_format)
        began = time.perf_counter()
        with setting.autocast():
            loss = F.cross_entropy(model(given).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - began

    full = dataclasses.replace(setting, dtype=torch.float32)
    deadline, gains = time.perf_counter() + LIMIT_S, []
    for _ in range(1 + ROUNDS):
        gains.append(take_step(full) / take_step(setting))
        if time.perf_counter() > deadline:
            break
    return statistics.median(gains[1:] or gains)


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


def _keep(about: dict[str, Any], gain: float, datasets: Path) -> float:
    """Returns what is kept: of two jobs that measure at once, what the first one found."""
    path = _file(about, datasets)
    with contextlib.suppress(OSError):  # a folder that cannot be written: the next job measures again
        durable.make_folder(path.parent)
        record = {"about": about, "bf16_gain": gain}
        try:
            durable.create(path, durable.to_json(record), by_way_of=path.parent)
        except FileExistsError:
            if (first := _kept(about, datasets)) is not None:
                return first
            durable.replace_json(path, record)  # what lies there says nothing
    return gain
