"""The job file as frozen sections: every field with its bounds, default and description.

The sections `model`, `data`, `optimizer`, `schedule` and `loss` and each of `augment` are chosen by `name`; their
fields and the rules that these keep come from the catalog, or from a module of the user's own. The reference page and
the JSON Schema are generated from what stands here. Reading a file is the part of `reading.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from pipeline.jobfile import catalog, torchvision_models
from pipeline.jobfile.entries import Dataset, Entry, Facts, FieldConflict
from pipeline.jobfile.fields import Bounds, OneOrMore, TextFormat, field
from pipeline.jobfile.quantize import Quantize
from pipeline.jobfile.resources import Resources
from pipeline.jobfile.search import Search
from pipeline.jobfile.sections import ChosenByName, NamedSection, Section
from pipeline.jobfile.train import LOSS, OPTIMIZER, SCHEDULE, Train

Name = Annotated[
    str, TextFormat(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "is not a name; use up to 64 letters, digits, - and _")
]
JobReference = Annotated[
    str,
    TextFormat(
        r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", "is neither a job's name nor its id; they have letters, digits, - and _"
    ),
]
AUGMENTATION = ChosenByName("augmentation", catalog.AUGMENTATIONS, is_short=True)


Keys = tuple[str | int, ...]
"""Where a field is in a job file: the keys, and the indexes in lists, that lead to it."""


class Data(NamedSection):
    batch_size: int = field(128, ge=1, le=65536, description="Images a training step sees at once.")
    augment: tuple[Annotated[NamedSection, AUGMENTATION], ...] = field(
        (),
        max_length=16,
        description="Random changes of each training image, in this order: a name, or a name with its options.",
    )
    val: float | None = field(
        None,
        gt=0,
        lt=1,
        description="Share of the training images that is held out to choose the best epoch by; the test set is then "
        "looked at once, at the end. Default: the best epoch is chosen on the test set.",
    )
    test_augment: Literal["none", "mirror", "mirror_shift"] = field(
        "none",
        description="Average the logits of each held-out image over views of it: mirror: it and its mirror image; "
        "mirror_shift: both moved by a pixel too, six views.",
    )
    sampler: Literal["shuffle", "balanced"] = field(
        "shuffle",
        description="Each image once an epoch; balanced: as many, drawn at random from all classes alike.",
    )
    last_batch: Literal["keep", "drop"] = field(
        "keep",
        description="Whether the smaller batch at the end of an epoch is trained on; drop: it is left out, as by "
        "PyTorch's `DataLoader(drop_last=True)`. Other images are in it each epoch.",
    )
    readers: Annotated[int, Bounds(ge=0, le=64)] | Literal["auto"] = field(
        "auto",
        description="Processes that decode images which stream from disk, for each split; 0.3 GB each. auto: by the "
        "processors.",
    )
    image_size: int | None = field(
        None, ge=4, le=1024, description="Resize every image once to this many pixels a side; default: as they are."
    )


class ModelSection(NamedSection):
    init: str | None = field(
        None,
        min_length=1,
        max_length=1000,
        description="Weights to begin with: the id of a run, whose best ones are taken, or a file of weights, .pt or "
        ".safetensors. What does not fit is left as it is, and told.",
    )
    freeze_epochs: int = field(
        0, ge=0, le=100_000, description="Epochs at the beginning in which the last layer alone is trained."
    )
    backbone_lr: float = field(
        1.0, gt=0, le=100, description="Factor of the learning rate of all layers but the last one."
    )
    batch_norm_momentum: float | None = field(
        None,
        gt=0,
        le=1,
        description="Share of each batch in batch norm's running mean and variance; default: the network's, often 0.1.",
    )
    quantize: Quantize | None = field(
        None,
        description="Train with weights, and layers' inputs, of few bits; default: no. `{}`: by the defaults below.",
    )


MODEL = ChosenByName(
    "model",
    catalog.MODELS,
    ModelSection,
    further=(torchvision_models.NAMES, torchvision_models.MODEL),
)
DATA = ChosenByName("dataset", catalog.DATASETS, Data)
NAMED_SECTIONS: Mapping[tuple[str, ...], ChosenByName] = {
    ("model",): MODEL,
    ("data",): DATA,
    ("data", "augment"): AUGMENTATION,  # each in the list
    ("train", "optimizer"): OPTIMIZER,
    ("train", "schedule"): SCHEDULE,
    ("train", "loss"): LOSS,
}
"""The sections that are chosen by a name, by where they are in a job file."""

Evaluations = bool | Annotated[int, Bounds(ge=1, le=100_000)] | Literal["auto", "end"]
"""After which epochs; see `is_due`."""


def is_due(when: bool | int | str, *, epoch: int, is_last: bool) -> bool:
    """Whether an `Evaluations` field names this epoch, counted from 1. is_last: whether the training ends with it.

    TensorBoard keeps ten images of a tag: `auto` gives no more of 500 epochs, the first and the last among them.
    """
    if when is False or is_last:
        return when is not False
    if isinstance(when, str):
        return when == "auto" and epoch & (epoch - 1) == 0
    return epoch % int(when) == 0


_WHEN = (
    "true: each epoch; N: every N epochs; auto: after epochs 1, 2, 4, 8, ...; end; false; the last one is among all."
)


class Log(Section):
    every: int = field(
        100, ge=1, le=1_000_000, description="Steps between two points of the training curves; one an epoch at least."
    )
    histograms: Evaluations = field(True, description=f"Histograms of every parameter and its gradient. {_WHEN}")
    images: bool = field(
        True, description="The first training batch as the network sees it, and training images as they are."
    )
    graph: bool = field(True, description="The network as a graph.")
    figures: Evaluations = field(
        "auto", description="Predictions, confusion matrix and worst mistakes as images; as for `histograms`."
    )
    pr_curves: Evaluations = field("auto", description="A precision-recall curve a class; as for `histograms`.")
    embeddings: Evaluations = field(
        "end", description="250 held-out images for the projector, as pixels and features; as for `histograms`."
    )
    profile: bool = field(False, description="Record five early steps with PyTorch's profiler.")


class Spec(Section):
    """A job file of the pipeline: one image classifier, trained on one dataset."""

    name: Name = field(description="Letters, digits, - and _; the start of the job's id.")
    description: str = field("", max_length=10_000, description="For people.")
    after: Annotated[tuple[str, ...], OneOrMore(JobReference, most=16)] = field(
        (),
        description="Jobs that must have succeeded before this one starts: a name or an id, or a list of them; "
        "default: none.",
    )
    model: Annotated[ModelSection, MODEL] = field(description="The network.")
    data: Annotated[Data, DATA] = field(description="The images.")
    train: Train = field({}, description="How it is trained.")
    log: Log = field({}, description="What TensorBoard gets.")
    resources: Resources = field({}, description="Where it runs, how long, how often.")
    search: Search | None = field(None, description="Makes it a sweep: many jobs that differ in some fields.")

    @property
    def image_size(self) -> int | None:
        """Pixels a side; None where it is known only when the images are read."""
        return size_of_images(self.data.entry, self.data.name, self.data.image_size)[0]

    def named_sections(self) -> Iterator[tuple[str, NamedSection]]:
        """Each, after where it is in the file."""
        yield "model", self.model
        yield "data", self.data
        for index, augmentation in enumerate(self.data.augment):
            yield f"data.augment.{index}", augmentation
        yield "train.optimizer", self.train.optimizer
        yield "train.schedule", self.train.schedule
        yield "train.loss", self.train.loss

    def own_files(self) -> dict[str, str]:
        """The files of the user's own that it needs, with their texts, by their paths. Raises OwnCodeError."""
        files: dict[str, str] = {}
        for _, section in self.named_sections():
            if section.entry.own is not None:
                files |= section.entry.own.files()
        return files

    def check(self) -> None:
        size = size_of_images(self.data.entry, self.data.name, self.data.image_size)
        facts = Facts(
            *size,
            batch_size=self.data.batch_size,
            epochs=self.train.epochs,
            label_smoothing=self.train.label_smoothing,
        )
        conflicts = [
            *find_conflicts(self.named_sections(), facts),
            *self.train.conflicts(),
            *self.resources.conflicts("resources"),
            *(self.search.conflicts() if self.search else ()),
        ]
        if conflicts:
            raise ValidationError.from_exception_data("Spec", [conflict_error(conflict) for conflict in conflicts])


def size_of_images(dataset: Entry | None, name: str, resized: int | None) -> tuple[int | None, str]:
    """Pixels a side, if they are known before the images are read, and where they are from, in words."""
    if resized is not None:
        return resized, f"data.image_size is {resized}"
    size = dataset.size if isinstance(dataset, Dataset) else None
    return size, f"{name} has {size}"


def find_conflicts(sections: Iterable[tuple[str, NamedSection]], facts: Facts) -> list[FieldConflict]:
    """What does not fit together in valid sections, and between them and the facts of their file."""
    return [conflict for at, section in sections for conflict in _conflicts_in(section, at, facts)]


def _conflicts_in(section: NamedSection, at: str, facts: Facts) -> Iterator[FieldConflict]:
    yield from section.entry.conflicts(section, at, facts)
    if isinstance(section, ModelSection) and section.quantize is not None:
        yield from section.quantize.conflicts(f"{at}.quantize")


def conflict_error(conflict: FieldConflict) -> InitErrorDetails:
    """The conflict as an error of Pydantic's at its field; its context has the conflict itself."""
    return InitErrorDetails(
        type=PydanticCustomError("conflict", "{message}", {"message": conflict.message, "conflict": conflict}),
        loc=split(conflict.field),
        input=None,
    )


def split(field: str) -> Keys:
    """The keys that lead to a field: `data.augment.0`."""
    return tuple(int(part) if part.isdigit() else part for part in field.split("."))
