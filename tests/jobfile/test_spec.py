"""The models of the job file: frozen, complete, bounded, and the same after a round trip."""

from __future__ import annotations

import copy
import functools
import json
import operator
import pickle
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic_core import ValidationError

from pipeline.jobfile import catalog
from pipeline.jobfile.json_schema import json_schema
from pipeline.jobfile.sections import CONFIG, NamedSection, Section
from pipeline.jobfile.spec import NAMED_SECTIONS, Log, Spec, is_due
from pipeline.jobfile.train import Train

SECTIONS = {
    "model": catalog.MODELS,
    "data": catalog.DATASETS,
    "optimizer": catalog.OPTIMIZERS,
    "schedule": catalog.SCHEDULES,
    "augment": catalog.AUGMENTATIONS,
}
ENTRIES = [(section, name) for section, entries in SECTIONS.items() for name in entries]


def spec_with(section: str, name: str) -> Spec:
    """A job that uses an entry of the catalog, with the options that must be given."""
    options = {key: "x" for key, (_, field) in SECTIONS[section][name].options.items() if field.is_required()}
    chosen = {"name": name, **options}
    value: dict[str, Any] = {"name": "x", "model": {"name": "cnn_bn"}, "data": {"name": "cifar10"}, "train": {}}
    if section == "augment":
        value["data"]["augment"] = [chosen]
    else:
        (value["train"] if section in ("optimizer", "schedule") else value)[section] = chosen
    return Spec.model_validate_json(json.dumps(value))


def chosen_in(spec: Spec, section: str) -> NamedSection:
    places: dict[str, Any] = {
        "model": spec.model,
        "data": spec.data,
        "optimizer": spec.train.optimizer,
        "schedule": spec.train.schedule,
    }
    found: NamedSection = places.get(section) or spec.data.augment[0]
    return found


@pytest.mark.parametrize(("section", "name"), ENTRIES)
def test_every_entry_of_the_catalog_can_be_chosen_and_survives_a_round_trip(section: str, name: str) -> None:
    spec = spec_with(section, name)
    entry = SECTIONS[section][name]
    assert chosen_in(spec, section).name == name
    assert chosen_in(spec, section).options().keys() == entry.options.keys()

    as_json = json.dumps(spec.model_dump(mode="json"))
    again = Spec.model_validate_json(as_json)
    assert again == spec
    assert json.dumps(again.model_dump(mode="json")) == as_json


def models() -> Iterator[type[Section]]:
    """All models of the spec: of the plain sections, and one an entry of those that a name chooses."""

    def inside(annotation: Any) -> Iterator[type[Section]]:
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield annotation
            annotation.fill_in_types()
            for field in annotation.model_fields.values():
                yield from inside(field.annotation)
        for argument in get_args(annotation):
            yield from inside(argument)

    yield from inside(Spec)
    for choice in NAMED_SECTIONS.values():
        yield from map(choice.section_class, choice.entries)


def test_every_section_is_there() -> None:
    assert len(list(models())) > len(ENTRIES)
    assert {choice.entries[name].summary for choice in NAMED_SECTIONS.values() for name in choice.entries} <= {
        model.__doc__ for model in models()
    }


@pytest.mark.parametrize("section", ["train", "train.optimizer", "data", "log", "resources"])
def test_a_section_is_closed_and_strict(section: str) -> None:
    """No field that there is not, no text for a number, no number for text; `nan` is none."""
    for change in ({"zzz": 1}, {"name": 3}):
        value = spec_with("optimizer", "sgd").model_dump(mode="json")
        functools.reduce(operator.getitem, section.split("."), value).update(change)
        with pytest.raises(ValidationError):
            Spec.model_validate_json(json.dumps(value))
    assert CONFIG == {"strict": True, "allow_inf_nan": False, "extra_fields_behavior": "forbid"}


def test_every_field_of_a_section_is_described() -> None:
    sections = {"train", "log", "resources"}
    missing = [
        f"{model.__name__}.{name}"
        for model in models()
        for name, field in model.model_fields.items()
        if not field.description and name not in sections
    ]
    assert missing == []


def test_every_number_and_list_has_a_bound() -> None:
    """In the JSON Schema too, so that editors know it."""
    bounds = {
        "integer": ({"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}),
        "number": ({"minimum", "exclusiveMinimum"},),
        "array": ({"maxItems"},),
    }
    unbounded = []

    def look(schema: Any, where: str) -> None:
        if isinstance(schema, list):
            for index, item in enumerate(schema):
                look(item, f"{where}.{index}")
        elif isinstance(schema, dict):
            needed = bounds.get(schema.get("type", ""), ()) if "enum" not in schema and "const" not in schema else ()
            unbounded.extend(where for one_of in needed if not one_of & schema.keys())
            for key, value in schema.items():
                if key != "allOf":  # what is said of fields together, each of which has its bounds
                    look(value, f"{where}.{key}")

    look(json_schema(), "")
    assert unbounded == []


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("name", "y"), ("train", None), ("train.epochs", 3), ("model.name", "vgg"), ("train.optimizer.lr", 1.0)],
)
def test_a_spec_cannot_be_changed(attribute: str, value: Any) -> None:
    target: Any = spec_with("optimizer", "sgd")
    *parents, last = attribute.split(".")
    for parent in parents:
        target = getattr(target, parent)
    with pytest.raises(AttributeError, match="frozen"):
        setattr(target, last, value)


def test_a_frozen_spec_is_held_to_the_same_rules_as_a_job_file() -> None:
    """What a ticket or a run holds is read without `reading`; each conflict is an error at its own field."""
    value = spec_with("optimizer", "sgd").model_dump(mode="json")
    value["train"]["optimizer"] |= {"nesterov": True, "momentum": 0.0}
    value["data"] |= {"batch_size": 1}
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate_json(json.dumps(value))
    assert {error["loc"] for error in caught.value.errors()} == {
        *{("train", "optimizer", "nesterov"), ("data", "batch_size")},
    }
    assert "needs a momentum above 0" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "depth"), [({}, 11), ({"depth": None}, 11), ({"widths": None}, 11), ({"depth": 13, "widths": None}, 13)]
)
def test_a_vgg_without_widths_has_a_depth(given: dict[str, Any], depth: int) -> None:
    value = spec_with("model", "vgg").model_dump(mode="json") | {"model": {"name": "vgg", **given}}
    assert Spec.model_validate_json(json.dumps(value)).model.options()["depth"] == depth


@pytest.mark.parametrize("given", [{}, {"depth": None}])
def test_a_vgg_with_widths_has_no_depth_and_is_frozen_so(given: dict[str, Any]) -> None:
    value = spec_with("model", "vgg").model_dump(mode="json") | {
        "model": {"name": "vgg", "widths": [8, "M", 16], **given}
    }
    spec = Spec.model_validate_json(json.dumps(value))
    assert (spec.model.options()["depth"], spec.model.options()["widths"]) == (None, (8, "M", 16))
    assert Spec.model_validate_json(json.dumps(spec.model_dump(mode="json"))) == spec


def test_a_section_can_be_made_copied_compared_and_told() -> None:
    log = Log(every=3)
    assert (log.every, log.histograms) == (3, True)
    assert log.model_copy(update={"every": 4}) == Log(every=4) != log
    assert hash(Log(every=3)) == hash(log)
    assert copy.deepcopy(log) == pickle.loads(pickle.dumps(log)) == log
    assert repr(log).startswith("Log(every=3, histograms=True, ")
    with pytest.raises(ValidationError, match="every"):
        Log(every=0)
    made = Spec.model_validate({"name": "x", "model": {"name": "net"}, "data": {"name": "mnist"}, "log": log})
    assert made.log == log
    assert Spec.model_validate_json(made.model_dump_json()) == made


def test_defaults_are_not_shared_between_two_jobs() -> None:
    first, second = spec_with("model", "net"), spec_with("model", "net")
    assert first == second
    assert first.train is not second.train


def test_a_large_seed_survives_json() -> None:
    seed = 2**63 - 1
    spec = Spec.model_validate_json(
        json.dumps({"name": "x", "model": {"name": "net"}, "data": {"name": "mnist"}, "train": {"seed": seed}})
    )
    assert Spec.model_validate_json(json.dumps(spec.model_dump(mode="json"))).train.seed == seed


@pytest.mark.parametrize(
    ("when", "epochs", "expected"),
    [
        (True, 5, [1, 2, 3, 4, 5]),
        (1, 5, [1, 2, 3, 4, 5]),
        (2, 5, [2, 4, 5]),
        (3, 9, [3, 6, 9]),
        (100, 5, [5]),
        ("auto", 1, [1]),
        ("auto", 2, [1, 2]),
        ("auto", 20, [1, 2, 4, 8, 16, 20]),
        ("auto", 500, [1, 2, 4, 8, 16, 32, 64, 128, 256, 500]),  # TensorBoard keeps ten
        ("end", 5, [5]),
        (False, 5, []),
    ],
)
def test_what_is_shown_after_which_epochs(when: Any, epochs: int, expected: list[int]) -> None:
    """The last one is among all but none."""
    assert [epoch for epoch in range(1, epochs + 1) if is_due(when, epoch=epoch, is_last=epoch == epochs)] == expected


def with_log(**section: Any) -> Spec:
    value = {"name": "x", "model": {"name": "net"}, "data": {"name": "mnist"}, "log": section}
    return Spec.model_validate_json(json.dumps(value))


@pytest.mark.parametrize("kind", ["histograms", "figures", "pr_curves", "embeddings"])
@pytest.mark.parametrize("when", [True, False, 1, 7, "auto", "end"])
def test_a_kind_takes_each_way_to_say_when(kind: str, when: Any) -> None:
    found = getattr(with_log(**{kind: when}).log, kind)
    assert found == when
    assert type(found) is type(when)  # 1 is every epoch too, but is not written back as true


@pytest.mark.parametrize("when", [0, -1, 1.5, "never", "1", 100_001, None, []])
def test_a_kind_takes_nothing_else(when: Any) -> None:
    with pytest.raises(ValidationError, match=r"log\.figures"):
        with_log(figures=when)


def test_a_captured_step_is_not_asked_for_with_an_optimizer_that_cannot_be_a_part_of_it() -> None:
    with pytest.raises(ValidationError, match=r"train\.fused"):
        trained_with(capture=True, fused=False)
    assert trained_with(capture="auto", fused=False).train.capture == "auto"
    assert trained_with(capture=True, compile=True, mixup=0.2, cutmix=1.0).train.capture is True


def trained_with(**train: Any) -> Spec:
    job = {"name": "test", "model": {"name": "cnn_bn"}, "data": {"name": "digits"}}
    return Spec.model_validate({**job, "train": train})


@pytest.mark.parametrize(
    ("written", "epochs"),
    [(10, 10), (9.9, 9.9), (10.0, 10), (3.0000000000000004, 3), (0.001, 0.001), (2.00000005, 2)],
)
def test_epochs_are_whole_where_they_are_nearly_so(written: float, epochs: float) -> None:
    found = Train.model_validate({"epochs": written}).epochs
    assert (found, type(found)) == (epochs, type(epochs))
