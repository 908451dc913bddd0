"""What a processor trains a network fastest with, of what the job file leaves open: measured, as nothing foretells it.

- *bfloat16 or float32*, where there are instructions for bfloat16: some processors gain 1.3 to 3 times by it and some
  lose; so do those that other programs keep busy, by up to five times.
- *oneDNN and the memory format*, for tiny batches in float32. oneDNN prepares each convolution and orders its weights
  anew, which is most of a step's time there: without it, `net` is 1.4 times as fast at 1 and 2 images and 1.1
  times at 4; from 16 on it takes twice as long. A network with many weights gains by contiguous ones.

What was measured, and not disturbed, is kept for other jobs with that network, in `datasets/.cache/measured-*.json`.
What other programs disturbed decides on bfloat16 for that attempt alone, and on tiny batches nothing: of steps as
short as theirs it says little. A job that goes on computes as its checkpoint says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from pipeline.data.dataset import Dataset
from pipeline.home import durable
from pipeline.jobfile import own_files
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training.device import PRECISIONS, Setting, cpu_instructions, device_name, use_onednn
from pipeline.training.parts import build_model

WORTH_IT = 1.1  # times as fast, from which another way is worth its rounding
TINY_BATCH = 8  # images of 32 pixels, up to which oneDNN may cost more than it gains; of larger ones fewer
NUM_IMAGES = 32  # of 32 pixels, that a step is measured with; of larger ones fewer
MIN_ROUNDS = 4  # the first of which makes kernels and fetches memory
MEASURE_S = 0.2  # for which there are more of them, as a short step is easily disturbed
LIMIT_S = 5.0  # after which what is known must do
STEADY = 1.25  # times as long as the best step a quarter of them may at most be, if nothing disturbed them
MOST_WAITED = 0.1
"""Of a measurement, by all threads for a processor; beside others on two of them it was 0.7 to 0.9, alone 0.001."""


def settle(
    setting: Setting,
    spec: Spec,
    dataset: Dataset,
    *,
    datasets: Path,
    stop: Stop,
    before: Mapping[str, Any] | None = None,
) -> Setting:
    """Returns the setting with what `auto` is for this network on this processor.

    Nothing is changed on a GPU, of what the job file names, or of a deterministic job, which is the same everywhere.
    datasets: the home's folder. before: what `Setting.describe` said of the job so far. Raises Interrupted where it is
    asked to stop.
    """
    if setting.device.type != "cpu":
        return setting
    if before is not None and before.get("precision") in PRECISIONS:
        return _as_before(setting, spec, before)
    ways = ways_to_compute(setting, spec, image_size=dataset.train.image_size)
    if len(ways) == 1:
        return ways[0]
    about = {
        "processor": device_name(setting.device),
        "instructions": cpu_instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": spec.model.model_dump(mode="json"),
        "modules": {} if spec.model.entry.own is None else own_files.hashes(spec.model.entry.own.files()),
        "channels": dataset.train.channels,
        "image_size": dataset.train.image_size,
        "images": _num_images(spec, dataset),
        "ways": [way.in_words for way in ways],
    }
    gains = _kept(about, datasets)
    if gains is None:
        found = measure(ways, spec, dataset, stop)
        if not found.is_steady and setting.dtype is torch.float32:
            return ways[0]
        gains = _keep(about, found.gains, datasets) if found.is_steady else found.gains
    gain, fastest = max(zip(gains, ways, strict=True), key=lambda pair: pair[0])
    return fastest if gain >= WORTH_IT else ways[0]


def ways_to_compute(setting: Setting, spec: Spec, *, image_size: int) -> list[Setting]:
    """Returns what may be the fastest; first what holds where no other one is worth it."""
    train, batch_size = spec.train, spec.data.batch_size
    if train.precision == "auto" and setting.dtype is not torch.float32:
        return [dataclasses.replace(setting, dtype=torch.float32), setting]
    is_tiny = batch_size * max(32, image_size) ** 2 <= TINY_BATCH * 32**2
    is_open = train.channels_last == "auto" and not (train.deterministic or setting.compile)
    if not (is_tiny and is_open and setting.dtype is torch.float32):
        return [setting]
    contiguous = dataclasses.replace(setting, memory_format=torch.contiguous_format)
    return [setting, contiguous, dataclasses.replace(contiguous, onednn=False)]


def _as_before(setting: Setting, spec: Spec, before: Mapping[str, Any]) -> Setting:
    """Returns the setting with what an attempt before had chosen; what it did not note, as every job once had it."""
    train, found = spec.train, setting
    if train.precision == "auto":
        found = dataclasses.replace(found, dtype=PRECISIONS[before["precision"]])
    if train.channels_last == "auto" and before.get("channels_last") is False:
        found = dataclasses.replace(
            found, memory_format=torch.contiguous_format, onednn=before.get("onednn") is not False
        )
    return found


class Found(NamedTuple):
    """gains: of each way, how many times as fast as the first it is. is_steady: whether nothing disturbed it."""

    gains: list[float]
    is_steady: bool


def measure(ways: Sequence[Setting], spec: Spec, dataset: Dataset, stop: Stop) -> Found:
    """Compares steps of the network, computed in each of these ways.

    A gain is the best of some steps beside the best of others, taken in turns: what else the processor does makes a
    step longer, and never shorter. Takes a fifth of a second or four turns, and begins no more after LIMIT_S. Leaves
    torch's random state at another place. Raises Interrupted where it is asked to stop.
    """
    size, channels = dataset.train.image_size, dataset.train.channels
    images = torch.randn(_num_images(spec, dataset), channels, size, size)
    labels = torch.arange(len(images)) % len(dataset.classes)
    models = {
        way.memory_format: build_model(spec, num_classes=len(dataset.classes), channels=channels, image_size=size).to(
            memory_format=way.memory_format
        )
        for way in ways
    }

    def take_step(way: Setting) -> float:
        stop.check()
        given = images.to(way.dtype, memory_format=way.memory_format)
        use_onednn(way.onednn)
        began = time.perf_counter()
        with way.autocast():
            loss = F.cross_entropy(models[way.memory_format](given).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        taken_s = time.perf_counter() - began
        models[way.memory_format].zero_grad()  # a gradient that is added to one costs more than a new one
        return taken_s

    times: list[list[float]] = [[] for _ in ways]
    began, elapsed_s, num_rounds, waited_s = time.perf_counter(), 0.0, 0, _waited_s()
    try:
        while num_rounds < 2 or (elapsed_s < LIMIT_S and (num_rounds < MIN_ROUNDS or elapsed_s < MEASURE_S)):
            for way, taken in zip(ways, times, strict=True):
                taken.append(take_step(way))
            num_rounds += 1
            elapsed_s = time.perf_counter() - began
    finally:
        use_onednn(True)
    ascending = [sorted(taken) for taken in times]
    gains = [ascending[0][0] / taken[0] for taken in ascending]
    is_even = all(taken[max(1, num_rounds // 4)] < STEADY * taken[0] for taken in ascending)
    return Found(gains, is_steady=is_even and _waited_s() - waited_s < MOST_WAITED * elapsed_s)


def _waited_s() -> float:
    """Returns how long the threads of this process have waited for a processor so far; 0 where that is not known."""
    try:
        return sum(int(file.read_text().split()[1]) for file in Path("/proc/self/task").glob("*/schedstat")) / 1e9
    except (OSError, LookupError, ValueError):
        return 0.0


def _num_images(spec: Spec, dataset: Dataset) -> int:
    """Returns how many images a step is measured with: as many as the job's steps have, but for large ones."""
    most = max(2, NUM_IMAGES * 32**2 // max(32, dataset.train.image_size) ** 2)
    return min(spec.data.batch_size, most)


def _file(about: dict[str, Any], datasets: Path) -> Path:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    return datasets / ".cache" / f"measured-{digest}.json"


def _kept(about: dict[str, Any], datasets: Path) -> list[float] | None:
    try:
        kept = durable.read_json(_file(about, datasets)) or {}
    except OSError:
        return None
    gains = kept.get("gains")
    if kept.get("about") != about or not isinstance(gains, list) or len(gains) != len(about["ways"]):
        return None
    return gains if all(isinstance(gain, float) for gain in gains) else None


def _keep(about: dict[str, Any], gains: list[float], datasets: Path) -> list[float]:
    """Returns what is kept: of two jobs that measure at once, what the first one found."""
    path = _file(about, datasets)
    with contextlib.suppress(OSError):  # a folder that cannot be written: the next job measures again
        durable.make_folder(path.parent)
        record = {"about": about, "gains": gains}
        try:
            durable.create(path, durable.to_json(record), by_way_of=path.parent)
        except FileExistsError:
            if (first := _kept(about, datasets)) is not None:
                return first
            durable.replace_json(path, record)  # what lies there says nothing
    return gains
