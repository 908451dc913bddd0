"""torchvision's weights: downloaded once into the home's datasets, or put there by hand; and how their images were.

datasets/weights/<file>     as torchvision names it; the first characters of its SHA-256 are in its name
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.data.dataset import Dataset
from pipeline.data.downloads import Progress, network_timeout
from pipeline.errors import DataError
from pipeline.home import durable
from pipeline.home.paths import find_data
from pipeline.jobfile.spec import Spec

FOLDER = "weights"
TIMEOUT_S = 60.0


class Weights(NamedTuple):
    """url: where they are. mean, std: of the images that they were learned on, by channel, in [0, 1].

    size: of those images, in pixels a side.
    """

    url: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int = 224

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def digest(self) -> str:
        """The first characters of the file's SHA-256, in hexadecimal digits."""
        match = re.search(r"-([0-9a-f]{8,})\.pth$", self.name)
        return match[1] if match else ""


def wanted(spec: Spec) -> Weights | None:
    """Returns the weights that a job's model is to begin with, of torchvision's; None where there are none."""
    if spec.model.options().get("weights", "none") == "none" or not spec.model.name.startswith("torchvision/"):
        return None
    import torchvision.models

    weights = torchvision.models.get_model_weights(spec.model.name.partition("/")[2]).DEFAULT
    transforms: Any = weights.transforms()
    return Weights(weights.url, tuple(transforms.mean), tuple(transforms.std), transforms.crop_size[0])


def normalized(dataset: Dataset, spec: Spec) -> Dataset:
    """Returns the dataset, its images normalized as those that the model's weights were learned on.

    It is left as it is where the model begins with none of torchvision's.
    """
    weights = wanted(spec)
    if weights is None:
        return dataset
    if dataset.train.channels == len(weights.mean):
        return dataclasses.replace(dataset, mean=weights.mean, std=weights.std)
    grey = [(sum(values) / len(values),) for values in (weights.mean, weights.std)]
    return dataclasses.replace(dataset, mean=grey[0], std=grey[1])


def fetch(weights: Weights, datasets: Path, *, log: Callable[[str], None]) -> Path:
    """Returns the file of weights, downloaded if it is not there. Raises DataError."""
    file = find_data(datasets, Path(FOLDER) / weights.name)
    if not file.is_file():
        file = datasets / FOLDER / weights.name
        log(f"downloading {weights.url} into {file.parent}")
        _download(weights, file, log)
    if not _sha256(file).startswith(weights.digest):
        raise DataError(f"{file} is not torchvision's: its SHA-256 does not begin with {weights.digest}; remove it")
    return file


def _download(weights: Weights, file: Path, log: Callable[[str], None]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        durable.make_folder(file.parent)
        with network_timeout(TIMEOUT_S), contextlib.redirect_stderr(Progress(log)):
            torch.hub.download_url_to_file(weights.url, str(temporary), hash_prefix=weights.digest or None)
        temporary.replace(file)
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"the weights of torchvision could not be downloaded: {reason}\n"
            f"Where there is no network, put them there yourself; they are checked by the next job:\n"
            f"  {file}\n  from {weights.url}, SHA-256 {weights.digest}..."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
