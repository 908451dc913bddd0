"""The job file as frozen Pydantic models: every field with its bounds, default and description.

The sections `model`, `data`, `optimizer` and `schedule` are chosen by `name`; their fields come from the catalog. The
reference page and the JSON Schema are generated from what stands here. Reading a file is `jobfile.py`'s part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.jobfile import catalog


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Choice(Section):
    """A section whose `name` is an entry of the catalog."""

    name: str

    def options(self) -> dict[str, Any]:
        """What the catalog's entry declares, as keyword arguments for its code."""
        raise NotImplementedError


def _choice(entries: Mapping[str, catalog.Entry], base: type[Choice] = Choice, *, default: str | None = None) -> Any:
    """One model an entry, told apart by `name`; a section without a name is the default's."""

    def options(self: Choice) -> dict[str, Any]:
        return {key: getattr(self, key) for key in entries[self.name].options}

    members = tuple(
        create_model(  # type: ignore[call-overload]
            f"{name}_section",
            __base__=base,
            __doc__=entry.summary,
            name=(Literal[name], Field(name if name == default else ..., description=entry.summary)),
            **entry.options,
        )
        for name, entry in entries.items()
    )
    for member in members:
        member.options = options
    choice: Any = Annotated[Union[members], Field(discriminator="name")]  # noqa: UP007 - a tuple of types

    def with_default(value: object) -> object:
        return {"name": default, **value} if isinstance(value, dict) else value

    return Annotated[choice, BeforeValidator(with_default, json_schema_input_type=choice)] if default else choice


@dataclass(frozen=True)
class Conflict:
    """Two fields that are right by themselves and wrong together; silent where one it depends on is wrong anyway."""

    at: str
    message: str
    depends: tuple[str, ...]


def _text(pattern: str, expected: str) -> Any:
    """Text that matches a pattern; `expected` says so to a person."""

    def check(value: object) -> object:
        if re.fullmatch(pattern, str(value)) is None:
            raise PydanticCustomError("format", "{expected}", {"expected": expected})
        return value

    return Annotated[str, BeforeValidator(check), Field(json_schema_extra={"pattern": f"^({pattern})$"})]


if TYPE_CHECKING:
    Name: TypeAlias = str
    Device: TypeAlias = str
else:
    Name = _text(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "is not a name; use up to 64 letters, digits, - and _")
    Device = _text(r"auto|cpu|cuda(:[0-9]{1,2})?", "is not a device; write auto, cpu, cuda or cuda:N")

_DURATION = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit in "dhms"))
_MAX_DAYS = 366


def _seconds(value: object) -> object:
    """`90`, `90s`, `5m`, `1h30m` or `2d` as seconds."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        value = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if type(value) is not int:
        raise PydanticCustomError("duration", "is not a duration; write 90s, 5m, 1h30m, 2d or a number of seconds")
    if not 1 <= value <= _MAX_DAYS * 86400:
        raise PydanticCustomError("duration", "is out of range; a duration is from 1s to {days}d", {"days": _MAX_DAYS})
    return value


Duration = Annotated[
    int,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _MAX_DAYS * 86400},
                {"type": "string", "pattern": r"^(?=.)(\d+d)?(\d+h)?(\d+m)?(\d+s)?$"},
            ]
        }
    ),
]


def _with_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _augmentation() -> Any:
    member = _choice(catalog.AUGMENTATIONS)
    return Annotated[
        member, BeforeValidator(_with_name, json_schema_input_type=member | Literal[*catalog.AUGMENTATIONS])
    ]


if TYPE_CHECKING:
    ModelSection: TypeAlias = Choice
    OptimizerSection: TypeAlias = Choice
    ScheduleSection: TypeAlias = Choice
    Augmentation: TypeAlias = Choice
else:
    ModelSection = _choice(catalog.MODELS)
    OptimizerSection = _choice(catalog.OPTIMIZERS, default="sgd")
    ScheduleSection = _choice(catalog.SCHEDULES, default="constant")
    Augmentation = _augmentation()


class Data(Choice):
    batch_size: int = Field(128, ge=1, le=65536, description="Images a training step sees at once.")
    augment: tuple[Augmentation, ...] = Field(
        (),
        max_length=16,
        description="Random changes of each training image, in this order: a name, or a name with its options.",
    )
    image_size: int | None = Field(
        None, ge=4, le=1024, description="Resize every image once to this many pixels a side; default: as they are."
    )


if TYPE_CHECKING:
    DataSection: TypeAlias = Data
else:
    DataSection = _choice(catalog.DATASETS, Data)

Auto = bool | Literal["auto"]


class Train(Section):
    epochs: int = Field(10, ge=1, le=100_000, description="Passes over the training set.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the first weights, the order of images and all augmentation.")
    deterministic: bool = Field(
        False, description="Only deterministic kernels: on the CPU the same job gives the same weights, bit for bit."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Of the forward and backward pass; auto: bf16 where the device is fast at it."
    )
    channels_last: Auto = Field("auto", description="Memory format of images and convolutions; auto: on.")
    fused: Auto = Field("auto", description="Fused optimizer kernels; auto: where the device has them.")
    compile: Auto = Field("auto", description="torch.compile the model; auto: off, which is faster for small jobs.")
    optimizer: OptimizerSection = Field({}, validate_default=True, description="How weights follow gradients.")
    schedule: ScheduleSection = Field({}, validate_default=True, description="The learning rate over time.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Probability spread over the other classes in the loss."
    )
    clip_grad_norm: float | None = Field(None, gt=0, description="Scale gradients down to this norm; default: never.")
    accumulate: int = Field(1, ge=1, le=4096, description="Batches whose gradients are averaged for one step.")
    checkpoint_every: Duration = Field(
        600, description="Longest time between two checkpoints; each epoch ends with one too."
    )


Evaluations = bool | Annotated[int, Field(ge=1, le=100_000)] | Literal["auto", "end"]
"""After which epochs; see `is_due`."""


def is_due(when: bool | int | str, *, epoch: int, epochs: int) -> bool:
    """Whether an `Evaluations` field names this epoch, counted from 1.

    TensorBoard keeps ten images of a tag: `auto` gives no more of 500 epochs, the first and the last among them.
    """
    if when is False or epoch == epochs:
        return when is not False
    if isinstance(when, str):
        return when == "auto" and epoch & (epoch - 1) == 0
    return epoch % int(when) == 0


_WHEN = (
    "true: each epoch; N: every N epochs; auto: after epochs 1, 2, 4, 8, ...; end; false; the last one is among all."
)


class Log(Section):
    every: int = Field(
        100, ge=1, le=1_000_000, description="Steps between two points of the training curves; one an epoch at least."
    )
    histograms: Evaluations = Field(True, description=f"Histograms of every parameter and its gradient. {_WHEN}")
    images: bool = Field(
        True, description="The first training batch as the network sees it, and training images as they are."
    )
    graph: bool = Field(True, description="The network as a graph.")
    figures: Evaluations = Field(
        "auto", description="Predictions, confusion matrix and worst mistakes as images; as for `histograms`."
    )
    pr_curves: Evaluations = Field("auto", description="A precision-recall curve a class; as for `histograms`.")
    embeddings: Evaluations = Field(
        "end", description="250 held-out images for the projector, as pixels and features; as for `histograms`."
    )
    profile: bool = Field(False, description="Record five early steps with PyTorch's profiler.")


class Resources(Section):
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N; auto: a GPU where there is one.")
    timeout: Duration | None = Field(None, description="Longest wall time of one attempt, as 90s, 5m, 1h30m, 2d.")
    retries: int = Field(
        2, ge=0, le=100, description="How often the job is started again after an attempt that `retry_on` names."
    )
    retry_on: tuple[Literal["lost", "failed", "timed_out"], ...] = Field(
        ("lost",),
        max_length=3,
        description="Ends of an attempt after which it is tried again; lost: its worker or process was killed.",
    )
    priority: int = Field(0, ge=-1000, le=1000, description="Higher runs first; equals run in order of submission.")


class Spec(Section):
    """A job file of the pipeline: one image classifier, trained on one dataset."""

    name: Name = Field(..., description="Letters, digits, - and _; the start of the job's id.")
    description: str = Field("", max_length=10_000, description="For people.")
    model: ModelSection = Field(..., description="The network.")
    data: DataSection = Field(..., description="The images.")
    train: Train = Field(default_factory=Train, description="How it is trained.")
    log: Log = Field(default_factory=Log, description="What TensorBoard gets.")
    resources: Resources = Field(default_factory=Resources, description="Where it runs, how long, how often.")

    @property
    def image_size(self) -> int | None:
        """Pixels a side; None where it is known only when the images are read."""
        return self.data.image_size or catalog.DATASETS[self.data.name].size

    @model_validator(mode="after")
    def fields_fit_together(self) -> Self:
        conflicts = [conflict for rule in RULES if (conflict := rule(self))]
        if conflicts:
            raise PydanticCustomError("conflicts", "{text}", {"text": conflicts[0].message, "conflicts": conflicts})
        return self


def model_takes_the_size(spec: Spec) -> Conflict | None:
    needed = catalog.MODELS[spec.model.name].smallest(spec.model)
    if spec.image_size is None or spec.image_size >= needed:
        return None
    size = (
        f"data.image_size is {spec.image_size}" if spec.data.image_size else f"{spec.data.name} has {spec.image_size}"
    )
    return Conflict(
        "model.name",
        f"{spec.model.name!r} needs images of at least {needed} pixels, and {size}; "
        f"set data.image_size: {max(needed, 32)}",
        depends=("data.image_size", "data.name", "model.name", "model.widths"),
    )


def model_takes_the_batch(spec: Spec) -> Conflict | None:
    needed = catalog.MODELS[spec.model.name].min_batch
    if spec.data.batch_size >= needed:
        return None
    message = f"{spec.data.batch_size} is too small for the batch norm of {spec.model.name!r}; at least {needed}"
    return Conflict("data.batch_size", message, depends=("data.batch_size", "model.name"))


def augmentations_fit_the_size(spec: Spec) -> Conflict | None:
    for index, augmentation in enumerate(spec.data.augment):
        for key, value in augmentation.options().items():
            if key in ("padding", "size") and spec.image_size is not None and value > spec.image_size:
                message = f"{value} is more than the images' {spec.image_size} pixels"
                at = f"data.augment.{index}.{key}"
                return Conflict(at, message, depends=("data.image_size", "data.name", at))
    return None


def widths_begin_with_a_convolution(spec: Spec) -> Conflict | None:
    widths = spec.model.options().get("widths")
    if widths is None or isinstance(widths[0], int):
        return None
    return Conflict(
        "model.widths", "must begin with a number of channels, as [64, M, 128, M]", depends=("model.widths",)
    )


def nesterov_has_momentum(spec: Spec) -> Conflict | None:
    options = spec.train.optimizer.options()
    if not options.get("nesterov") or options.get("momentum"):
        return None
    field = "train.optimizer.nesterov"
    message = "needs a momentum above 0; set train.optimizer.momentum: 0.9"
    return Conflict(field, message, depends=(field, "train.optimizer.momentum"))


def warmup_ends_before_training_does(spec: Spec) -> Conflict | None:
    warmup = spec.train.schedule.options().get("warmup_epochs", 0)
    if warmup <= spec.train.epochs:
        return None
    field = "train.schedule.warmup_epochs"
    message = f"{warmup:g} is longer than the whole training of {spec.train.epochs} epochs"
    return Conflict(field, message, depends=(field, "train.epochs"))


RULES: tuple[Callable[[Spec], Conflict | None], ...] = (
    model_takes_the_size,
    model_takes_the_batch,
    augmentations_fit_the_size,
    widths_begin_with_a_convolution,
    nesterov_has_momentum,
    warmup_ends_before_training_does,
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema that editors check and complete job files by."""
    schema = Spec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
