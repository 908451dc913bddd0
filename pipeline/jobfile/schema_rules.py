"""What a JSON Schema says of sections that do not go together: images too small for a network, and such.

It is made from the rules of the catalog's entries, and says what can be said without arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.jobfile import torchvision_models
from pipeline.jobfile.catalog import AUGMENTATIONS, DATASETS, LOSSES, MODELS
from pipeline.jobfile.entries import Dataset, Entry, Facts, Model
from pipeline.jobfile.schema_parts import JsonSchema, when
from pipeline.jobfile.spec import MODEL, Data

_NOT_GIVEN: JsonSchema = {"type": "null"}


def of_entry(entry: Entry) -> Iterator[JsonSchema]:
    """Yields what is said of a section of this entry."""
    yield from (said for rule in entry.rules if (said := rule.schema(Facts())))
    if isinstance(entry, Dataset) and entry.size is not None:
        facts = Facts(image_size=entry.size)
        sizes = [
            {
                "not": {
                    "contains": {
                        "properties": {"name": {"const": name}},
                        "required": ["name"],
                        "type": "object",
                        "not": said,
                    }
                }
            }
            for name, augmentation in AUGMENTATIONS.items()
            for rule in augmentation.rules
            if rule.facts and (said := rule.schema(facts))
        ]
        yield {
            "if": {"properties": {"image_size": _NOT_GIVEN}},
            "then": {"properties": {"augment": {"allOf": sizes}}},
        }


def of_file() -> Iterator[JsonSchema]:
    """Yields what is said of the sections of a file together."""
    yield from _batches()
    yield from _sizes()
    unsmooth = [name for name, loss in LOSSES.items() if not loss.is_smooth]
    yield {
        "properties": {"train": when({"loss": _named(unsmooth)}, {"label_smoothing": {"maximum": 0}})},
    }


def _batches() -> Iterator[JsonSchema]:
    """Of one image there is no variance."""
    for least, names in _grouped({name: model.min_batch for name, model in _models().items()}).items():
        if least > 1:
            yield when({"model": _named(names)}, {"data": {"properties": {"batch_size": {"minimum": least}}}})


def _sizes() -> Iterator[JsonSchema]:
    """Images as large as the network needs, by the size that they are given or have."""
    sizes = {name: model.smallest(MODEL.section({"name": name})) for name, model in _models().items()}
    for least, names in _grouped(sizes).items():
        if least <= Data.model_fields["image_size"].bounds["ge"]:
            continue
        small = [name for name, dataset in DATASETS.items() if dataset.size is not None and dataset.size < least]
        whose: JsonSchema = _named(names)
        whose["properties"] |= {
            option: _NOT_GIVEN for name in names for option in _models()[name].min_size_options
        }  # of other options it is another size
        large: JsonSchema = {"properties": {"image_size": {"minimum": least}}}
        resized = when({"name": {"enum": small}}, {"image_size": {"type": "integer"}}, needs=["image_size"])
        yield when({"model": whose}, {"data": {**large, **(resized if small else {})}})


def _models() -> dict[str, Model]:
    """Those of the catalog, and for all that one entry stands for one of them."""
    return {**MODELS, torchvision_models.NAMES[0]: torchvision_models.MODEL}


def _named(names: list[str]) -> JsonSchema:
    """A section that has one of these names, or one that stands for as many."""
    prefix = torchvision_models.PREFIX
    patterns = [f"{prefix}.*" if name.startswith(prefix) else name for name in names]
    return {"properties": {"name": {"pattern": f"^({'|'.join(patterns)})$"}}, "required": ["name"]}


def _grouped(values: dict[str, int]) -> dict[int, list[str]]:
    """The names that have each value."""
    return {value: [name for name in values if values[name] == value] for value in sorted(set(values.values()))}
