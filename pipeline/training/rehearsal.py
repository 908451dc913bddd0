"""Code of the user's own, tried before it is trained with: whether it can be called, and gives what it must.

    python -m pipeline.training.rehearsal < {"spec": ..., "files": {path: text}, "label": ..., "root": ...}

prints a JSON list of [section, what is wrong with its code]. That is how `pipeline validate` asks; an attempt does the
same in its own process, once it knows its dataset.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.data import dataset as datasets
from pipeline.data.draws import EpochDraws
from pipeline.errors import OwnCodeError
from pipeline.jobfile import own_modules
from pipeline.jobfile.entries import Dataset, Model
from pipeline.jobfile.own_code import OwnCode
from pipeline.jobfile.sections import NamedSection
from pipeline.jobfile.spec import Spec
from pipeline.training import parts
from pipeline.wording import plural

NUM_IMAGES = 2  # that are tried; of a model with batch norm, the fewest that it can take
STEPS = 100  # of the training that a schedule is tried for


class Images(NamedTuple):
    """What the images of a dataset are like."""

    num_classes: int
    channels: int
    image_size: int

    @classmethod
    def of(cls, dataset: datasets.Dataset) -> Images:
        return cls(len(dataset.classes), dataset.train.channels, dataset.train.image_size)


class Trial(NamedTuple):
    spec: Spec
    section: NamedSection
    own: OwnCode
    images: Images


def require(spec: Spec, images: Images) -> None:
    """Raises OwnCodeError with the first that is wrong."""
    for _, error in rehearse(spec, images):
        raise error


def rehearse(spec: Spec, images: Images | None) -> Iterator[tuple[str, OwnCodeError]]:
    """Yields what is wrong with code of the user's own, after the section that names it; nothing where all is well.

    images: None where it is not known yet what they are like; what depends on it is only imported.
    """
    for at, section in spec.named_sections():
        if section.entry.own is not None:
            check = CHECKS.get(at.rstrip(".0123456789"))  # data.augment.0
            try:
                with section.entry.own.telling_where():
                    section.entry.load()
                    if check is not None and images is not None:
                        with torch.random.fork_rng(devices=[]):
                            check(Trial(spec, section, section.entry.own, images))
            except OwnCodeError as error:
                yield at, error


def _check_model(trial: Trial) -> None:
    spec, section, own, images = trial
    model = parts.build_model(spec, **images._asdict())
    if not isinstance(model, nn.Module):
        _fail(own, f"gives {_kind(model)}; a model is a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        _fail(own, "has no parameters to train")
    num = max(NUM_IMAGES, section.entry.min_batch if isinstance(section.entry, Model) else 1)
    batch = torch.randn(num, images.channels, images.image_size, images.image_size)
    if hasattr(model, parts.INITIALIZE):
        parts.initialize_from_images(model, section.entry, batch)
    for is_training in (True, False):
        model.train(is_training)
        with own.telling_where(f"given images of {_shape(batch)}: "):
            logits = model(batch)
        if not isinstance(logits, torch.Tensor) or logits.shape != (num, images.num_classes):
            given = _shape(logits) if isinstance(logits, torch.Tensor) else _kind(logits)
            expected = f"({num}, {images.num_classes})"
            of = f"{plural(num, 'image')} of {plural(images.num_classes, 'class')}"
            _fail(own, f"gives {given} for {of}; it must give {expected}")
        if is_training:
            loss = F.cross_entropy(logits.float(), torch.arange(num) % images.num_classes)
            with own.telling_where("in the backward pass: "):
                loss.backward()  # type: ignore[no-untyped-call]
    _check_state(model.state_dict(), own)


def _check_state(state: object, own: OwnCode) -> None:
    """A checkpoint holds tensors and plain values only; of anything else, no job could go on."""
    content = io.BytesIO()
    with own.telling_where("its state cannot be kept in a checkpoint: "):
        torch.save(state, content)
        content.seek(0)
        torch.load(content, weights_only=True)


def _check_loss(trial: Trial) -> None:
    spec, _, own, images = trial
    loss = parts.build_loss(spec, torch.ones(images.num_classes, dtype=torch.int64), training=True)
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        _fail(own, "has parameters of its own, which nothing would train")
    logits = torch.randn(4, images.num_classes, requires_grad=True)
    with own.telling_where(f"given logits of {_shape(logits)}: "):
        value = loss(logits, torch.arange(4) % images.num_classes)
    if not isinstance(value, torch.Tensor) or value.shape != ():
        given = _shape(value) if isinstance(value, torch.Tensor) else _kind(value)
        _fail(own, f"gives {given}; a loss is one number, a tensor of shape (): the mean over the batch")
    if not value.requires_grad:
        _fail(own, "gives a loss that no gradient comes from")
    if not value.isfinite():
        _fail(own, f"gives {value.item()} for logits of usual size")
    with own.telling_where("in the backward pass: "):
        value.backward()  # type: ignore[no-untyped-call]


def _check_optimizer(trial: Trial) -> None:
    spec, _, own, _ = trial
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = parts.build_optimizer(spec, [parameter], fused=False)
    if not isinstance(optimizer, torch.optim.Optimizer):
        _fail(own, f"gives {_kind(optimizer)}; an optimizer is a torch.optim.Optimizer")
    with own.telling_where("in a step: "):
        optimizer.step()
    _check_state(optimizer.state_dict(), own)
    if any("lr" not in group for group in optimizer.param_groups):
        _fail(own, "keeps no 'lr' in its parameter groups, by which the schedule sets the learning rate")


def _check_schedule(trial: Trial) -> None:
    spec, _, own, _ = trial
    schedule = parts.build_schedule(spec, steps=STEPS, steps_per_epoch=STEPS // 10)
    for step in (0, STEPS // 2, STEPS - 1):
        with own.telling_where(f"at step {step} of {STEPS}: "):
            factor = schedule(step)
        if not isinstance(factor, (int, float)) or not 0 <= factor < math.inf:
            _fail(own, f"gives {factor!r} at step {step} of {STEPS}; a schedule gives a factor of the rate, 0 or more")


def _check_augmentation(trial: Trial) -> None:
    _, section, own, images = trial
    augment = parts.build_augmentation(section)
    size = images.image_size
    batch = torch.randint(256, (NUM_IMAGES, size, size, images.channels), dtype=torch.uint8)
    draws = EpochDraws((0, 0, 0), NUM_IMAGES, torch.device("cpu")).of(0, NUM_IMAGES)
    before = batch.clone()
    with own.telling_where(f"given uint8 images of {_shape(batch)}: "):
        changed = augment(batch, draws=draws, fill=torch.full((images.channels,), 127, dtype=torch.uint8))
    if not isinstance(changed, torch.Tensor) or (changed.shape, changed.dtype) != (batch.shape, batch.dtype):
        given = f"{changed.dtype} {_shape(changed)}" if isinstance(changed, torch.Tensor) else _kind(changed)
        _fail(own, f"gives {given}; of images it must give such again: torch.uint8 {_shape(batch)}")
    if not torch.equal(batch, before):
        _fail(own, "changes the images that it is given, which the next epoch needs; it must return others")


CHECKS: dict[str, Callable[[Trial], None]] = {
    "model": _check_model,
    "data.augment": _check_augmentation,
    "train.optimizer": _check_optimizer,
    "train.schedule": _check_schedule,
    "train.loss": _check_loss,
}
"""By the section that names the code; a dataset is read when the job starts."""


def known_images(spec: Spec) -> Images | None:
    """Returns what is known of a job's images before they are read; None where something is missing."""
    entry, size = spec.data.entry, spec.image_size
    if not isinstance(entry, Dataset) or entry.num_classes is None or size is None:
        return None
    return Images(entry.num_classes, entry.channels, size)


def _fail(own: OwnCode, message: str) -> NoReturn:
    raise OwnCodeError(f"{own.where} {message}")


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the code prints is no answer
    request = json.load(sys.stdin)
    modules = own_modules.Modules(request["label"], Path(request["root"]), files=request["files"])
    with own_modules.using(modules):
        spec = Spec.model_validate_json(json.dumps(request["spec"]))
    found = [(at, str(error)) for at, error in rehearse(spec, known_images(spec))]
    with contextlib.suppress(OSError, ValueError), answer:  # the code may have closed it
        json.dump(found, answer)
    sys.stderr.flush()
    os._exit(0)  # whatever threads the code has left


if __name__ == "__main__":
    main()
