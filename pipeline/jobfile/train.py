"""The `train` section: how a network learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pipeline.jobfile import catalog
from pipeline.jobfile.entries import FieldConflict
from pipeline.jobfile.fields import Duration, field
from pipeline.jobfile.schema_parts import when
from pipeline.jobfile.sections import ChosenByName, NamedSection, Section

OPTIMIZER = ChosenByName("optimizer", catalog.OPTIMIZERS, default="sgd")
LOSS = ChosenByName("loss", catalog.LOSSES, default="cross_entropy")
SCHEDULE = ChosenByName("schedule", catalog.SCHEDULES, default="constant")

Auto = bool | Literal["auto"]


class EarlyStopping(Section):
    patience: int = field(
        5, ge=1, le=100_000, description="Epochs in a row without an improvement after which the training ends."
    )
    min_delta: float = field(
        0.0,
        ge=0,
        lt=1,
        description="An epoch is an improvement where its accuracy, from 0 to 1, is above that of the latest one by "
        "more than this.",
    )


class Train(Section):
    epochs: int = field(10, ge=1, le=100_000, description="Passes over the training set.")
    early_stopping: EarlyStopping | None = field(
        None,
        description="End the training where the accuracy by which the best epoch is chosen rises no more; default: "
        "never. `{}`: by the defaults below.",
    )
    seed: int = field(0, ge=0, lt=2**63, description="Of the first weights, the order of images and all augmentation.")
    deterministic: bool = field(
        False, description="Only deterministic kernels: on the CPU the same job gives the same weights, bit for bit."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(
        "auto",
        description="Of the forward and backward pass; auto: bf16 where it is faster, which on a CPU is measured.",
    )
    channels_last: Auto = field(
        "auto",
        description="Memory format of images and convolutions; auto: on, which for tiny batches on a CPU is measured.",
    )
    fused: Auto = field("auto", description="Fused optimizer kernels; auto: where the device has them.")
    compile: Auto = field("auto", description="torch.compile the model; auto: off, which is faster for small jobs.")
    capture: Auto = field(
        "auto",
        description="Launch a whole step on a GPU as one CUDA graph; auto: on where its memory suffices, but with "
        "`fused: false` and for a model, an optimizer or a loss of your own.",
    )
    optimizer: Annotated[NamedSection, OPTIMIZER] = field({}, description="How weights follow gradients.")
    schedule: Annotated[NamedSection, SCHEDULE] = field({}, description="The learning rate over time.")
    loss: Annotated[NamedSection, LOSS] = field({}, description="What is made small.")
    label_smoothing: float = field(
        0.0, ge=0, lt=1, description="Probability spread over the other classes in the loss."
    )
    mixup: float = field(
        0.0,
        ge=0,
        le=10,
        description="Alpha of mixup: images and labels are mixed in pairs, by Beta(alpha, alpha).",
    )
    cutmix: float = field(
        0.0,
        ge=0,
        le=10,
        description="Alpha of CutMix: a part of each image is another's; with mixup, either of them.",
    )
    clip_grad_norm: float | None = field(
        None, gt=0, le=10**12, description="Scale gradients down to this norm; default: never."
    )
    accumulate: int = field(1, ge=1, le=4096, description="Batches whose gradients are averaged for one step.")
    checkpoint_every: Duration = field(
        600, description="Longest time between two checkpoints; each epoch ends with one too."
    )

    schema_rules = (when({"capture": {"const": True}}, {"fused": {"enum": [True, "auto"]}}),)

    def conflicts(self) -> Iterator[FieldConflict]:
        """Yields what does not go together: a captured step, with an optimizer that cannot be a part of it."""
        if self.capture is True and self.fused is False:
            message = "a captured step needs a fused optimizer; set capture: false"
            yield FieldConflict("train.fused", message, ("train.capture", "train.fused"))
