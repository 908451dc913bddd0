"""The part of the catalog that is about images: datasets and augmentations; see `catalog.py`."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.jobfile.entries import Dataset, Entry, Rule, option
from pipeline.jobfile.entry_rules import (
    REFLECTS_LESS_THAN_IMAGES,
    SOME_TO_TRAIN_ON,
    SPLIT_BY_ITS_OWN_FIELD,
    Shares,
    is_ascending,
    no_larger_than_images,
)
from pipeline.jobfile.fields import Bounds

DATASETS: dict[str, Dataset] = {
    "digits": Dataset("pipeline.data.digits:read", "handwritten digits, bundled", num_classes=10, channels=1, size=8),
    "mnist": Dataset("pipeline.data.downloads:read_mnist", "MNIST", num_classes=10, channels=1, size=28),
    "fashion_mnist": Dataset(
        "pipeline.data.downloads:read_fashion_mnist", "FashionMNIST", num_classes=10, channels=1, size=28
    ),
    "cifar10": Dataset("pipeline.data.downloads:read_cifar10", "CIFAR-10", num_classes=10, size=32),
    "cifar100": Dataset("pipeline.data.downloads:read_cifar100", "CIFAR-100", num_classes=100, size=32),
    "image_folder": Dataset(
        "pipeline.data.image_folder:read",
        "your own images, as `train/<class>/*`, with `val/` and `test/` or one of them, or as `<class>/*` with `split`",
        options={
            "path": option(str, ..., "The folder; a relative path is looked up in HOME/datasets.", min_length=1),
            "on_corrupt": option(
                Literal["fail", "skip"], "fail", "What to do with files that cannot be read; they are named either way."
            ),
            "split": option(
                Shares | None,
                None,
                "Hold images out by shares: of the training images what there is no folder for, or of folders that are "
                "classes.",
            ),
            "in_memory": option(
                Literal["auto", "always", "never"],
                "auto",
                "All images in memory (much faster), or from disk each epoch; auto: by the machine's memory.",
            ),
        },
        rules=(SOME_TO_TRAIN_ON, SPLIT_BY_ITS_OWN_FIELD),
    ),
}

AUGMENTATIONS: dict[str, Entry] = {
    "crop": Entry(
        "pipeline.data.augment:crop",
        "pad, then crop at random",
        options={
            "padding": option(int, 4, "Pixels added on each side.", ge=1, le=64),
            "padding_mode": option(
                Literal["constant", "reflect"],
                "constant",
                "What they show: black; reflect: the image, mirrored at its edge, as torchvision's `RandomCrop`.",
            ),
        },
        rules=(no_larger_than_images("padding"), REFLECTS_LESS_THAN_IMAGES),
    ),
    "flip": Entry(
        "pipeline.data.augment:flip",
        "mirror left and right, every second image",
        options={
            "alternate": option(
                bool,
                False,
                "At random in the first epoch only; then each image if it was not in the epoch before (Jordan, 2024, "
                "arXiv:2404.00498, section 3.6).",
            ),
        },
    ),
    "cutout": Entry(
        "pipeline.data.augment:cutout",
        "a square set to the mean colour (DeVries and Taylor, 2017)",
        options={"size": option(int, 8, "Side of the square in pixels.", ge=1, le=512)},
        rules=(no_larger_than_images("size"),),
    ),
    "rotation": Entry(
        "pipeline.data.augment_geometry:rotation",
        "turn around the centre by a random angle",
        options={"degrees": option(float, 15.0, "Largest angle to either side.", gt=0, le=180)},
    ),
    "random_resized_crop": Entry(
        "pipeline.data.augment_geometry:random_resized_crop",
        "cut out a random part and enlarge it to the image's size",
        options={
            "scale": option(
                tuple[Annotated[float, Bounds(gt=0, le=1)], Annotated[float, Bounds(gt=0, le=1)]],
                (0.08, 1.0),
                "Least and largest area of the part, as a share of the image's.",
            ),
            "ratio": option(
                tuple[Annotated[float, Bounds(ge=0.1, le=10)], Annotated[float, Bounds(ge=0.1, le=10)]],
                (0.75, 1.3333),
                "Least and largest ratio of the part's width to its height.",
            ),
        },
        rules=(Rule("scale", is_ascending("scale")), Rule("ratio", is_ascending("ratio"))),
    ),
    "color_jitter": Entry(
        "pipeline.data.augment_colour:color_jitter",
        "change brightness, contrast, saturation and hue, in this order",
        options={
            "brightness": option(float, 0.4, "Brightness times 1 - x to 1 + x.", ge=0, le=10),
            "contrast": option(float, 0.4, "Contrast times 1 - x to 1 + x.", ge=0, le=10),
            "saturation": option(float, 0.4, "Saturation times 1 - x to 1 + x; nothing on grey images.", ge=0, le=10),
            "hue": option(float, 0.1, "Hue turned by up to this share of the circle either way.", ge=0, le=0.5),
        },
    ),
    "trivial_augment": Entry(
        "pipeline.data.trivial_augment:trivial_augment",
        "one random operation of fourteen, of random strength (Müller and Hutter, 2021)",
    ),
}
