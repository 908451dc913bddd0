"""From a job file and overrides to a spec: values as people write them, overrides, files, the ready jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from job_texts import JOBS, MINIMAL, MODELS, TOP, errors, read

from pipeline.errors import UsageError
from pipeline.jobfile import own_modules, reading


def test_a_small_file_gets_every_default() -> None:
    spec = read()
    assert spec.name == "tiny"
    assert spec.train.optimizer.options() == {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
    assert spec.train.schedule.name == "constant"
    assert (spec.image_size, spec.resources.device, spec.resources.retry_on) == (28, "auto", ("lost",))


def test_numbers_are_read_as_people_write_them() -> None:
    spec = read("train: {optimizer: {lr: 1e-3, weight_decay: 5e-4}, clip_grad_norm: 1}\n")
    assert spec.train.optimizer.options()["lr"] == 0.001
    assert spec.train.optimizer.options()["weight_decay"] == 0.0005
    assert spec.train.clip_grad_norm == 1.0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1d1h1m1s", 90_061),
        ("366d", 31_622_400),
    ],
)
def test_a_duration_is_seconds(written: str, seconds: int) -> None:
    assert read(f"resources: {{timeout: {written}}}\n").resources.timeout == seconds


def test_an_augmentation_is_a_name_or_a_name_with_options() -> None:
    spec = read(text="name: x\nmodel: {name: net}\ndata: {name: mnist, augment: [flip, {name: crop, padding: 2}]}\n")
    assert [(a.name, a.options()) for a in spec.data.augment] == [
        ("flip", {"alternate": False}),
        ("crop", {"padding": 2, "padding_mode": "constant"}),
    ]


def test_no_is_text_where_text_is_meant() -> None:
    assert read("description: no\n").description == "no"


def test_an_override_reaches_any_field_and_the_file_stays_as_it_is(job_file: Callable[..., Path]) -> None:
    path = job_file("train: {optimizer: {name: sgd, lr: 0.1}}\n")
    before = path.read_bytes()
    spec = reading.load(
        path,
        [
            "train.optimizer.name=adam",
            "train.optimizer.betas=[0.8, 0.9]",
            "train.epochs=3",
            "log.histograms=false",
            "resources.timeout=1h",
            "description='a: b = c'",
            "data.augment=[flip, {name: crop, padding: 1}]",
            " name = no ",
        ],
    )
    assert spec.train.optimizer.options() == {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.0}
    assert (spec.train.epochs, spec.log.histograms, spec.resources.timeout) == (3, False, 3600)
    assert (spec.description, spec.name, len(spec.data.augment)) == ("a: b = c", "no", 2)
    assert path.read_bytes() == before


def test_the_last_override_of_a_field_counts() -> None:
    assert read("", "train.epochs=x", "train={}", "train.epochs=7").train.epochs == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=x", "train.epochs: 'x' should be a number"),
        ("train.epochs=", "train.epochs: nothing (null) should be a number; leave it out for the default"),
        ("trian.epochs=3", f"trian: there is no such field; did you mean 'train'?{TOP}"),
        ("model.name=vgg1", f"model.name: 'vgg1' is not a model; did you mean 'vgg'?{MODELS}"),
        ("train={epochs: 0}", "train.epochs: 0 should be at least 0.001"),
        ("name.x=3", "name.x: 'name' is 'tiny', which has no fields of its own"),
        ("description=*a", "alias '*a' is refused; write the value out"),
        ("description=!!str 3", "tag '!!str' is refused; a job file holds plain values"),
        ("description=\ud800", "byte 0xed is not UTF-8 text; save it as UTF-8"),
        ("train={epochs: 3, epochs: 4}", "key 'epochs' is given a second time; the first is on line 1"),
        # the field that is named lies in the file, and what broke it is the override
        (
            "data.image_size=8",
            "model.name: 'net' needs images of at least 16 pixels, and data.image_size is 8; set data.image_size: 32",
        ),
        (
            "model.name=vgg",
            "model.name: 'vgg' needs images of at least 32 pixels, and mnist has 28; set data.image_size: 32",
        ),
    ],
)
def test_an_error_of_an_override_names_the_override(override: str, message: str) -> None:
    assert errors("", override) == [f"--set {override}: {message}"]


def test_errors_of_file_and_override_are_told_apart() -> None:
    assert errors("train: {epochs: x}\n", "train.seed=y", "log.every=0") == [
        "job.yaml:4: train.epochs: 'x' should be a number",
        "--set train.seed=y: train.seed: 'y' should be a whole number",
        "--set log.every=0: log.every: 0 should be at least 1",
    ]


def test_an_override_mends_a_field_that_is_wrong_in_the_file() -> None:
    assert read("train: {epochs: x}\n", "train.epochs=3").train.epochs == 3


def test_an_item_of_a_list_cannot_be_overridden_alone() -> None:
    text = MINIMAL.replace("mnist", "mnist, augment: [crop]")
    assert errors("", "data.augment.0=flip", text=text) == [
        "--set data.augment.0=flip: data.augment.0: 'augment' is [\"crop\"], which has no fields of its own; "
        "give the whole list"
    ]


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", ".=3", "", ".".join("a" * 5000) + "=1"])
def test_an_override_without_a_key_or_value_is_bad_usage(override: str) -> None:
    with pytest.raises(UsageError, match="write it as key=value"):
        read("", override)


def test_an_enormous_override_is_named_in_short() -> None:
    (message,) = errors("", "name=" + "[" * 20_000)
    assert message == f"--set name={'[' * 52}...: nested deeper than 20 levels"


@pytest.mark.parametrize("value", ["fix #3 and # 4", "# all of it", "[a, b] # c"])
def test_an_override_is_never_cut_where_a_comment_would_begin(value: str) -> None:
    with pytest.raises(UsageError, match=r"what follows # is a comment; put it in quotes: description="):
        read("", f"description={value}")
    assert read("", f'description="{value}"').description == value
    assert read("", "description=issue#3").description == "issue#3"


def test_a_missing_file_names_its_neighbours(job_file: Callable[..., Path]) -> None:
    path = job_file(name="vgg11.yaml")
    with pytest.raises(
        UsageError, match=r"there is no such job file; did you mean 'vgg11.yaml'\? \(known: vgg11.yaml\)"
    ):
        reading.load(path.with_name("vgg1.yaml"))


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        reading.load(tmp_path)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_job_is_valid_and_named_after_its_file(path: Path) -> None:
    spec = reading.load(path, modules=own_modules.Modules.in_folder(JOBS.parent / "modules"))
    assert spec.name == path.stem
    assert spec.description


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_job_names_its_schema_first_and_explains_itself(path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=schema.json"
    assert (path.parent / first.partition("=")[2]).is_file()
    assert second.startswith("# ")
