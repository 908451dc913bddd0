"""When the options of a recipe help, and what they were worth where that was measured; for the reference page.

The figures are those of `benchmarks/recipes.py`, whose rungs have the names that stand here; docs/recipes.md says on
what they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

Figures = tuple[float, float]  # test accuracy in percent, with seeds 0 and 1


class Worth(NamedTuple):
    option: str  # as a job file has it
    helps: str
    without: Figures
    with_it: Figures


EPOCHS = 5

WORTH: tuple[Worth, ...] = (
    Worth(
        "model.whiten: true",
        "few epochs; `airnet` alone has it",
        (79.34, 79.31),
        (80.28, 79.78),
    ),
    Worth(
        "train.schedule: {name: linear_one_cycle}",
        "with an average of the weights, as its rate stays high; without, `one_cycle` is as good or better",
        (80.28, 79.78),
        (80.07, 79.19),
    ),
    Worth(
        "train.optimizer.bias_lr: 64.0",
        "wide networks and few steps, by its authors; this narrow one lost by it",
        (80.07, 79.19),
        (78.33, 77.1),
    ),
    Worth(
        "train.optimizer.bias_weight_decay: 2.08e-5; train.optimizer.norm_weight_decay: 2.08e-5",
        "with `bias_lr`, so that biases decay no faster; 0 is usual elsewhere; no difference here",
        (78.33, 77.1),
        (77.76, 78.6),
    ),
    Worth(
        "model.batch_norm_momentum: 0.4",
        "few epochs at high rates, where running means must follow soon",
        (77.76, 78.6),
        (79.79, 79.47),
    ),
    Worth(
        "data.last_batch: drop",
        "all steps of one shape, which a GPU is faster with; an image in sixty is left out, which costs some",
        (79.79, 79.47),
        (79.34, 78.59),
    ),
    Worth(
        "data.augment: [{name: crop, padding: 2, padding_mode: reflect}]",
        "photographs, whose border is not black",
        (79.34, 78.59),
        (80.27, 79.26),
    ),
    Worth(
        "data.augment: [{name: flip, alternate: true}]",
        "several epochs, by its authors; two seeds show no difference here",
        (80.27, 79.26),
        (78.94, 79.59),
    ),
    Worth(
        "train.lookahead: {every: 5, alpha: 0.226, power: 3.0}",
        "trainings whose rate stays high",
        (78.94, 79.59),
        (80.72, 80.21),
    ),
    Worth(
        "train.ema: {decay: 0.99}",
        "the same; in the middle of a training it shows what it is worth; 0.999 from some thousand steps on",
        (78.94, 79.59),
        (80.58, 80.72),
    ),
    Worth(
        "data.test_augment: mirror",
        "where a mirror image means the same; evaluation and `predict` take twice as long",
        (80.72, 80.21),
        (81.55, 81.41),
    ),
    Worth(
        "data.test_augment: mirror_shift",
        "the same, but six times as long",
        (80.72, 80.21),
        (81.73, 81.58),
    ),
    Worth(
        "train.epochs: 4.5",
        "to end at a given budget; a tenth fewer steps cost a point here",
        (80.72, 80.21),
        (78.68, 79.61),
    ),
    Worth(
        "train.optimizer: {name: muon, lr: 0.1, weight_decay: 0.01, adamw_lr: 0.01}",
        "deep networks; VGG11 gains more than this one, see recipes.md; here in place of SGD with `bias_lr`",
        (78.94, 79.59),
        (80.03, 79.46),
    ),
)

_HEAD = f"""## When the options of a recipe help

Each was added to a job without it, and both were trained for {EPOCHS} epochs of CIFAR-10, with seeds 0 and 1: test
accuracy in percent. What is worth something to a narrow network in so few epochs may be worth more or less to another:
[recipes.md](recipes.md) has the jobs, and longer ones.

| option | when it helps | without | with |
|---|---|---|---|
"""


def markdown() -> str:
    """Returns the section of the reference page."""
    return _HEAD + "".join(_rows())


def _rows() -> Iterator[str]:
    for worth in WORTH:
        without, with_it = (", ".join(f"{value:.2f}" for value in figures) for figures in worth[2:])
        yield f"| `{worth.option}` | {worth.helps} | {without} | {with_it} |\n"
