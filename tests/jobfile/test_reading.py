"""From a job file and overrides to a spec, or to every problem at once: file, line, given, allowed, nearest name."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError, SpecError, UsageError
from pipeline.jobfile import catalog, reading, yamltree
from pipeline.jobfile.json_schema import json_schema
from pipeline.jobfile.spec import Spec

MINIMAL = "name: tiny\nmodel: {name: net}\ndata: {name: mnist}\n"
JOBS = Path(__file__).parents[2] / "jobs"


def read(more: str = "", *overrides: str, text: str = MINIMAL) -> Spec:
    return reading.parse((text + more).encode(), "job.yaml", overrides)


def errors(more: str = "", *overrides: str, text: str = MINIMAL) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(more, *overrides, text=text)
    return str(caught.value).splitlines()


# What a value may be


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
    assert [(a.name, a.options()) for a in spec.data.augment] == [("flip", {}), ("crop", {"padding": 2})]


def test_no_is_text_where_text_is_meant() -> None:
    assert read("description: no\n").description == "no"


# One mistake, one message


def known(*names: str) -> str:
    return f" (known: {', '.join(names)})"


TOP = known("data", "description", "log", "model", "name", "resources", "train")
DATASETS = known(*sorted(catalog.DATASETS))
NAMES = ", ".join(sorted(catalog.MODELS))
ANY = f"choose one of {NAMES}, as {{name: {next(iter(catalog.MODELS))}}}"
MODELS = known(*sorted(catalog.MODELS))
DURATION = "is not a duration; write 90s, 5m, 1h30m, 2d or a number of seconds"
NAME = "is not a name; use up to 64 letters, digits, - and _"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("trian: {}", f"trian: there is no such field; did you mean 'train'?{TOP}"),
        ("lr: 0.1", f"lr: there is no such field; did you mean 'train.optimizer.lr'?{TOP}"),
        ("train.epochs: 3", f"train.epochs: there is no such field; write train: {{epochs: ...}}{TOP}"),
        ("zzz: 3", f"zzz: there is no such field{TOP}"),
        (
            "train: {optimizer: {name: adam, momentum: 0.9}}",
            "train.optimizer.momentum: 'adam' has no such field; it belongs to sgd"
            + known("betas", "lr", "name", "weight_decay"),
        ),
        (
            "train: {optimizer: {moment: 0.9}}",
            "train.optimizer.moment: 'sgd' has no such field; did you mean 'momentum'?"
            + known("lr", "momentum", "name", "nesterov", "weight_decay"),
        ),
        (
            "train: {optimizer: {name: sdg}}",
            "train.optimizer.name: 'sdg' is not an optimizer; did you mean 'sgd'?" + known(*sorted(catalog.OPTIMIZERS)),
        ),
        (
            "train: {schedule: {name: one-cycle}}",
            "train.schedule.name: 'one-cycle' is not a schedule; did you mean 'one_cycle'?"
            + known(*sorted(catalog.SCHEDULES)),
        ),
        (
            "train: {precision: fp8}",
            "train.precision: 'fp8' is not allowed; did you mean 'fp32'?" + known("auto", "bf16", "fp16", "fp32"),
        ),
        (
            "resources: {retry_on: [faild]}",
            "resources.retry_on.0: 'faild' is not allowed; did you mean 'failed'?"
            + known("failed", "lost", "timed_out"),
        ),
        ("train: {epochs: 0}", "train.epochs: 0 should be at least 1"),
        ("train: {epochs: 100001}", "train.epochs: 100001 should be at most 100000"),
        ("train: {epochs: 99999999999999999999}", "train.epochs: 99999999999999999999 should be at most 100000"),
        ("train: {epochs: x}", "train.epochs: 'x' should be a whole number"),
        ("train: {epochs: '5'}", "train.epochs: '5' should be a whole number; write 5"),
        ("train: {epochs: 012}", "train.epochs: '012' should be a whole number; write 12"),
        ("train: {epochs: 1_000}", "train.epochs: '1_000' should be a whole number; write 1000"),
        ("train: {epochs: 1e3}", "train.epochs: 1000.0 should be a whole number; write 1000"),
        ("train: {epochs: 1.5}", "train.epochs: 1.5 should be a whole number"),
        ("train: {epochs: true}", "train.epochs: true should be a whole number"),
        ("train: {epochs: [1]}", "train.epochs: [1] should be a whole number"),
        ("train: {epochs:}", "train.epochs: nothing (null) should be a whole number; leave it out for the default"),
        ("train: {optimizer: {lr: -1}}", "train.optimizer.lr: -1 should be above 0"),
        ("train: {optimizer: {lr: 1e999}}", "train.optimizer.lr: Infinity should be a finite number"),
        ("train: {optimizer: {lr: .nan}}", "train.optimizer.lr: '.nan' should be a number"),
        ("train: {label_smoothing: 1}", "train.label_smoothing: 1 should be below 1"),
        ("train: {deterministic: no}", "train.deterministic: 'no' should be true or false; write false"),
        ("train: {deterministic: Yes}", "train.deterministic: 'Yes' should be true or false; write true"),
        ("train: {deterministic: 1}", "train.deterministic: 1 should be true or false"),
        ("train: {fused: maybe}", "train.fused: 'maybe' should be true or false or auto"),
        ("train:", "train: nothing (null) should be a mapping of fields; leave it out for the default"),
        ("train: fast", "train: 'fast' should be a mapping of fields"),
        ("train: {optimizer: adam}", "train.optimizer: 'adam' should be a mapping of fields; write {name: adam}"),
        (
            "train: {optimizer: [sgd]}",
            'train.optimizer: ["sgd"] should be a mapping of fields; choose one of adam, adamw, sgd, as {name: sgd}',
        ),
        ("train: {optimizer: {name: adam, betas: [0.9]}}", "train.optimizer.betas: [0.9] should have 2 items"),
        (
            "train: {optimizer: {name: adam, betas: [0.9, 0.9, 1]}}",
            "train.optimizer.betas: [0.9, 0.9, 1] should have at most 2 items",
        ),
        ("train: {optimizer: {name: adam, betas: [0.9, 1]}}", "train.optimizer.betas.1: 1 should be below 1"),
        ("description: 3", "description: 3 should be text; put it in quotes"),
        ("description:", 'description: nothing (null) should be text; write "" for empty text'),
        ("description: [a]", 'description: ["a"] should be text'),
        (
            f"description: {'a' * 10_001}",
            f"description: '{'a' * 56}... should have at most 10000 characters",
        ),
        ("resources: {timeout: 5 hours}", f"resources.timeout: '5 hours' {DURATION}"),
        ("resources: {timeout: 12:30:45}", f"resources.timeout: '12:30:45' {DURATION}"),
        ("resources: {timeout: 1.5}", f"resources.timeout: 1.5 {DURATION}"),
        ("resources: {timeout: ''}", f"resources.timeout: '' {DURATION}"),
        ("resources: {timeout: 0s}", "resources.timeout: '0s' is out of range; a duration is from 1s to 366d"),
        ("resources: {timeout: 367d}", "resources.timeout: '367d' is out of range; a duration is from 1s to 366d"),
        ("resources: {device: gpu}", "resources.device: 'gpu' is not a device; write auto, cpu, cuda or cuda:N"),
        ("resources: {device: 0}", "resources.device: 0 is not a device; write auto, cpu, cuda or cuda:N"),
        (
            "resources: {device: 'cuda:٣'}",
            "resources.device: 'cuda:٣' is not a device; write auto, cpu, cuda or cuda:N",
        ),
        ("resources: {priority: 1e9}", "resources.priority: 1000000000.0 should be a whole number; write 1000000000"),
    ],
    ids=lambda value: value[:40],
)
def test_a_mistake_gets_its_message_on_its_line(more: str, message: str) -> None:
    assert errors(f"# a comment\n{more}\n") == [f"job.yaml:5: {message}"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{name: vgg1}", f"model.name: 'vgg1' is not a model; did you mean 'vgg'?{MODELS}"),
        ("{name: 3}", f"model.name: 3 is not a model{MODELS}"),
        ("{name:}", f"model.name: nothing (null) is not a model; did you mean 'net'?{MODELS}"),
        ("{name: [a]}", f'model.name: ["a"] is not a model{MODELS}'),
        ("{}", f"model.name: is missing and has no default; choose one of {NAMES}"),
        ("net", "model: 'net' should be a mapping of fields; write {name: net}"),
        ("vgg11", f"model: 'vgg11' should be a mapping of fields; {ANY}"),
        ("", f"model: nothing (null) should be a mapping of fields; {ANY}"),
        ("{name: net, depth: 11}", "model.depth: 'net' has no such field; it belongs to vgg" + known("name")),
        (
            "{name: vgg, depth: 12}",
            "model.depth: 12 is not allowed; did you mean 11?" + known("11", "13", "16", "19"),
        ),
        ("{name: vgg, depth: '11'}", "model.depth: '11' is not allowed; write it without quotes"),
        ("{name: vgg, depth: deep}", "model.depth: 'deep' is not allowed" + known("11", "13", "16", "19")),
        ("{name: vgg, widths: 64}", "model.widths: 64 should be a list; write [64]"),
        ("{name: vgg, widths: []}", "model.widths: [] should have at least 1 item"),
        ("{name: vgg, widths: [64, N]}", "model.widths.1: 'N' should be a whole number or M"),
        (
            "{name: vgg, widths: [M, 64]}",
            "model.widths: must begin with a number of channels, as [64, M, 128, M]",
        ),
    ],
)
def test_a_wrong_model_is_told_apart(model: str, message: str) -> None:
    assert errors(text=f"name: x\nmodel: {model}\ndata: {{name: cifar10}}\n") == [f"job.yaml:2: {message}"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{name: mnits}", f"data.name: 'mnits' is not a dataset; did you mean 'mnist'?{DATASETS}"),
        ("{name: image_folder}", "data.path: is missing and has no default"),
        ("{name: image_folder, path: 3}", "data.path: 3 should be text; put it in quotes"),
        (
            "{name: mnist, path: x}",
            "data.path: 'mnist' has no such field; it belongs to image_folder"
            + known("augment", "batch_size", "image_size", "name"),
        ),
        ("{name: mnist, augment: crop}", "data.augment: 'crop' should be a list; write [crop]"),
        (
            "{name: mnist, augment: [crop, flop]}",
            "data.augment.1: 'flop' is not an augmentation; did you mean 'flip'?"
            + known(*sorted(catalog.AUGMENTATIONS)),
        ),
        (
            "{name: mnist, augment: [{name: flop}]}",
            "data.augment.0.name: 'flop' is not an augmentation; did you mean 'flip'?"
            + known(*sorted(catalog.AUGMENTATIONS)),
        ),
        (
            "{name: mnist, augment: [3]}",
            "data.augment.0: 3 should be a mapping of fields; choose one of crop, cutout, flip, as {name: crop}",
        ),
        ("{name: mnist, augment: [{name: crop, padding: 99}]}", "data.augment.0.padding: 99 should be at most 64"),
        (
            "{name: mnist, augment: [crop, {name: cutout, size: 30}]}",
            "data.augment.1.size: 30 is more than the images' 28 pixels",
        ),
    ],
)
def test_a_wrong_dataset_is_told_apart(data: str, message: str) -> None:
    assert errors(text=f"name: x\nmodel: {{name: net}}\ndata: {data}\n") == [f"job.yaml:3: {message}"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", f"'a/b' {NAME}"),
        ("..", f"'..' {NAME}"),
        ("é", f"'é' {NAME}"),
        ('"a\\n"', f"'a\\n' {NAME}"),
        ("a" * 65, f"'{'a' * 56}... {NAME}"),
        ("-a", f"'-a' {NAME}"),
        ("123", "123 should be text; put it in quotes"),
        ("true", "true should be text; put it in quotes"),
        ("", "nothing (null) should be text"),
    ],
)
def test_a_name_that_could_not_be_part_of_a_path_is_refused(name: str, message: str) -> None:
    assert errors(text=MINIMAL.replace("tiny", name)) == [f"job.yaml:1: name: {message}"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello\n", "- a\n", "3\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert errors(text=text) == ["job.yaml:1: a job file is a mapping that begins with 'name: ...'"]


# Fields that do not fit together


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: x\nmodel: {name: net}\ndata: {name: digits}\n",
            "2: model.name: 'net' needs images of at least 16 pixels, and digits has 8; set data.image_size: 32",
        ),
        (
            "name: x\nmodel: {name: net}\ndata: {name: image_folder, path: x, image_size: 15}\n",
            "2: model.name: 'net' needs images of at least 16 pixels, and data.image_size is 15; "
            "set data.image_size: 32",
        ),
        (
            "name: x\nmodel: {name: vgg, widths: [8, M, M, M, M, M, M]}\ndata: {name: cifar10}\n",
            "2: model.name: 'vgg' needs images of at least 64 pixels, and cifar10 has 32; set data.image_size: 64",
        ),
        (
            f"{MINIMAL}train: {{optimizer: {{nesterov: true, momentum: 0}}}}\n",
            "4: train.optimizer.nesterov: needs a momentum above 0; set train.optimizer.momentum: 0.9",
        ),
        (
            f"{MINIMAL}train: {{epochs: 3, schedule: {{name: cosine, warmup_epochs: 3.5}}}}\n",
            "4: train.schedule.warmup_epochs: 3.5 is longer than the whole training of 3 epochs",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(text: str, message: str) -> None:
    assert errors(text=text) == [f"job.yaml:{message}"]


def test_an_image_folder_of_unknown_size_is_left_to_the_run() -> None:
    assert read(text="name: x\nmodel: {name: net}\ndata: {name: image_folder, path: x}\n").image_size is None


# Several at once

MANY = """\
name: a/b
model: {name: vgg1, depht: 12}
data:
  name: mnits
  batch_size: 0
train:
  epochs: -1
  optimizer: {name: sdg, nesterov: true, momentum: 0, lr: fast}
  schedule: {name: cosine, warmup_epochs: 3}
log: {every: 0}
resources: {device: tpu, timeout: soon}
foo: 1
foo: 2
"""


def test_all_problems_of_a_file_are_reported_at_once_in_order() -> None:
    assert [message.split(": ")[0:2] for message in errors(text=MANY)] == [
        ["job.yaml:1", "name"],
        ["job.yaml:2", "model.name"],
        ["job.yaml:2", "model.depht"],
        ["job.yaml:4", "data.name"],
        ["job.yaml:5", "data.batch_size"],
        ["job.yaml:7", "train.epochs"],
        ["job.yaml:8", "train.optimizer.name"],
        ["job.yaml:8", "train.optimizer.lr"],
        ["job.yaml:10", "log.every"],
        ["job.yaml:11", "resources.device"],
        ["job.yaml:11", "resources.timeout"],
        ["job.yaml:12", "foo"],
        ["job.yaml:13", "key 'foo' is given a second time; the first is on line 12"],
    ]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("model: {name: net}\ndata: {name: mnits, batchsize: 3}", ["data.name", "data.batchsize"]),
        ("model: {name: net}\ndata: {batch_size: 0}", ["data.name", "data.batch_size"]),
        (
            "model: {name: net}\ndata: {name: mnits, augment: [{name: crop, padding: 0}, flop]}",
            ["data.name", "data.augment.0.padding", "data.augment.1"],
        ),
        ("model: {name: vgg1, depth: 12}\ndata: {name: cifar10}", ["model.name", "model.depth"]),
        ("model: {name: vgg1, depth: 13}\ndata: {name: cifar10}", ["model.name"]),
        ("model: {widths: [64, N]}\ndata: {name: cifar10}", ["model.name", "model.widths.1"]),
        ("model: {name: net}\ndata: {name: mnits, on_corrupt: fall}", ["data.name", "data.on_corrupt"]),
    ],
)
def test_a_wrong_name_hides_nothing_that_is_wrong_by_any_name(text: str, fields: list[str]) -> None:
    """What only some entries have is judged by those, and what a missing field would be is not guessed."""
    assert [message.split(": ")[1] for message in errors(text=f"name: x\n{text}\n")] == fields


def test_a_field_that_no_entry_has_is_told_with_all_that_there_are() -> None:
    found = errors(text="name: x\nmodel: {name: vgg1, depht: 11}\ndata: {name: cifar10}\n")
    fields = known("batch_norm", "depth", "dropout", "name", "widths")
    assert found[1] == f"job.yaml:2: model.depht: there is no such field; did you mean 'depth'?{fields}"


NESTEROV = "optimizer: {nesterov: true, momentum: 0}"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("data: {name: mnist, batchsize: 3}", ["model.name", "data.batchsize"]),
        (
            "data: {name: mnist, augment: [flop, {name: crop, padding: 30}]}",
            ["data.augment.0", "data.augment.1.padding"],
        ),
        (
            "data: {name: mnist, batch_size: 0, augment: [{name: cutout, size: 30}]}",
            ["data.batch_size", "data.augment.0.size"],
        ),
        (
            "data: {name: mnits, image_size: 8, augment: [{name: crop, padding: 9}]}",
            ["model.name", "data.name", "data.augment.0.padding"],
        ),
        ("data: {name: mnits, augment: [{name: crop, padding: 29}]}", ["data.name"]),
        ("data: {name: mnist, image_size: x, augment: [{name: crop, padding: 29}]}", ["data.image_size"]),
        (f"data: {{name: mnits}}\ntrain: {{{NESTEROV}}}", ["data.name", "train.optimizer.nesterov"]),
        (f"data: {{name: mnist}}\ntrain: {{epochs: x, {NESTEROV}}}", ["train.epochs", "train.optimizer.nesterov"]),
    ],
)
def test_what_does_not_fit_is_told_beside_what_is_wrong_where_it_hangs_on_what_is_right(
    text: str, fields: list[str]
) -> None:
    model = "vgg" if "batchsize" in text else "net"
    found = errors(text=f"name: x\nmodel: {{name: {model}}}\n{text}\n")
    assert [message.split(": ")[1] for message in found] == fields


def test_all_that_does_not_fit_is_told() -> None:
    text = "name: x\nmodel: {name: cnn_bn}\ndata: {name: mnist, batch_size: 1, augment: [{name: crop, padding: 29}]}\n"
    found = errors(f"train: {{{NESTEROV}}}\n", text=text)
    assert [message.split(": ")[1] for message in found] == [
        *("data.batch_size", "data.augment.0.padding", "train.optimizer.nesterov"),
    ]


def test_what_is_missing_does_not_hide_what_does_not_fit() -> None:
    found = errors(text="train: {epochs: 1, schedule: {name: cosine, warmup_epochs: 2}}\n")
    assert [message.split(": ")[1] for message in found] == ["name", "model", "data", "train.schedule.warmup_epochs"]


def test_a_rule_is_silent_where_a_field_that_it_needs_is_wrong() -> None:
    found = errors("train: {epochs: x, schedule: {name: cosine, warmup_epochs: 99}}\n")
    assert found == ["job.yaml:4: train.epochs: 'x' should be a whole number"]


def test_a_thousand_problems_are_cut_to_a_hundred() -> None:
    found = errors("".join(f"k{i}: 1\n" for i in range(1000)))
    assert len(found) == 101
    assert found[-1] == "job.yaml: and more; mend these first"


# Overrides


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
        ("train.epochs=x", "train.epochs: 'x' should be a whole number"),
        ("train.epochs=", "train.epochs: nothing (null) should be a whole number; leave it out for the default"),
        ("trian.epochs=3", f"trian: there is no such field; did you mean 'train'?{TOP}"),
        ("model.name=vgg1", f"model.name: 'vgg1' is not a model; did you mean 'vgg'?{MODELS}"),
        ("train={epochs: 0}", "train.epochs: 0 should be at least 1"),
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
        "job.yaml:4: train.epochs: 'x' should be a whole number",
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


# Files


def test_a_missing_file_names_its_neighbours(job_file: Callable[..., Path]) -> None:
    path = job_file(name="vgg11.yaml")
    with pytest.raises(
        UsageError, match=r"there is no such job file; did you mean 'vgg11.yaml'\? \(known: vgg11.yaml\)"
    ):
        reading.load(path.with_name("vgg1.yaml"))


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        reading.load(tmp_path)


# The jobs that come with the program


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_job_is_valid_and_named_after_its_file(path: Path) -> None:
    spec = reading.load(path)
    assert spec.name == path.stem
    assert spec.description


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_job_names_its_schema_first_and_explains_itself(path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=schema.json"
    assert (path.parent / first.partition("=")[2]).is_file()
    assert second.startswith("# ")


def test_the_schema_in_the_repository_is_current() -> None:
    assert json.loads((JOBS / "schema.json").read_text()) == json_schema()


KINDS: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
KINDS |= {"number": (int, float), "null": type(None)}
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "maxItems": lambda value, bound: len(value) <= bound,
    "pattern": lambda value, bound: re.search(bound, value) is not None,
    "enum": lambda value, bound: value in bound,
    "const": lambda value, bound: value == bound,
}
NOTES = {"$schema", "$defs", "default", "description", "title", "discriminator"}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is valid by that part of JSON Schema which ours uses; an unknown keyword is a KeyError."""

    def holds(keyword: str, bound: Any) -> bool:
        if keyword == "$ref":
            return fits(value, root["$defs"][bound.removeprefix("#/$defs/")], root)
        if keyword in ("anyOf", "oneOf"):
            return sum(fits(value, one, root) for one in bound) in ((1,) if keyword == "oneOf" else range(1, 99))
        if keyword == "type":
            return isinstance(value, KINDS[bound]) and (bound == "boolean" or not isinstance(value, bool))
        if keyword == "required":
            return all(name in value for name in bound)
        if keyword == "additionalProperties":
            return all(name in schema["properties"] for name in value)
        if keyword == "properties":
            return all(fits(value[name], bound[name], root) for name in value if name in bound)
        if keyword == "prefixItems":
            return all(fits(item, one, root) for item, one in zip(value, bound, strict=False))
        if keyword == "items":
            return all(fits(item, bound, root) for item in value)
        return BOUNDS[keyword](value, bound)

    order = sorted(schema.keys() - NOTES, key=lambda keyword: keyword != "type")  # bounds are of the right kind only
    return all(holds(keyword, schema[keyword]) for keyword in order)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_editor_finds_nothing_wrong_with_a_ready_job(path: Path) -> None:
    schema = json_schema()
    assert fits(yamltree.parse(path.read_bytes(), path.name).plain(), schema, schema)


@pytest.mark.parametrize(
    "more",
    [
        "trian: {}",
        "train: {epochs: 0}",
        "train: {epochs: x}",
        "train: {optimizer: {name: sdg}}",
        "train: {optimizer: {name: adam, momentum: 0.9}}",
        "train: {optimizer: {name: adam, betas: [0.9, 1]}}",
        "resources: {device: gpu}",
        "resources: {device: cudax}",
        "resources: {timeout: soon}",
        "resources: {timeout: ''}",
        "resources: {retry_on: [faild]}",
    ],
)
def test_an_editor_finds_what_the_program_refuses(more: str) -> None:
    schema = json_schema()
    assert fits(yamltree.parse(MINIMAL.encode(), "x").plain(), schema, schema)
    assert not fits(yamltree.parse((MINIMAL + more).encode(), "x").plain(), schema, schema)
    assert errors(more)


# Whatever is written, the answer is a spec or an ordinary error

VALID = (JOBS / "vgg11.yaml").read_text()
JUNK = st.sampled_from(
    [
        "",
        "null",
        "[]",
        "{}",
        "-1",
        "1e999",
        "no",
        "'",
        "{name: x}",
        "[1, [2]]",
        "x: y",
        "&a *a",
        "\t",
        "\x00",
        "9" * 5000,
    ]
)
FIELDS = st.sampled_from(
    [
        *("name", "model", "model.name", "model.widths", "model.depth", "data", "data.name", "data.augment"),
        *("data.augment.0", "train", "train.epochs", "train.optimizer", "train.optimizer.name", "train.optimizer.lr"),
        *("train.schedule", "log", "resources.timeout", "resources.retry_on", "zzz"),
    ]
)


def answers(text: str, *overrides: str) -> None:
    with contextlib.suppress(PipelineError):
        reading.parse(text.encode("utf-8", "surrogatepass"), "job.yaml", overrides)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=100))
def test_any_text_gets_an_ordinary_answer(text: str) -> None:
    answers(text)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(VALID)), st.integers(0, 30), JUNK | st.text(max_size=8))
def test_any_slip_in_a_valid_file_gets_an_ordinary_answer(start: int, length: int, typed: str) -> None:
    answers(VALID[:start] + typed + VALID[start + length :])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(FIELDS, JUNK | st.text(max_size=8)), min_size=1, max_size=4))
def test_any_overrides_get_an_ordinary_answer(fields: list[tuple[str, str]]) -> None:
    answers(VALID, *(f"{field}={value}" for field, value in fields))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["vgg", "crop", "sgd", "auto", "M", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "depth", "augment", "optimizer", "lr", "0", "<<", ""]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from([*Spec.model_fields, "x"]), PLAIN))
def test_any_structure_gets_an_ordinary_answer(value: dict[str, Any]) -> None:
    answers(json.dumps(value))
