"""The field `after`: names or ids of other jobs, which change nothing in the training of this one."""

from __future__ import annotations

import json

import pytest
from job_texts import errors, read
from quick import quick_spec

from pipeline.home.paths import Home
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.jobfile.sweep import with_values
from pipeline.training.manifest import spec_hash

NEITHER = "is neither a job's name nor its id; they have letters, digits, - and _"


@pytest.mark.parametrize(
    ("text", "jobs"),
    [
        ("", ()),
        ("after: []", ()),
        ("after: vgg11", ("vgg11",)),
        ("after: [vgg11, digits-0003]", ("vgg11", "digits-0003")),
        ("after: ['1']", ("1",)),
        (f"after: {'a' * 128}", ("a" * 128,)),
        (f"after: [{', '.join(f'a{number}' for number in range(16))}]", tuple(f"a{number}" for number in range(16))),
    ],
)
def test_one_job_or_several_may_be_waited_for(text: str, jobs: tuple[str, ...]) -> None:
    assert read(text).after == jobs


def test_an_override_names_them_too() -> None:
    assert read("", "after=a").after == ("a",)
    assert read("after: b", "after=[a, c]").after == ("a", "c")
    assert read("after: b", "after=[]").after == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("after:", "after: nothing (null) should be a list; leave it out for the default"),
        ("after: ''", f"after: '' {NEITHER}"),
        ("after: a b", f"after: 'a b' {NEITHER}"),
        ("after: -a", f"after: '-a' {NEITHER}"),
        (f"after: {'a' * 129}", f"after: '{'a' * 56}... {NEITHER}"),
        ("after: ../a", f"after: '../a' {NEITHER}"),
        ("after: [a, ..]", f"after.1: '..' {NEITHER}"),
        ("after: a, b", "after: 'a, b' should be a list; write [a, b]"),
        ("after: 3", "after: 3 should be text; put it in quotes"),
        ("after: [a, 3]", "after.1: 3 should be text; put it in quotes"),
        ("after: [a, b, a]", 'after: ["a", "b", "a"] has \'a\' twice'),
        ("after: {a: b}", 'after: {"a": "b"} should be a list'),
        (
            f"after: [{', '.join(f'a{number}' for number in range(17))}]",
            'after: ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a... should have at most 16 items',
        ),
    ],
)
def test_what_can_be_no_job_is_refused(text: str, message: str) -> None:
    assert errors(text) == [f"job.yaml:4: {message}"]


def test_several_in_an_override_need_brackets_and_make_no_sweep() -> None:
    assert errors("", "after=a,b") == ["--set after=a,b: after: 'a,b' should be a list; write [a, b]"]
    assert "search" in errors("", "after=[a],[b]")[0]
    assert errors("search: {space: {after: [a, b]}}") == [
        'job.yaml:4: search.space.after: ["a", "b"] is no field that can be searched'
    ]


def test_a_kept_spec_without_the_field_is_one_that_waits_for_nothing(home: Home) -> None:
    spec = quick_spec("old")
    fields = spec.model_dump(mode="json")
    assert fields.pop("after") == []
    home.run("old").root.mkdir(parents=True)
    home.run("old").spec.write_text(frozen.to_yaml(fields))
    assert frozen.load(home.run("old")) == spec


def test_a_kept_spec_has_a_list(home: Home) -> None:
    spec = read("after: vgg11")
    frozen.save(home.run("job"), spec)
    assert frozen.load(home.run("job")) == spec
    assert "\nafter:\n- vgg11\n" in home.run("job").spec.read_text()
    assert Spec.model_validate_json(json.dumps(spec.model_dump(mode="json"))) == spec


def test_what_a_job_waits_for_is_no_part_of_its_hash() -> None:
    assert spec_hash(read("after: a")) == spec_hash(read())
    assert spec_hash(read("train: {seed: 1}")) != spec_hash(read())


def test_the_trials_of_a_sweep_do_not_wait_again() -> None:
    assert with_values({"name": "a", "after": "b", "search": {}}, {"train.epochs": 2}) == {
        "name": "a",
        "train": {"epochs": 2},
    }
    assert read("after: b\nsearch: {space: {train.epochs: [1, 2]}}\n").after == ("b",)
