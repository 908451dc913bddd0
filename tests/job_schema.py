"""The JSON Schema of job files beside `validate`: what one of them refuses, the other has to refuse.

What is no YAML, or has a trap of YAML in it, as a key that is given twice, is not among it: there is no data for a
schema to judge.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import jsonschema
from jsonschema.protocols import Validator

from pipeline.errors import SpecError
from pipeline.jobfile import own_modules, yamltree
from pipeline.jobfile.json_schema import json_schema


class Unsaid(NamedTuple):
    """What `validate` refuses and the schema takes."""

    why: str
    message: str  # of `validate`, as a regular expression
    example: str  # after the lines of `HEAD`


HEAD = "name: x\nmodel: {name: cnn_bn}\ndata: {name: cifar10}\n"
UNSAID = [
    Unsaid(
        "to a schema 1000.0 is a whole number",
        r"\d\.0 (should be a whole number|is not a size|is not a duration)",
        "train: {accumulate: 1e3}",
    ),
    Unsaid("a sum of a duration's parts", "'366d1s' is out of range", "resources: {timeout: 366d1s}"),
    Unsaid(
        "one number against another: the order of two in a list",
        r"is more than .*; write \[",
        "data: {name: mnist, augment: [{name: random_resized_crop, scale: [0.9, 0.1]}]}",
    ),
    Unsaid(
        "one number against another: a warmup and the epochs",
        "is longer than the whole training",
        "train: {schedule: {name: cosine, warmup_epochs: 11}}",
    ),
    Unsaid(
        "one number against another: an augmentation and the size that images are given",
        "is more than the images' 9 pixels",
        "data: {name: mnist, image_size: 9, augment: [{name: crop, padding: 10}]}",
    ),
    Unsaid(
        "a sum of shares",
        "val and test together must be above 0 and below 1",
        "data: {name: image_folder, path: x, split: {val: 0.5, test: 0.5}}",
    ),
    Unsaid(
        "a power of how many poolings a list has",
        "'vgg' needs images of at least 64",
        "model: {name: vgg, widths: [8, M, M, M, M, M, M]}",
    ),
    Unsaid(
        "one number against another: the ends of a range",
        "from should be below to",
        "search: {space: {train.epochs: {from: 2, to: 1}}}",
    ),
    Unsaid(
        "one number against others: a range and its step",
        "which should be above 0 and at most",
        "search: {space: {train.epochs: {from: 1, to: 3, step: 4}}}",
    ),
    Unsaid(
        "one key that begins as another one",
        "which lies in train.optimizer, that is searched too",
        "search: {space: {train.optimizer: [{lr: 0.1}, {lr: 0.2}], train.optimizer.lr: [1, 2]}}",
    ),
    Unsaid(
        "the same text in two fields",
        "names a scalar twice",
        "search: {maximize: val/loss, minimize: val/loss, space: {train.epochs: [1]}}",
    ),
    Unsaid(
        "a product",
        r"the grid has [\d,]+ points",
        "search: {sampler: grid, space: {train.epochs: {from: 1, to: 5000}, data.batch_size: {from: 1, to: 5000}}}",
    ),
    Unsaid(
        "a count of what is of one kind",
        "needs two ranges or more",
        "search: {sampler: cmaes, space: {train.epochs: [1, 2], train.seed: [1, 2]}}",
    ),
    Unsaid(
        "what stands in a file of the user's own",
        r"'[\w.]+:\w+'",
        "model: {name: nowhere:Net}",
    ),
]


@functools.cache
def validator() -> Validator:
    with own_modules.using(own_modules.NONE):
        return jsonschema.Draft202012Validator(json_schema())


def complaints(text: str) -> list[str] | None:
    """What the schema says of a file; None where it cannot be read as YAML."""
    try:
        tree = yamltree.parse(text.encode("utf-8", "surrogatepass"), "job.yaml").plain()
    except SpecError:
        return None
    return [f"{error.json_path}: {error.message[:200]}" for error in validator().iter_errors(tree)]


def require_refusal(text: str, messages: list[str]) -> None:
    """What the program refuses, the schema refuses, but for what it cannot say."""
    if complaints(text) == []:
        said = [message for message in messages if not _is_unsaid(message) and not _is_tried(message, text)]
        assert said == [], "the schema takes it"


def require_acceptance(text: str) -> None:
    """What the program takes, the schema takes, but for a name that stands in the space of a sweep alone."""
    if "space: {model.name" not in text:
        assert complaints(text) == []


def _is_unsaid(message: str) -> bool:
    return any(re.search(unsaid.message, message) for unsaid in UNSAID)


def _is_tried(message: str, text: str) -> bool:
    """Whether the message is about a value of a sweep's space, each of which is tried in the file."""
    space: dict[str, Any] = yamltree.parse(text.encode(), "job.yaml").plain().get("search", {}).get("space", {})
    field = message.split(": ")[1]
    return any(f"{field}.".startswith(f"{key}.") for key in space)
