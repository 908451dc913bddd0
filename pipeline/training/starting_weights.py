"""Weights that a network begins with: computed from training images where it can do so, and those of others.

Out of another run or of a file what fits is taken, and the rest is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.data.dataset import Dataset
from pipeline.data.draws import generator_of
from pipeline.data.normalization import normalize
from pipeline.errors import CheckpointError, DataError
from pipeline.home.paths import Home
from pipeline.jobfile.spec import Spec
from pipeline.models.quantized import begin_steps, keys_of_other_quantizers
from pipeline.models.torchvision_models import ThreeChannels
from pipeline.training import checkpoint, older_checkpoints, parts, pretrained
from pipeline.wording import plural

NAMED = 5  # tensors in a line of the log
NUM_IMAGES = 5_000  # that a network may begin with
FIRST_IMAGES = -1  # the key of their draw, where others have the epoch


def begin(
    spec: Spec, model: nn.Module, dataset: Dataset, home: Home, *, log: Callable[[str], None]
) -> dict[str, Any] | None:
    """Gives a network the weights that a job says it is to begin with. Returns provenance; None where it says none.

    A network with the method `initialize_from_images` is given training images first.
    Raises DataError where weights or images cannot be had, or weights do not fit; OwnCodeError.
    """
    if hasattr(model, parts.INITIALIZE):
        images = some_images(dataset, seed=spec.train.seed)
        parts.initialize_from_images(model, spec.model.entry, images.to(next(model.parameters()).device))
        log(f"begins with what the network computes from {plural(len(images), 'training image')}")
    if spec.model.init is not None:
        return take(model, spec.model.init, home, log=log)
    weights = pretrained.wanted(spec)
    if weights is not None:
        return take_from(pretrained.fetch(weights, home.datasets, log=log), model, log=log)
    if spec.model.freeze_epochs:
        log("model.freeze_epochs keeps a backbone that has learned nothing; model.init gives it weights to begin with")
    return None


def some_images(dataset: Dataset, *, seed: int) -> torch.Tensor:
    """Returns images of the training split, drawn by the seed: float32 (N, C, H, W), normalized, on the CPU.

    5,000, or all that there are; of more than 32 pixels fewer, in the same memory. Raises DataError.
    """
    split = dataset.train
    num = min(NUM_IMAGES, max(1, NUM_IMAGES * 32**2 // split.image_size**2))
    chosen = torch.randperm(len(split), generator=generator_of(seed, FIRST_IMAGES))[:num]
    pixels = split.read(chosen.tolist()).permute(0, 3, 1, 2)
    return normalize(pixels / 255, *dataset.normalization.tensors())


def take(model: nn.Module, init: str, home: Home, *, log: Callable[[str], None]) -> dict[str, Any]:
    """Copies weights into a network, by name and shape. Returns provenance: the file, and its SHA-256.

    init: the id of a run, or the beginning of one, or a file. Raises DataError where there is none, or nothing fits.
    """
    file, is_of_a_run = _find(init, home)
    return take_from(file, model, log=log, is_of_a_run=is_of_a_run)


def take_from(file: Path, model: nn.Module, *, log: Callable[[str], None], is_of_a_run: bool = False) -> dict[str, Any]:
    """As `take`, from a file. Where nothing fits, the network inside `ThreeChannels` is meant."""
    read, begun, own = _read(file, is_of_a_run=is_of_a_run), model, model.state_dict()
    weights = older_checkpoints.up_to_date(model, read)
    if weights is not read:
        log(f"{file}: {older_checkpoints.NOTE}")
    fitting = _fitting(weights, own)
    if not fitting and isinstance(model, ThreeChannels):
        begun = model.network
        own = begun.state_dict()
        fitting = _fitting(weights, own)
    if not fitting:
        raise DataError(f"model.init: nothing in {file} fits this model: {_differences(weights, own)}")
    if of_others := keys_of_other_quantizers(begun, weights):
        log("quantizers of other bits or another scheme than those in the file begin anew")
        weights = {name: value for name, value in weights.items() if name not in of_others}
        fitting -= of_others
    begun.load_state_dict({name: weights[name] for name in fitting}, strict=False)
    begin_steps(begun, known=fitting)
    log(f"begins with {len(fitting):,} of {plural(len(own), 'tensor')} of {file}")
    if len(fitting) < len(own):
        log(f"as it was made: {_differences(weights, own)}")
    return {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "tensors": len(fitting)}


def _fitting(weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> set[str]:
    return {name for name, value in weights.items() if name in own and own[name].shape == value.shape}


def _find(init: str, home: Home) -> tuple[Path, bool]:
    """The file, and whether it is the checkpoint of a run."""
    try:
        path = Path(init).expanduser()
    except RuntimeError as error:  # ~somebody whom nobody knows
        raise DataError(f"model.init: {init}: {error}") from None
    if path.is_absolute():
        if not path.is_file():
            raise DataError(f"model.init: there is no file {path}")
        return path, path.is_relative_to(home.runs)
    runs = sorted(run.name for run in home.runs.iterdir()) if home.runs.is_dir() else []
    names = [name for name in runs if name.startswith(init)] or [name for name in runs if name.endswith(f"-{init}")]
    if init in names:
        names = [init]
    if len(names) != 1:
        why = f"{len(names)} runs' ids begin so; give more of it" if names else "no run's id begins so"
        raise DataError(f"model.init: {init}: {why}; a file is given with its whole path")
    run = home.run(names[0])
    for file in (run.best, run.last):
        if file.is_file():
            return file, True
    raise DataError(f"model.init: {names[0]} has no checkpoint")


def _read(file: Path, *, is_of_a_run: bool) -> Mapping[str, torch.Tensor]:
    """Returns tensors by their names, from a checkpoint of ours or a state dict of anybody's."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        if is_of_a_run:
            state: Any = checkpoint.load(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except ImportError:
        raise DataError("model.init: .safetensors needs a package: pip install safetensors") from None
    except CheckpointError:
        raise
    except Exception as error:  # what torch and safetensors raise of a file that is none of theirs
        raise DataError(f"model.init: {file} cannot be read: {type(error).__name__}: {error}") from error
    for key in ("model", "state_dict"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)} if state else {}
    if not tensors:
        raise DataError(f"model.init: {file} holds no weights")
    return tensors


def _differences(weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    """Says which tensors of the network were not there, or of another shape."""
    told = []
    for name, value in own.items():
        if name.endswith("_quantizer.kind"):
            continue
        if name not in weights:
            told.append(f"{name} (not there)")
        elif weights[name].shape != value.shape:
            told.append(f"{name} {tuple(value.shape)} (there {tuple(weights[name].shape)})")
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return ", ".join(told[:NAMED]) + more
