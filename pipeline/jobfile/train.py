"""The `train` section: how a network learns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pipeline.jobfile import catalog
from pipeline.jobfile.entries import FieldConflict
from pipeline.jobfile.fields import Duration, Fractional, field
from pipeline.jobfile.schema_parts import GIVEN, when
from pipeline.jobfile.sections import ChosenByName, NamedSection, Section


class OptimizerSection(NamedSection):
    bias_lr: float = field(1.0, gt=0, le=1000, description="Factor of the learning rate of all biases.")
    bias_weight_decay: float | None = field(
        None, ge=0, le=1, description="Weight decay of the biases of linear layers and convolutions; default: as all."
    )
    norm_weight_decay: float | None = field(
        None, ge=0, le=1, description="Weight decay of norm layers, their biases among them; default: as all."
    )


OPTIMIZER = ChosenByName("optimizer", catalog.OPTIMIZERS, OptimizerSection, default="sgd")
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


class Ema(Section):
    decay: float = field(
        0.999, ge=0, lt=1, description="Share of itself that the average keeps; less in the first steps."
    )
    every: int = field(1, ge=1, le=10_000, description="Steps between two updates.")


class Lookahead(Section):
    every: int = field(5, ge=1, le=10_000, description="Steps between two updates.")
    alpha: float = field(0.5, gt=0, le=1, description="Share of the way to the weights that the average goes.")
    power: float = field(
        0.0,
        ge=0,
        le=10,
        description="How that share falls from 1 at the beginning to `alpha` at the end, by (step / steps)^power; "
        "0: it is the same throughout.",
    )


class Train(Section):
    epochs: Annotated[float, Fractional(least=0.001, most=100_000)] = field(
        10, description="Passes over the training set; 9.9 ends within the tenth."
    )
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
    optimizer: Annotated[OptimizerSection, OPTIMIZER] = field({}, description="How weights follow gradients.")
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
    ema: Ema | None = field(
        None,
        description="Evaluate, and keep, an exponential moving average of the weights; default: the weights. "
        "`{}`: by the defaults below.",
    )
    lookahead: Lookahead | None = field(
        None,
        description="As `ema`, of a slow average to which the weights go back now and then. "
        "`{}`: by the defaults below.",
    )
    clip_grad_norm: float | None = field(
        None, gt=0, le=10**12, description="Scale gradients down to this norm; default: never."
    )
    accumulate: int = field(1, ge=1, le=4096, description="Batches whose gradients are averaged for one step.")
    checkpoint_every: Duration = field(
        600, description="Longest time between two checkpoints; each epoch ends with one too."
    )

    schema_rules = (
        when({"capture": {"const": True}}, {"fused": {"enum": [True, "auto"]}}),
        when({"ema": GIVEN}, {"lookahead": {"type": "null", "errorMessage": "It does not go with ema"}}),
    )

    @property
    def num_epochs(self) -> int:
        """The epochs that are begun; the last one may be cut short."""
        return math.ceil(self.epochs)

    def conflicts(self) -> Iterator[FieldConflict]:
        """Yields what does not go together, as a captured step and an optimizer that cannot be a part of it."""
        if self.capture is True and self.fused is False:
            message = "a captured step needs a fused optimizer; set capture: false"
            yield FieldConflict("train.fused", message, ("train.capture", "train.fused"))
        if self.ema is not None and self.lookahead is not None:
            message = "is an average of the weights, as train.ema is; leave one of them out"
            yield FieldConflict("train.lookahead", message, ("train.ema", "train.lookahead"))
