"""What a message suggests helps: taken at its word, it removes the problem that it was said of."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from job_texts import MINIMAL, errors, known

from pipeline.errors import SpecError
from pipeline.jobfile import catalog, reading
from pipeline.jobfile.sections import Section
from pipeline.jobfile.spec import NAMED_SECTIONS, Spec
from pipeline.wording import near

Path = tuple[str, ...]
JOB: dict[str, Any] = {
    "name": "x",
    "model": {"name": "vgg", "depth": 11, "batch_norm": True},
    "data": {"name": "cifar10", "batch_size": 64, "augment": []},
    "train": {"epochs": 3, "optimizer": {"name": "adam", "lr": 0.1}, "schedule": {"name": "cosine"}, "loss": {}},
    "log": {"every": 10},
    "resources": {"gpus": None},
}


def problems(tree: dict[str, Any]) -> list[str]:
    """The messages without their lines, by the program's own reading."""
    try:
        reading.parse(json.dumps(tree).encode(), "job.yaml")
    except SpecError as error:
        return [f"{problem.field}: {problem.message}" for problem in error.problems]
    return []


def at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree.setdefault(key, {})
    return tree


def slips(name: str) -> Iterator[str]:
    """A letter that is missing, twice, wrong, or in the place of its neighbour."""
    for index, letter in enumerate(name):
        yield name[:index] + name[index + 1 :]
        yield name[:index] + letter + name[index:]
        yield f"{name[:index]}x{name[index + 1 :]}"
        yield name[:index] + name[index + 1 : index + 2] + letter + name[index + 2 :]


def sections() -> Iterator[tuple[Path, type[Section]]]:
    """The sections of `JOB`, by the entries that it names."""
    Spec.fill_in_types()
    yield (), Spec
    for path in ((key,) for key in ("log", "resources", "train")):
        kind = Spec.model_fields[path[0]].annotation
        kind.fill_in_types()
        yield path, kind
    for path, choice in NAMED_SECTIONS.items():
        if path != ("data", "augment"):
            yield path, choice.section_class(at(copy.deepcopy(JOB), path).get("name", choice.default))


FIELDS = [(path, name) for path, section in sections() for name in section.model_fields]
ELSEWHERE = sorted({name for _, section in sections() for name in section.model_fields} | {"padding", "momentum"})


def taken(tree: dict[str, Any], path: Path, wrong: str, suggested: str) -> dict[str, Any]:
    """The job with the field under the name that was suggested, from the top where it has a dot."""
    mended = copy.deepcopy(tree)
    value = at(mended, path).pop(wrong)
    *parts, last = suggested.split(".") if "." in suggested else (*path, suggested)
    section = at(mended, tuple(parts))
    assert last not in section, f"{suggested} is given already"
    section[last] = value
    return mended


def require_help(path: Path, wrong: str, value: Any) -> None:
    tree = copy.deepcopy(JOB)
    at(tree, path)[wrong] = value
    for message in problems(tree):
        if found := re.search(r"no such field; did you mean '([^']+)'", message):
            mended = taken(tree, path, wrong, found[1])
            left = [one for one in problems(mended) if "no such field" in one or "does not go with" in one]
            assert left == [], message


@pytest.mark.parametrize(
    ("path", "name"), FIELDS, ids=lambda value: ".".join(value) if isinstance(value, tuple) else value
)
def test_a_field_that_is_suggested_may_be_given_there(path: Path, name: str) -> None:
    """Whatever slip was made in whichever field, and whatever else stands there."""
    names = at(copy.deepcopy(JOB), path)
    for wrong in dict.fromkeys(slips(name)):
        if wrong and wrong not in names:
            require_help(path, wrong, 1)


@pytest.mark.parametrize("path", [path for path, _ in sections()], ids=".".join)
def test_a_field_of_another_section_is_suggested_where_it_may_be_given(path: Path) -> None:
    section = dict(sections())[path]
    for name in ELSEWHERE:
        if name not in section.model_fields:
            require_help(path, name, 1)


@pytest.mark.parametrize(
    "names",
    [catalog.MODELS, catalog.DATASETS, catalog.AUGMENTATIONS, catalog.OPTIMIZERS, catalog.SCHEDULES, catalog.LOSSES],
    ids=lambda names: next(iter(names)),
)
def test_a_slip_in_a_name_is_found(names: dict[str, Any]) -> None:
    """It may be a slip in another name too, as `adamx` is."""
    for name in names:
        for wrong in slips(name):
            if len(name) > 2 and wrong not in names and len(wrong) >= len(name):
                assert near(wrong, names) in names, wrong


@pytest.mark.parametrize(
    ("wrong", "names", "meant"),
    [
        ("optim", Spec.model_fields, None),
        ("desc", Spec.model_fields, "description"),
        ("version", Spec.model_fields, None),
        ("tags", Spec.model_fields, None),
        ("imagenet", catalog.DATASETS, None),
        ("svhn", catalog.DATASETS, None),
        ("fashion", catalog.DATASETS, "fashion_mnist"),
        ("adagrad", catalog.OPTIMIZERS, None),
        ("lion", catalog.OPTIMIZERS, None),
        ("SGD", catalog.OPTIMIZERS, "sgd"),
        ("exponential", catalog.SCHEDULES, None),
        ("linear", catalog.SCHEDULES, "linear_one_cycle"),
        ("cosine_annealing", catalog.SCHEDULES, "cosine"),
        ("one-cycle", catalog.SCHEDULES, "one_cycle"),
        ("cutmix", catalog.AUGMENTATIONS, None),
        ("horizontal_flip", catalog.AUGMENTATIONS, "flip"),
        ("mse", catalog.LOSSES, None),
        ("fp8", ["auto", "fp32", "bf16", "fp16"], None),
        ("rate", ["lr", "momentum", "name"], None),
        ("size", ["batch_size", "image_size"], None),
        ("batch", ["batch_size", "image_size", "path"], "batch_size"),
        ("random_crop", catalog.AUGMENTATIONS, "crop"),
        ("12", ["11", "13", "16", "19"], "11"),
        ("50", ["11", "13", "16", "19"], None),
        ("a-b.yaml", ["a-b.yaml"], None),
        ("My-job.yaml", ["my-job.yaml"], "my-job.yaml"),
    ],
)
def test_what_is_far_from_all_is_not_taken_for_one(wrong: str, names: Any, meant: str | None) -> None:
    """Nor is what was typed suggested itself, nor one of several that are alike."""
    assert near(wrong, names) == meant


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("train: {epoch: 5, epochs: 3}", "train.epoch: there is no such field; 'epochs' is given already (known: "),
        ("train: {epoch: 5}", "train.epoch: there is no such field; did you mean 'epochs'? (known: "),
        ("train: {lr: 1}", "train.lr: there is no such field; did you mean 'train.optimizer.lr'? (known: "),
        (
            "train: {lr: 1, optimizer: {lr: 2}}",
            "train.lr: there is no such field; 'train.optimizer.lr' is given already (known: ",
        ),
        (
            "train: {momentum: 1, optimizer: {name: adam}}",
            "train.momentum: there is no such field; it belongs to train.optimizer of sgd, muon (known: ",
        ),
        ("train: {after: a}", "train.after: there is no such field; it belongs to the top of the file (known: "),
        ("padding: 3", "padding: there is no such field; it belongs to data.augment of crop (known: "),
        ("train.epochs: 3\ntrain: {}", "train.epochs: there is no such field; write epochs into train (known: "),
        (
            "train: {precision:}",
            "train.precision: nothing (null) is not allowed; leave it out for the default (known: ",
        ),
        (
            "search: {pruner:, space: {train.epochs: [1]}}",
            "search.pruner: nothing (null) is not allowed; write none (known: ",
        ),
        ("train: {precision: true}", "train.precision: true is not allowed (known: "),
    ],
)
def test_what_is_known_better_is_said(more: str, message: str) -> None:
    (found,) = errors(f"{more}\n")
    assert message in found


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{name: resnet50}", "'resnet50' is not a model; write torchvision/resnet50 (known: "),
        ("{name: vgg16}", "'vgg16' is not a model; did you mean 'vgg'? (known: "),
        ("{name: vgg11_bn}", "'vgg11_bn' is not a model; write torchvision/vgg11_bn (known: "),
        ("{name: torchvision/resnet5}", "'torchvision/resnet5' is not a model; did you mean 'torchvision/resnet50'?"),
        ("{name: torchvision/zzz}", "'torchvision/zzz' is not a model (docs/job-files.md has the 78 that are known)"),
        ("{name: transformer}", "'transformer' is not a model (known: "),
        ("{name: vgg, depth: 13, widht: [8, M]}", "model.widht: 'vgg' has no such field (known: "),
        (
            "{name: vgg, weights: default}",
            "'vgg' has no such field; it belongs to torchvision/... (known: ",
        ),
    ],
)
def test_what_is_said_of_a_model(model: str, message: str) -> None:
    (found,) = errors(text=f"name: x\nmodel: {model}\ndata: {{name: cifar10}}\n")
    assert message in found


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_what_is_no_augmentation_but_a_field_is_told_so(name: str) -> None:
    (found,) = errors(text=MINIMAL.replace("mnist", f"mnist, augment: [{name}]"))
    assert found.startswith(f"job.yaml:3: data.augment.0: '{name}' is not an augmentation; it is a field of its own: ")
    assert f"train.{name} (known: " in found


def test_a_field_of_the_file_does_not_stand_in_the_way_of_an_override() -> None:
    """Which replaces it; so does a field of a sweep's space."""
    for found in (
        errors("train: {epochs: 3}\n", "train.epoch=5"),
        errors("train: {epochs: 3}\nsearch: {space: {train.epoch: [1, 2]}}\n"),
    ):
        assert "train.epoch: there is no such field; did you mean 'epochs'?" in found[0]


def test_the_end_of_a_range_that_is_given_is_not_suggested() -> None:
    found = errors("search: {space: {train.epochs: {form: 1, from: 1, to: 2}}}\n")
    assert found[0].endswith(f"has no such field as 'form'{known('from', 'log', 'step', 'to')}")
