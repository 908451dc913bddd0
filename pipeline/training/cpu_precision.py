"""Whether a processor trains a network faster in bfloat16: measured, as nothing that it says of itself tells.

Of processors with instructions for bfloat16, some gain 1.3 to 3 times by it and some lose; so do those that other
programs keep busy, by up to five times. What was measured, and not disturbed, is kept for other jobs with that network,
in `datasets/.cache/precision-*.json`. A job that goes on computes as its checkpoint says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from pipeline.data.dataset import Dataset
from pipeline.home import durable
from pipeline.jobfile import own_files
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training.device import PRECISIONS, Setting, cpu_instructions, device_name
from pipeline.training.parts import build_model

WORTH_IT = 1.1  # times as fast, from which bfloat16 is worth its rounding
NUM_IMAGES = 32  # of 32 pixels, that a step is measured with; of larger ones fewer
MIN_ROUNDS = 4  # the first of which makes kernels and fetches memory
MEASURE_S = 0.2  # for which there are more of them, as a short step is easily disturbed
LIMIT_S = 5.0  # after which what is known must do
STEADY = 1.25  # times as long as the best step the second best may be; else this job alone goes by it


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
        "modules": {} if spec.model.entry.own is None else own_files.hashes(spec.model.entry.own.files()),
        "channels": dataset.train.channels,
        "image_size": dataset.train.image_size,
        "channels_last": setting.memory_format is torch.channels_last,
    }
    gain = _kept(about, datasets)
    if gain is None:
        found = measure(setting, spec, dataset, stop)
        gain = _keep(about, found.gain, datasets) if found.is_steady else found.gain
    return setting if gain >= WORTH_IT else dataclasses.replace(setting, dtype=torch.float32)


class Found(NamedTuple):
    """gain: how many times as fast a step is in bfloat16. is_steady: whether nothing seems to have disturbed it."""

    gain: float
    is_steady: bool


def measure(setting: Setting, spec: Spec, dataset: Dataset, stop: Stop) -> Found:
    """Compares steps of the network in the setting's precision with such in float32.

    The gain is the best of some steps beside the best of others, taken in turns: what else the processor does makes a
    step longer, and never shorter. Takes a fifth of a second or eight steps, and begins no more after LIMIT_S. Leaves
    torch's random state at another place. Raises Interrupted where it is asked to stop.
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
    times: dict[Setting, list[float]] = {full: [], setting: []}
    began, elapsed_s = time.perf_counter(), 0.0
    while len(times[full]) < 2 or (elapsed_s < LIMIT_S and (len(times[full]) < MIN_ROUNDS or elapsed_s < MEASURE_S)):
        for kind, taken in times.items():
            taken.append(take_step(kind))
        elapsed_s = time.perf_counter() - began
    best = {kind: sorted(taken)[:2] for kind, taken in times.items()}
    is_steady = all(second < STEADY * first for first, second in best.values())
    return Found(best[full][0] / best[setting][0], is_steady)


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
