"""What the sections of a spec name, built: the network, the loss, the optimizer, the schedule, the augmentations.

Where a section names code of the user's own, it is called with what it takes of the program's arguments, and with its
options; whatever it raises meanwhile comes back as an OwnCodeError that says where.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from pipeline.errors import DataError, OwnCodeError
from pipeline.jobfile.entries import Entry, Model
from pipeline.jobfile.sections import NamedSection
from pipeline.jobfile.spec import ModelSection, Spec
from pipeline.models.quantized import begin_steps, quantize
from pipeline.training.losses import Loss, balanced_weights
from pipeline.wording import plural

Schedule = Callable[[int], float]
Augmentation = Callable[..., torch.Tensor]

INITIALIZE = "initialize_from_images"  # a method that a network may have


def build_model(spec: Spec, *, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Returns the network for such images, on the CPU.

    Raises DataError where it cannot take them, OwnCodeError where it is the user's own and cannot be built; one of them
    too where it cannot be quantized as the job asks.
    """
    section = spec.model
    given = section.entry.given(num_classes=num_classes, channels=channels, image_size=image_size)
    if isinstance(section.entry, Model) and section.entry.takes_name:
        given["name"] = section.name.partition("/")[2]
    with telling_where(section.entry):
        try:
            model: nn.Module = section.entry.load()(**given, **section.options())
        except ValueError as error:
            if section.entry.own is not None:
                raise
            raise DataError(f"model {section.name!r} cannot take {image_size}-pixel images: {error}") from None
        if section.entry.own is not None and isinstance(model, nn.Module):
            _make_lazy_parameters(model, torch.zeros(2, channels, image_size, image_size))
    if section.batch_norm_momentum is not None and isinstance(model, nn.Module):
        _set_batch_norm_momentum(model, section.batch_norm_momentum)
    if section.quantize is not None and isinstance(model, nn.Module):
        _quantize(model, section)
    return model


def _set_batch_norm_momentum(model: nn.Module, momentum: float) -> None:
    """momentum: the share of a new batch, in (0, 1]; what Jordan (2024), arXiv:2404.00498, calls 0.6 is 0.4 here."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise DataError("model.batch_norm_momentum: the model has no batch norm; leave it out")
    for norm in norms:
        norm.momentum = momentum


def initialize_from_images(model: nn.Module, entry: Entry, images: torch.Tensor) -> None:
    """Calls the network's method of this name, by which it learns from training images what it begins with.

    images: float32 (N, C, H, W), normalized, on the network's device. Raises OwnCodeError.
    """
    with telling_where(entry, f"given training images of {tuple(images.shape)}: "), torch.no_grad():
        getattr(model, INITIALIZE)(images)
    begin_steps(model, known=())  # those of quantizers go by the weights


def _quantize(model: nn.Module, section: ModelSection) -> None:
    asked = section.quantize
    assert asked is not None
    activations = None if asked.activations is None else asked.activations.options()
    try:
        quantize(model, weights=asked.weights.options(), activations=activations, skip=asked.skip)
    except ValueError as error:
        kind = DataError if section.entry.own is None else OwnCodeError
        raise kind(f"model.quantize: {error}") from None


def _make_lazy_parameters(model: nn.Module, images: torch.Tensor) -> None:
    """Has `nn.LazyLinear` and the like see images once, by which they get their shape."""
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in model.parameters()):
        with torch.no_grad():
            model.eval()(images)
        model.train()


def build_loss(spec: Spec, counts: torch.Tensor, *, training: bool) -> Loss:
    """Returns the loss of a batch, as in `losses.py`. Raises DataError, or OwnCodeError.

    counts: int64 (classes,), of the training images, where the loss is computed.
    training: else of held-out images, whose labels are not smoothed, and whose classes have no weights.
    """
    section = spec.train.loss
    smoothing = spec.train.label_smoothing if training else 0.0
    if section.entry.own is not None:
        own: Loss = _built(section, section.entry.given(num_classes=len(counts), label_smoothing=smoothing))
        return own.to(counts.device) if isinstance(own, nn.Module) else own
    options = section.options()
    options["class_weights"] = _class_weights(options["class_weights"], counts) if training else None
    if getattr(section.entry, "is_smooth", False):
        options["label_smoothing"] = smoothing
    return functools.partial(section.entry.load(), **options)


def _class_weights(asked: str | tuple[float, ...], counts: torch.Tensor) -> torch.Tensor | None:
    """Raises DataError where there is not one for each class."""
    if isinstance(asked, str):
        return balanced_weights(counts) if asked == "balanced" else None
    if len(asked) != len(counts):
        found = f"{plural(len(asked), 'number')} for {plural(len(counts), 'class')}"
        raise DataError(f"train.loss.class_weights has {found}; give one for each")
    return torch.tensor(asked, device=counts.device)


def build_optimizer(spec: Spec, parameters: Iterable[Any], *, fused: bool) -> torch.optim.Optimizer:
    """parameters: those of the network, or groups of them. Raises OwnCodeError."""
    section = spec.train.optimizer
    with telling_where(section.entry):
        optimizer: torch.optim.Optimizer = section.entry.load()(
            list(parameters), **section.entry.given(fused=fused), **section.options()
        )
    return optimizer


def build_schedule(spec: Spec, *, steps: int, steps_per_epoch: int) -> Schedule:
    """Returns the factor of the learning rate at a step, which counts from 0. Raises OwnCodeError."""
    section = spec.train.schedule
    schedule: Schedule = _built(section, section.entry.given(steps=steps, steps_per_epoch=steps_per_epoch))
    return schedule


def build_augmentation(section: NamedSection) -> Augmentation:
    """Returns a function as in `data/augment.py`, its options bound. Raises OwnCodeError."""
    augmentation: Augmentation = _built(section, {})
    if section.entry.own is None:
        return augmentation
    called = augmentation.forward if isinstance(augmentation, nn.Module) else augmentation
    with telling_where(section.entry):
        parameters = inspect.signature(called).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}

    def augment(images: torch.Tensor, **given: Any) -> torch.Tensor:
        return augmentation(images, **{name: value for name, value in given.items() if takes_any or name in names})

    return augment


def _built(section: NamedSection, given: dict[str, Any]) -> Any:
    """A function with its arguments bound, or an instance of a class that was made with them."""
    with telling_where(section.entry):
        code = section.entry.load()
        if section.entry.own is not None and section.entry.own.is_class:
            return code(**given, **section.options())
        return functools.partial(code, **given, **section.options())


def telling_where(entry: Entry, doing: str = "") -> contextlib.AbstractContextManager[None]:
    """Where an entry is the user's own: turns what is raised into an OwnCodeError. doing: what it was called for."""
    return contextlib.nullcontext() if entry.own is None else entry.own.telling_where(doing)
