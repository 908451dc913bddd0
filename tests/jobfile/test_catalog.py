"""The catalog and the code that it names agree, whatever is added to either."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from types import MappingProxyType

import pytest
from pydantic_core import SchemaValidator

from pipeline.jobfile import catalog
from pipeline.jobfile.entries import FIELDS_OF_FACTS, Facts
from pipeline.jobfile.fields import schema_of
from pipeline.jobfile.sections import CONFIG

# What the program itself passes, by name, beside an entry's options.
GIVEN = MappingProxyType(
    {
        "MODELS": {"num_classes", "channels", "image_size"},
        "DATASETS": {"image_size", "log"},
        "AUGMENTATIONS": {"draws", "fill"},
        "OPTIMIZERS": {"fused"},
        "SCHEDULES": {"steps", "steps_per_epoch"},
        "LOSSES": {"label_smoothing"},
    }
)
ENTRIES = [
    pytest.param(group, entry, id=f"{group.lower()}-{name}")
    for group in GIVEN
    for name, entry in getattr(catalog, group).items()
]


def keywords(entry: catalog.Entry) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(entry.load()).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}


def test_no_group_of_the_catalog_is_left_out_here() -> None:
    groups = {name for name in vars(catalog) if name.isupper() and isinstance(getattr(catalog, name), dict)}
    assert {name for name in groups if not name.startswith("_")} == set(GIVEN)


@pytest.mark.parametrize(("group", "entry"), ENTRIES)
def test_the_options_are_the_keyword_parameters_of_the_code(group: str, entry: catalog.Entry) -> None:
    assert set(keywords(entry)) - GIVEN[group] == set(entry.options)


@pytest.mark.parametrize(("group", "entry"), ENTRIES)
def test_a_default_of_the_code_is_the_default_of_the_catalog(group: str, entry: catalog.Entry) -> None:
    in_code = {
        name: parameter.default
        for name, parameter in keywords(entry).items()
        if name not in GIVEN[group] and parameter.default is not parameter.empty
    }
    assert {name: entry.options[name][1].default for name in in_code} == in_code


@pytest.mark.parametrize(("group", "entry"), ENTRIES)
def test_every_default_is_within_its_own_bounds(group: str, entry: catalog.Entry) -> None:
    assert entry in getattr(catalog, group).values()
    for type_, field in entry.options.values():
        if not field.is_required():
            given = list(field.default) if isinstance(field.default, tuple) else field.default
            SchemaValidator(schema_of(type_, **field.bounds), CONFIG).validate_json(json.dumps(given))


@pytest.mark.parametrize(("group", "entry"), ENTRIES)
def test_everything_is_described(group: str, entry: catalog.Entry) -> None:
    assert entry.summary, group
    assert [name for name, (_, field) in entry.options.items() if not field.description] == []


@pytest.mark.parametrize(("group", "entry"), ENTRIES)
def test_a_rule_is_about_options_of_its_own_entry_and_facts_that_there_are(group: str, entry: catalog.Entry) -> None:
    fields = {name for rule in entry.all_rules() for name in (rule.field, *rule.also)}
    assert fields <= {"name", *entry.options}, group
    facts = {name for rule in entry.all_rules() for name in rule.facts}
    assert facts <= FIELDS_OF_FACTS.keys() <= set(Facts._fields)


def test_reading_the_catalog_imports_no_torch() -> None:
    code = "import pipeline.jobfile.catalog, sys; print(sorted({'torch', 'torchvision', 'numpy'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "[]\n"
