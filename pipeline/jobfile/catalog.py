"""Names that a job file may use, and where the code for each is.

To add a model, dataset, augmentation, loss, optimizer or schedule, write one function or class and add one entry here.
An entry's options become the fields of the job file's section, with these bounds, defaults and descriptions, and are
passed to the code by name; its rules say which of them do not go together. Datasets and augmentations are in
`catalog_of_data.py`. Nothing here imports torch, so that a job file is checked in milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.jobfile.catalog_of_data import AUGMENTATIONS, DATASETS
from pipeline.jobfile.entries import Entry, Loss, Model, Optimizer, Rule, option
from pipeline.jobfile.entry_rules import (
    CONVOLUTION_FIRST,
    DEPTH_OR_WIDTHS,
    NESTEROV_HAS_MOMENTUM,
    ends_before_training_does,
    vgg_min_size,
)
from pipeline.jobfile.fields import Bounds

__all__ = ["AUGMENTATIONS", "DATASETS", "LOSSES", "MODELS", "OPTIMIZERS", "SCHEDULES"]

_WIDTH = option(int, 64, "Channels of the first layers; later ones have up to eight times as many.", ge=8, le=512)

MODELS: dict[str, Model] = {
    "net": Model("pipeline.models.net:Net", "the PyTorch tutorial's small network", min_size=16),
    "cnn_bn": Model("pipeline.models.cnn_bn:CnnBn", "four convolutions with batch norm", min_size=4, min_batch=2),
    "vgg": Model(
        "pipeline.models.vgg:Vgg",
        "VGG with the small-image head",
        options={
            "depth": option(
                Literal[11, 13, 16, 19],
                11,
                "Weight layers, as the columns A, B, D, E of the paper's Table 1.",
                unless="widths",
            ),
            "widths": option(
                tuple[Annotated[int, Bounds(ge=1, le=4096)] | Literal["M"], ...] | None,
                None,
                "Instead of a depth: the channels of each 3x3 convolution, M for a 2x2 max pooling.",
                min_length=1,
                max_length=64,
            ),
            "batch_norm": option(bool, False, "Batch norm after each convolution."),
            "dropout": option(float, 0.0, "Dropout before the classifier, as a probability.", ge=0, lt=1),
        },
        rules=(DEPTH_OR_WIDTHS, CONVOLUTION_FIRST),
        min_size=vgg_min_size,
        min_size_options=("widths",),
    ),
    "resnet9": Model(
        "pipeline.models.resnet:ResNet9",
        "the residual network of nine layers that learns CIFAR-10 quickly (Page, 2018)",
        options={"width": _WIDTH},
        min_size=8,
        min_batch=2,
    ),
    "resnet18": Model(
        "pipeline.models.resnet:ResNet18",
        "ResNet-18 with a stem for small images (He et al., 2016)",
        options={"width": _WIDTH},
        min_batch=2,
    ),
    "airnet": Model(
        "pipeline.models.airnet:AirNet",
        "the network of airbench94, which learns CIFAR-10 in seconds; its first layer whitens (Jordan, 2024)",
        options={
            "width": _WIDTH,
            "whiten": option(
                bool,
                True,
                "The first layer's weights are computed from the training images, so that what it gives is "
                "uncorrelated, and fixed; false: they are trained.",
            ),
        },
        min_size=9,
        min_batch=2,
    ),
}

_CLASS_WEIGHTS = option(
    Literal["none", "balanced"]
    | Annotated[tuple[Annotated[float, Bounds(gt=0, le=1e6)], ...], Bounds(min_length=1, max_length=65536)],
    "none",
    "Of the classes in the training loss; balanced: the rarer, the heavier; or a number for each, in their order.",
)

LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(
        "pipeline.training.losses:cross_entropy",
        "cross-entropy",
        options={"class_weights": _CLASS_WEIGHTS},
        is_smooth=True,
    ),
    "focal": Loss(
        "pipeline.training.losses:focal",
        "what is easy counts less (Lin et al., 2017)",
        options={
            "gamma": option(float, 2.0, "How much less; 0 is cross-entropy.", ge=0, le=10),
            "class_weights": _CLASS_WEIGHTS,
        },
    ),
}

_LR = "Learning rate at the schedule's peak."
_DECAY = "Weight decay."
_BETAS = option(
    tuple[Annotated[float, Bounds(ge=0, lt=1)], Annotated[float, Bounds(ge=0, lt=1)]],
    (0.9, 0.999),
    "Decay rates of the two moment estimates.",
)

OPTIMIZERS: dict[str, Entry] = {
    "sgd": Entry(
        "pipeline.training.optimizers:sgd",
        "stochastic gradient descent",
        options={
            "lr": option(float, 0.01, _LR, gt=0, le=100),
            "momentum": option(float, 0.9, "Momentum.", ge=0, lt=1),
            "weight_decay": option(float, 0.0, _DECAY, ge=0, le=1),
            "nesterov": option(bool, False, "Nesterov's momentum; needs momentum above 0."),
        },
        rules=(NESTEROV_HAS_MOMENTUM,),
    ),
    "adam": Entry(
        "pipeline.training.optimizers:adam",
        "Adam",
        options={
            "lr": option(float, 1e-3, _LR, gt=0, le=100),
            "betas": _BETAS,
            "weight_decay": option(float, 0.0, _DECAY, ge=0, le=1),
        },
    ),
    "adamw": Entry(
        "pipeline.training.optimizers:adamw",
        "Adam with decoupled weight decay",
        options={
            "lr": option(float, 1e-3, _LR, gt=0, le=100),
            "betas": _BETAS,
            "weight_decay": option(float, 0.01, _DECAY, ge=0, le=1),
        },
    ),
    "muon": Optimizer(
        "pipeline.training.optimizers:muon",
        "orthogonalized momentum for hidden matrices and filters (Jordan et al., 2024), AdamW for all else",
        options={
            "lr": option(float, 0.02, _LR, gt=0, le=100),
            "momentum": option(float, 0.95, "Momentum.", ge=0, lt=1),
            "nesterov": option(bool, True, "Nesterov's momentum."),
            "weight_decay": option(float, 0.01, "Weight decay, times the learning rate.", ge=0, le=1),
            "adamw_lr": option(float, 1e-3, "AdamW's learning rate at the schedule's peak.", gt=0, le=100),
            "betas": _BETAS,
        },
        parts_matrices=True,
    ),
}

_WARMUP = option(float, 0.0, "Epochs over which the learning rate rises from 0.", ge=0, le=1000)
_WARMUP_ENDS = Rule("warmup_epochs", ends_before_training_does, facts=("epochs",))

SCHEDULES: dict[str, Entry] = {
    "constant": Entry(
        "pipeline.training.schedules:constant",
        "the same rate throughout",
        options={"warmup_epochs": _WARMUP},
        rules=(_WARMUP_ENDS,),
    ),
    "step": Entry(
        "pipeline.training.schedules:step_decay",
        "multiplied by gamma every few epochs",
        options={
            "step_epochs": option(float, 30.0, "Epochs between two decays.", ge=0.01, le=1_000_000),
            "gamma": option(float, 0.5, "Factor of each decay.", gt=0, le=1),
            "warmup_epochs": _WARMUP,
        },
        rules=(_WARMUP_ENDS,),
    ),
    "cosine": Entry(
        "pipeline.training.schedules:cosine",
        "half a cosine down to 0 (Loshchilov and Hutter, 2017)",
        options={"warmup_epochs": _WARMUP},
        rules=(_WARMUP_ENDS,),
    ),
    "one_cycle": Entry(
        "pipeline.training.schedules:one_cycle",
        "up, then down, in one cycle (Smith and Topin, 2018)",
        options={
            "pct_start": option(float, 0.3, "Share of all steps that the rate rises for.", gt=0, lt=1),
            "div_factor": option(float, 25.0, "The first rate is the peak divided by this.", ge=1, le=10**12),
            "final_div_factor": option(float, 1e4, "The last rate is the first divided by this.", ge=1, le=10**12),
        },
    ),
    "linear_one_cycle": Entry(
        "pipeline.training.schedules:linear_one_cycle",
        "straight up, then straight down (Page, 2018)",
        options={
            "start": option(float, 0.2, "Factor of the first step's rate.", gt=0, le=1),
            "peak": option(
                float, 0.23, "Share of all steps after which the factor is 1; 0: it falls at once.", ge=0, lt=1
            ),
            "end": option(float, 0.07, "Factor that is reached at the end.", ge=0, le=1),
        },
    ),
}
