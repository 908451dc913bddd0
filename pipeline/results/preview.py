"""What a job's network would see, as a PNG: some training images, each as it is and as in the first epochs."""

from __future__ import annotations

import logging
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn.functional as F

from pipeline.board.images import in_rgb, shrunk, spread
from pipeline.data.dataset import Dataset
from pipeline.data.loader import Loader
from pipeline.data.splits import Split
from pipeline.errors import UsageError
from pipeline.jobfile.sections import NamedSection
from pipeline.jobfile.spec import Spec
from pipeline.training import parts, rehearsal
from pipeline.training.job_dataset import load_dataset
from pipeline.wording import cut

NUM_IMAGES, NUM_AUGMENTED = 8, 7
SMALLEST, LARGEST = 96, 224  # pixels a side of an image in the preview
DPI = 100
GAP, EDGE, HEADING = 6, 16, 26  # pixels between images, at the figure's edge, and above the images
LINE, LETTER = 21, 8.6  # pixels: the height of a line of text, and the width of most letters
LABEL_LENGTH = 22  # letters of a class's name


@dataclass(frozen=True)
class Preview:
    """images: uint8 (rows, columns, H, W, 3); the first of a row is the image as it is. classes: of each row."""

    name: str
    augmentation: str
    images: torch.Tensor
    classes: tuple[str, ...]


def check_suffix(out: Path) -> None:
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out}: a preview's name should end in .png")


def make(spec: Spec, datasets: Path, *, log: Callable[[str], None]) -> Preview:
    """Loads the job's dataset and augments images of its training set, of as many classes as can be.

    datasets: the home's folder. Raises DataError, OwnCodeError.
    """
    dataset = load_dataset(spec, datasets, log=log)
    for note in dataset.notes:
        log(note)
    for at, error in rehearsal.rehearse(spec, rehearsal.Images.of(dataset)):
        if at.startswith("data.augment"):
            raise error
    chosen = choose(dataset.train.labels, NUM_IMAGES)
    labels = dataset.train.labels[chosen]
    split = Split(dataset.train.read(chosen), labels)
    seen = [split.images, *augmented(spec, dataset, split, NUM_AUGMENTED)]
    images = torch.stack([in_rgb(images) for images in seen], dim=1)
    return Preview(spec.name, describe(spec), images, tuple(dataset.classes[label] for label in labels.tolist()))


def choose(labels: torch.Tensor, count: int) -> list[int]:
    """Returns up to `count` indices, class after class: as many of each as of any other, and then a few more."""
    chosen = spread(labels, count)
    evenly = torch.linspace(0, len(labels) - 1, min(len(labels), 2 * count), dtype=torch.float64).round().long()
    more = [index for index in evenly.tolist() if index not in chosen][: count - len(chosen)]
    return sorted(chosen + more, key=lambda index: (int(labels[index]), index))


def augmented(spec: Spec, dataset: Dataset, split: Split, num: int) -> list[torch.Tensor]:
    """Returns a split's images as training gives them to the network in each of `num` epochs: uint8 (N, H, W, C)."""
    loader = Loader(
        split,
        batch_size=len(split),
        device=torch.device("cpu"),
        normalization=dataset.normalization,
        dtype=torch.float32,
        augment=[telling_where(section) for section in spec.data.augment],
        seed=spec.train.seed,
        shuffle=False,
    )
    epochs = [next(loader.epoch(epoch))[0] for epoch in range(num)]
    return [dataset.normalization.denormalize(images) for images in epochs]


def telling_where(section: NamedSection) -> parts.Augmentation:
    """Returns the augmentation; where it is the user's own, what it raises is an OwnCodeError."""
    augment = parts.build_augmentation(section)

    def augment_telling(images: torch.Tensor, **given: Any) -> torch.Tensor:
        with parts.telling_where(section.entry):
            return augment(images, **given)

    return augment_telling


def describe(spec: Spec) -> str:
    """`crop (padding 4), then flip`: without words and switches that are as they always are."""
    described = []
    for section in spec.data.augment:
        fields = type(section).model_fields
        options = ", ".join(
            f"{name} {_as_text(value)}"
            for name, value in section.options().items()
            if not isinstance(value, (str, bool)) or value != fields[name].default
        )
        described.append(f"{section.name} ({options})" if options else section.name)
    return ", then ".join(described) or "no augmentation: each epoch has the images as they are"


def _as_text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return " to ".join(map(_as_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def draw(preview: Preview, file: BinaryIO) -> None:
    """Writes a PNG: a row an image with its class, below the job's name and augmentation."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of each folder that it cannot keep fonts in
    from matplotlib.figure import Figure

    grid, side = _in_a_grid(preview.images)
    height, width = grid.shape[:2]
    labels = [cut(name, LABEL_LENGTH) for name in preview.classes]
    left = EDGE + round(LETTER * max(map(len, labels))) + GAP
    lines = textwrap.wrap(cut(preview.augmentation, 1000), width=int((left + width) / LETTER))
    top = EDGE + round(LINE * (1.5 + len(lines))) + HEADING
    page = left + width + EDGE, top + height + EDGE

    figure = Figure(figsize=(page[0] / DPI, page[1] / DPI), dpi=DPI, facecolor="white")
    area = (left / page[0], EDGE / page[1], width / page[0], height / page[1])
    axes = figure.add_axes(area, frameon=False, xticks=[], yticks=[])
    axes.imshow(grid.numpy(), interpolation="nearest", aspect="auto")
    for x, y, text, style in _texts(preview.name, lines, labels, left=left, top=top, side=side):
        placed = {"va": "center", "fontsize": 10, "parse_math": False, **style}
        figure.text(x / page[0], 1 - y / page[1], text, **placed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that its font lacks; a box stands for each
        figure.savefig(file, format="png")


def _texts(
    name: str, lines: Sequence[str], labels: Sequence[str], *, left: int, top: int, side: int
) -> Iterator[tuple[float, float, str, dict[str, Any]]]:
    """Each text, at so many pixels from the left and the top, with its style. left, top: of the images."""
    grey = {"color": "#444444"}
    yield EDGE, EDGE + LINE / 2, name, {"fontsize": 13, "fontweight": "bold"}
    for number, line in enumerate(lines):
        yield EDGE, EDGE + LINE * (number + 1.8), line, grey
    yield left + side / 2, top - HEADING / 2, "as it is", {"ha": "center", **grey}
    seen = f"as the network sees it, in {NUM_AUGMENTED} epochs"
    yield left + side + 3 * GAP, top - HEADING / 2, seen, grey
    for row, label in enumerate(labels):
        yield left - GAP - 2, top + row * (side + GAP) + side / 2, label, {"ha": "right"}


def _in_a_grid(images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """All images on white, enlarged by a whole number: uint8 (height, width, 3); and the side of one."""
    rows, columns = images.shape[:2]
    small = shrunk(images.flatten(0, 1), LARGEST)
    factor = -(-SMALLEST // small.shape[1])
    large = small.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    side = large.shape[1]
    cells = F.pad(large, (0, 0, 0, GAP, 0, GAP), value=255).view(rows, columns, side + GAP, side + GAP, 3)
    first, others = (part.transpose(1, 2).flatten(0, 1).flatten(1, 2) for part in (cells[:, :1], cells[:, 1:]))
    apart = first.new_full((len(first), 2 * GAP, 3), 255)
    return torch.cat((first, apart, others), dim=1)[:-GAP, :-GAP], side
