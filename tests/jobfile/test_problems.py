"""All that is wrong with a job file is told at once: fields, and conflicts of what is right beside them."""

from __future__ import annotations

import pytest
from job_texts import MINIMAL, errors, known, read


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
            "name: x\nmodel:\n  name: vgg\n  depth: 11\n  widths: [8, M]\ndata: {name: cifar10}\n",
            "4: model.depth: 11 does not go with widths, which stand in its place; leave one of them out, or set "
            "model.depth: null",
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


def test_an_override_by_widths_takes_the_depth_out_of_the_way_by_null() -> None:
    text = "name: x\nmodel: {name: vgg, depth: 11}\ndata: {name: cifar10}\n"
    (found,) = errors("", "model.widths=[8, M]", text=text)
    assert found.startswith("--set model.widths=[8, M]: model.depth: 11 does not go with widths")
    assert "set model.depth: null" in found
    assert read("", "model.widths=[8, M]", "model.depth=null", text=text).model.options()["depth"] is None


def test_a_depth_beside_widths_is_refused_in_a_sweep_too() -> None:
    text = "name: x\nmodel: {name: vgg, widths: [8, M]}\ndata: {name: cifar10}\n"
    (found,) = errors("search: {space: {model.depth: [11, 13]}}\n", text=text)
    assert "model.depth: 11 does not go with widths" in found


def test_an_image_folder_of_unknown_size_is_left_to_the_run() -> None:
    assert read(text="name: x\nmodel: {name: net}\ndata: {name: image_folder, path: x}\n").image_size is None


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
        ["job.yaml:11", "resources.timeout"],
        ["job.yaml:11", "resources.device"],
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
    fields = known(
        *(
            "backbone_lr",
            "batch_norm",
            "batch_norm_momentum",
            "depth",
            "dropout",
            "freeze_epochs",
            "init",
            "name",
            "quantize",
            "weights",
            "whiten",
            "width",
            "widths",
        )
    )
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
    assert found == ["job.yaml:4: train.epochs: 'x' should be a number"]


def test_a_list_of_a_thousand_wrong_sections_is_judged_as_one_of_a_few_is() -> None:
    few, many = (
        errors(text=f"{MINIMAL.replace('mnist}', '')}mnist, augment: [{'{a: 1}, ' * count}]}}\n") for count in (9, 999)
    )
    assert many[: len(few) - 1] == few[:-1]
    assert many[-1] == "job.yaml: and more; mend these first"


def test_a_thousand_problems_are_cut_to_a_hundred() -> None:
    found = errors("".join(f"k{i}: 1\n" for i in range(1000)))
    assert len(found) == 101
    assert found[-1] == "job.yaml: and more; mend these first"
