"""A trained model with all that lies between it and an image file, from the folder of a run.

Whatever the job trained with, this computes on the CPU, in float32. Nothing is left on disk.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import TypeAdapter
from torch import nn

from pipeline.data.folder_listing import abbreviated
from pipeline.data.image_file import read_image
from pipeline.data.normalization import Normalization, normalize
from pipeline.errors import CheckpointError, DataError, PipelineError
from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.home.records import Result
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.training import checkpoint, older_checkpoints
from pipeline.training.engine import evaluation_batch
from pipeline.training.parts import build_model
from pipeline.training.view_average import mean_logits

Which = Literal["best", "last", "previous"]
Guess = tuple[str, float]  # a class and its probability


@dataclass(frozen=True)
class ModelInput:
    """What a model was trained on, and so takes. mean, std: per channel, of pixels in [0, 1]."""

    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        fits = self.classes and self.image_size > 0 and len(self.mean) == len(self.std) == self.channels > 0
        if not fits or not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise ValueError("the fields do not fit together")

    def untrained(self, spec: Spec) -> nn.Module:
        """Builds the network of a spec, with weights of its own. Raises as `build_model` does."""
        with contextlib.redirect_stdout(sys.stderr):  # whatever code of the user's own prints
            return build_model(spec, num_classes=len(self.classes), channels=self.channels, image_size=self.image_size)


class Normalised(nn.Module):
    """A network behind its normalisation: images float32 (N, C, H, W) in [0, 1] to logits float32 (N, classes)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, expected: ModelInput) -> None:
        super().__init__()
        mean, std = Normalization(expected.mean, expected.std).tensors()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(normalize(images, self.mean, self.std))
        return logits


@dataclass(frozen=True)
class Classifier:
    """network: on the CPU, in float32. test_accuracy: of these very weights; None where they were not evaluated.

    notes: what whoever uses it should be told of how it was read.
    """

    job_id: str
    checkpoint: Which
    spec: Spec
    input: ModelInput
    network: nn.Module
    test_accuracy: float | None = None
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def model(self) -> Normalised:
        return Normalised(self.network, self.input).eval()

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Returns float32 (N, classes). images: float32 (N, C, H, W) in [0, 1]."""
        with contextlib.redirect_stdout(sys.stderr):  # as above
            logits: torch.Tensor = self.model(images)
        return logits

    def classify(self, files: Iterable[Path], *, top: int) -> Iterator[tuple[Path, list[Guess] | DataError]]:
        """Yields each file, in their order, with its `top` likeliest classes, best first, or why it cannot be read."""
        for batch in _batches(files, evaluation_batch(self.input.image_size, torch.device("cpu"))):
            read = [self.read(file) for file in batch]
            images = [image for image in read if not isinstance(image, DataError)]
            guesses = iter(self._guesses(torch.stack(images), top) if images else ())
            for file, image in zip(batch, read, strict=True):
                yield file, image if isinstance(image, DataError) else next(guesses)

    def read(self, file: Path) -> torch.Tensor | DataError:
        """Reads an image as the model takes it: float32 (C, H, W) in [0, 1]; or why it cannot be read."""
        if not file.is_file():
            what = "is not a file" if file.exists() else "there is no such file"
            return DataError(f"{file}: {what}")
        try:
            with warnings.catch_warnings():
                # Of oddities in a file that is read nonetheless, as damaged EXIF data.
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
                pixels = Image.fromarray(read_image(file, self.input.image_size))
        except DataError as error:
            return error
        array = np.array(pixels.convert("L" if self.input.channels == 1 else "RGB"))
        return torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1) / 255

    def _guesses(self, images: torch.Tensor, top: int) -> list[list[Guess]]:
        logits = mean_logits(self.logits, images, kind=self.spec.data.test_augment)
        best = logits.softmax(1).topk(min(top, len(self.input.classes)))
        return [
            [(self.input.classes[index], probability) for index, probability in zip(*rows, strict=True)]
            for rows in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def load(run: RunPaths, which: Which = "best") -> Classifier:
    """Raises PipelineError where there is nothing trained, or not all that is needed to use it."""
    state = _state(run, which)
    spec, expected = _spec(run), _model_input(run)
    network = expected.untrained(spec)
    try:
        weights = older_checkpoints.up_to_date(network, state["model"])
        network.load_state_dict(weights)
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        reason = textwrap.shorten(str(error), 300)
        raise CheckpointError(f"{_file(run, which)}: does not fit the model of {run.spec}: {reason}") from None
    accuracy = _accuracy(state) or _tested_at_the_end(run, which)
    notes = () if weights is state["model"] else (f"{_file(run, which)}: {older_checkpoints.NOTE}",)
    return Classifier(run.root.name, which, spec, expected, network, accuracy, notes)


def find_images(paths: Sequence[Path]) -> tuple[list[Path], list[str], list[str]]:
    """Returns files to classify, of a folder those named as images; what was left out of folders; what went wrong."""
    files, notes, problems = [], [], []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            inside = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
        except OSError as error:
            problems.append(f"{path}: cannot be listed: {error.strerror}")
            continue
        found = [file for file in inside if file.suffix.lower() in _suffixes()]
        files += found
        if others := [file.name for file in inside if file.suffix.lower() not in _suffixes()]:
            notes.append(f"{path}: not named as images, left out: {abbreviated(others)}")
        if not found:
            problems.append(f"{path}: there are no images in this folder (folders inside it are not looked into)")
    return files, notes, problems


@functools.cache
def _suffixes() -> frozenset[str]:
    """Returns those of all kinds of files that Pillow opens."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def _batches(files: Iterable[Path], size: int) -> Iterator[list[Path]]:
    batch: list[Path] = []
    for file in files:
        batch.append(file)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _file(run: RunPaths, which: Which) -> Path:
    return {"best": run.best, "last": run.last, "previous": run.previous}[which]


def _state(run: RunPaths, which: Which) -> dict[str, Any]:
    path = _file(run, which)
    try:
        state = checkpoint.load(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (MemoryError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be loaded, there is not enough memory: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_other(run, which) or f'train it again: {_submit(run)}'}") from None
    if state is not None:
        return state
    other = _other(run, which)
    if not other:
        raise PipelineError(
            f"{run.root.name}: there is no trained model in {run.root}: the job has not come so far, or its files were "
            f"removed; pipeline show {run.root.name} says more"
        )
    why = {
        "best": "it has not been evaluated yet",
        "last": f"{path} was removed",
        "previous": "it has saved no more than one",
    }
    raise PipelineError(f"{run.root.name}: there is no {which} checkpoint: {why[which]}; {other}")


def _other(run: RunPaths, which: Which) -> str:
    """Says how to take another checkpoint; nothing where there is none that can be used."""
    usable = [name for name in get_args(Which) if name != which and checkpoint.is_usable(_file(run, name))]
    return f"--checkpoint {' or '.join(usable)} takes another one" if usable else ""


def _submit(run: RunPaths) -> str:
    return f"pipeline submit {run.spec}"


def _spec(run: RunPaths) -> Spec:
    try:
        return frozen.load(run)
    except OSError as error:
        raise PipelineError(f"{run.spec}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, yaml.YAMLError, RecursionError):  # what pydantic raises is a ValueError
        raise PipelineError(f"{run.spec}: this version does not take it; pipeline validate says why") from None


def _model_input(run: RunPaths) -> ModelInput:
    try:
        dataset = (durable.read_json(run.manifest) or {})["dataset"]
        expected: ModelInput = TypeAdapter(ModelInput).validate_python(dataset)
    except OSError as error:
        raise PipelineError(f"{run.manifest}: cannot be read: {error.strerror}") from None
    except (KeyError, ValueError):
        raise PipelineError(
            f"{run.manifest}: does not say which classes and images the model was trained on, as it is damaged or "
            f"from an older version; train it again: {_submit(run)}"
        ) from None
    return expected


def _tested_at_the_end(run: RunPaths, which: Which) -> float | None:
    """Returns the test accuracy of the best weights where they were chosen by other images, if it is known."""
    result = Result.read(run.result) if which == "best" else None
    if result is None or result.outcome != "succeeded" or "val/accuracy" not in result.metrics:
        return None
    return result.metrics.get("test/accuracy")


def _accuracy(state: dict[str, Any]) -> float | None:
    """Returns the test accuracy, but not within an epoch, where it is that of earlier weights."""
    metrics, position = state.get("metrics"), state.get("position")
    accuracy = metrics.get("test/accuracy") if isinstance(metrics, dict) else None
    is_within_an_epoch = isinstance(position, dict) and position.get("batch")
    return accuracy if isinstance(accuracy, float) and not is_within_an_epoch else None
