"""What an entry of the catalog is: a name's code, its options, and the rules that its options keep.

A rule is about fields that are right by themselves and may be wrong together: two options of the entry, or one and a
fact of the rest of the file. It stands with the entry that declares the options, and is judged wherever the section
and what it depends on are right, whatever else is wrong in the file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.jobfile.fields import Field
from pipeline.jobfile.own_code import OwnCode
from pipeline.jobfile.schema_parts import JsonSchema

Options = Mapping[str, tuple[Any, Field]]


def option(
    type_: Any, default: Any, description: str, *, unless: str | None = None, **bounds: Any
) -> tuple[Any, Field]:
    """A field of a job file's section. `...` as default: it must be given. unless, bounds: as of `fields.Field`."""
    return (type_, Field(default, description, bounds, unless))


class Facts(NamedTuple):
    """What a section has to fit with in the rest of the file; None where it is not known or is itself wrong."""

    image_size: int | None = None  # pixels a side
    image_size_from: str = ""  # in words: "digits has 8", "data.image_size is 8"
    batch_size: int | None = None
    epochs: float | None = None
    label_smoothing: float | None = None


FIELDS_OF_FACTS: Mapping[str, tuple[str, ...]] = {
    "image_size": ("data.image_size", "data.name"),
    "batch_size": ("data.batch_size",),
    "epochs": ("train.epochs",),
    "label_smoothing": ("train.label_smoothing",),
}
"""The fields of a job file that each fact comes from."""


class Rule(NamedTuple):
    """Says what does not fit in a valid section, or None; asked only where the facts that it needs are known."""

    field: str  # of the section; the message is about it
    complaint: Callable[[Any, Facts], str | None]
    also: tuple[str, ...] = ()  # further fields of the section that it looks at
    facts: tuple[str, ...] = ()  # names of `Facts` that it looks at
    blames: str | None = None  # a field elsewhere that the message is about instead, from the top of the file
    said: JsonSchema | Callable[[Facts], JsonSchema] | None = None  # of the section, as far as a JSON Schema can say it

    def schema(self, facts: Facts) -> JsonSchema | None:
        """Returns what a JSON Schema says of the section, given these facts; None where it can say nothing."""
        if any(getattr(facts, name) is None for name in self.facts):
            return None
        return self.said(facts) if callable(self.said) else self.said


class FieldConflict(NamedTuple):
    """Fields that are right by themselves and wrong together, all named from the top of the file."""

    field: str
    message: str
    depends: tuple[str, ...]  # all fields that could be changed to mend it


@dataclass(frozen=True)
class Entry:
    code: str  # "module:attribute"
    summary: str
    options: Options = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    own: OwnCode | None = None  # where the code is a user's own

    def load(self) -> Any:
        """The class or function. Raises OwnCodeError where it is a user's own and cannot be loaded."""
        if self.own is not None:
            return self.own.load()
        module, _, attribute = self.code.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def given(self, **values: Any) -> dict[str, Any]:
        """Those of the program's arguments that the code takes: the catalog's takes all, a user's own what it names."""
        return values if self.own is None else self.own.taken(values)

    def all_rules(self) -> tuple[Rule, ...]:
        return self.rules

    def conflicts(self, section: Any, at: str, facts: Facts) -> Iterator[FieldConflict]:
        """What does not fit in a valid section of this entry, which stands at `at` in the file."""
        for rule in self.all_rules():
            if any(getattr(facts, name) is None for name in rule.facts):
                continue
            if message := rule.complaint(section, facts):
                own = tuple(f"{at}.{name}" for name in (rule.field, *rule.also))
                elsewhere = tuple(name for fact in rule.facts for name in FIELDS_OF_FACTS[fact])
                yield FieldConflict(rule.blames or own[0], message, (*elsewhere, *own))


@dataclass(frozen=True)
class Model(Entry):
    """Called with `num_classes`, `channels`, `image_size` and its options; gives an `nn.Module`."""

    min_size: int | Callable[[Any], int] = 1  # pixels, or a function of the model's section
    min_size_options: tuple[str, ...] = ()  # that such a function looks at
    takes_name: bool = False  # as `name`, where one entry stands for many models
    min_batch: int = 1  # 2 where it has batch norm over single values, which one image has no variance of

    def smallest(self, section: Any) -> int:
        """The smallest images that the model can take, in pixels a side."""
        return self.min_size if isinstance(self.min_size, int) else self.min_size(section)

    def all_rules(self) -> tuple[Rule, ...]:
        size = Rule("name", self._images_are_large_enough, also=self.min_size_options, facts=("image_size",))
        batch = Rule("name", self._batch_is_large_enough, facts=("batch_size",), blames="data.batch_size")
        return (size, batch, *self.rules)

    def _images_are_large_enough(self, section: Any, facts: Facts) -> str | None:
        needed = self.smallest(section)
        if facts.image_size is None or facts.image_size >= needed:
            return None
        return (
            f"{section.name!r} needs images of at least {needed} pixels, and {facts.image_size_from}; "
            f"set data.image_size: {max(needed, 32)}"
        )

    def _batch_is_large_enough(self, section: Any, facts: Facts) -> str | None:
        if facts.batch_size is None or facts.batch_size >= self.min_batch:
            return None
        return f"{facts.batch_size} is too small for the batch norm of {section.name!r}; at least {self.min_batch}"


@dataclass(frozen=True)
class Loss(Entry):
    """Called with logits (N, classes), labels (N,) and its options; gives the mean over the batch."""

    is_smooth: bool = False  # whether it takes `label_smoothing`

    def all_rules(self) -> tuple[Rule, ...]:
        smoothing = Rule("name", self._smooths, facts=("label_smoothing",), blames="train.label_smoothing")
        return (*self.rules, smoothing)

    def _smooths(self, section: Any, facts: Facts) -> str | None:
        if not facts.label_smoothing or self.is_smooth:
            return None
        return f"the loss {section.name!r} does not smooth labels; leave it out"


@dataclass(frozen=True)
class Optimizer(Entry):
    """Called with parameters or groups of them, `fused` and its options; gives a `torch.optim.Optimizer`."""

    parts_matrices: bool = False  # whether hidden weights are a group of their own, marked as `orthogonalized`


@dataclass(frozen=True)
class Dataset(Entry):
    """Called with the datasets' folder and its options; gives a `pipeline.data.source.Found`."""

    num_classes: int | None = None  # None: known when the images are read
    channels: int = 3
    size: int | None = None  # pixels; None: known when the images are read
