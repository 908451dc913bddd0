"""What the catalog's entries ask of each other and of their options: sizes, and what does not go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.jobfile.entries import Facts, Rule
from pipeline.jobfile.fields import field
from pipeline.jobfile.schema_parts import GIVEN, JsonSchema, when
from pipeline.jobfile.sections import Section
from pipeline.wording import plural


def vgg_min_size(section: Any) -> int:
    poolings = section.widths.count("M") if section.widths else 5
    return int(2**poolings)


def begins_with_a_convolution(section: Any, _: Facts) -> str | None:
    if section.widths is None or isinstance(section.widths[0], int):
        return None
    return "must begin with a number of channels, as [64, M, 128, M]"


CONVOLUTION_FIRST = Rule(
    "widths", begins_with_a_convolution, said={"properties": {"widths": {"prefixItems": [{"type": "integer"}]}}}
)


def is_not_beside_widths(section: Any, _: Facts) -> str | None:
    if section.depth is None or section.widths is None:
        return None
    return (
        f"{section.depth} does not go with widths, which stand in its place; leave one of them out, or set "
        "model.depth: null"
    )


DEPTH_OR_WIDTHS = Rule(
    "depth",
    is_not_beside_widths,
    also=("widths",),
    said=when({"widths": GIVEN}, {"depth": {"type": "null", "errorMessage": "It does not go with widths"}}),
)


def no_larger_than_images(option: str) -> Rule:
    def complaint(section: Any, facts: Facts) -> str | None:
        value = getattr(section, option)
        if facts.image_size is None or value <= facts.image_size:
            return None
        return f"{value} is more than the images' {plural(facts.image_size, 'pixel')}"

    def said(facts: Facts) -> JsonSchema:
        return {"properties": {option: {"maximum": facts.image_size}}}

    return Rule(option, complaint, facts=("image_size",), said=said)


def _cannot_be_reflected(section: Any, facts: Facts) -> str | None:
    if section.padding_mode != "reflect" or section.padding != facts.image_size:
        return None  # of more than that, `no_larger_than_images` tells
    return (
        f"{section.padding} is more than there is to reflect in images of {plural(section.padding, 'pixel')}, as their "
        f"edge is not repeated; set {section.padding - 1} or less, or padding_mode: constant"
    )


def _padding_that_can_be_reflected(facts: Facts) -> JsonSchema:
    assert facts.image_size is not None
    return when({"padding_mode": {"const": "reflect"}}, {"padding": {"maximum": facts.image_size - 1}})


REFLECTS_LESS_THAN_IMAGES = Rule(
    "padding",
    _cannot_be_reflected,
    also=("padding_mode",),
    facts=("image_size",),
    said=_padding_that_can_be_reflected,
)


def is_ascending(option: str) -> Callable[[Any, Facts], str | None]:
    def complaint(section: Any, _: Facts) -> str | None:
        low, high = getattr(section, option)
        return None if low <= high else f"{low:g} is more than {high:g}; write [{high:g}, {low:g}]"

    return complaint


def has_momentum(section: Any, _: Facts) -> str | None:
    if not section.nesterov or section.momentum:
        return None
    return "needs a momentum above 0; set train.optimizer.momentum: 0.9"


NESTEROV_HAS_MOMENTUM = Rule(
    "nesterov",
    has_momentum,
    also=("momentum",),
    said=when({"nesterov": {"const": True}}, {"momentum": {"exclusiveMinimum": 0}}),
)


def ends_before_training_does(section: Any, facts: Facts) -> str | None:
    if facts.epochs is None or section.warmup_epochs <= facts.epochs:
        return None
    return f"{section.warmup_epochs:g} is longer than the whole training of {plural(facts.epochs, 'epoch')}"


class Shares(Section):
    """Images that are held out, by their content: a new image moves no other."""

    val: float = field(0.0, ge=0, lt=1, description="Share that is held out to choose the best epoch by.")
    test: float = field(0.0, ge=0, lt=1, description="Share that is held out to test the best epoch with.")
    seed: int = field(0, ge=0, lt=2**63, description="Another one holds out other images.")


def leaves_some_to_train_on(section: Any, _: Facts) -> str | None:
    if section.split is None or 0 < section.split.val + section.split.test < 1:
        return None
    return "val and test together must be above 0 and below 1, as {val: 0.1, test: 0.1}"


_ABOVE_0 = [{"properties": {name: {"exclusiveMinimum": 0}}, "required": [name]} for name in ("val", "test")]
SOME_TO_TRAIN_ON = Rule(
    "split",
    leaves_some_to_train_on,
    said={"properties": {"split": {"if": {"type": "object"}, "then": {"anyOf": _ABOVE_0}}}},
)


def is_split_by_its_own_field(section: Any, _: Facts) -> str | None:
    if section.val is None:
        return None
    return f"image_folder has a field of its own for that; set data.split: {{val: {section.val:g}}}"


SPLIT_BY_ITS_OWN_FIELD = Rule(
    "split", is_split_by_its_own_field, blames="data.val", said={"properties": {"val": {"type": "null"}}}
)
