"""One mistake in a job file gets one message: file, line, what was given, what is allowed, the nearest right name."""

from __future__ import annotations

import pytest
from job_texts import DATASETS, MINIMAL, MODELS, TOP, errors, known

from pipeline.jobfile import catalog

OF_OPTIMIZERS = ("bias_lr", "bias_weight_decay")  # likewise, and norm_weight_decay
OF_MODELS = ("backbone_lr", "batch_norm_momentum", "freeze_epochs", "init", "name", "quantize")  # fields that all have
NAMES = ", ".join(sorted(catalog.MODELS))
ANY = f"choose one of {NAMES}, as {{name: {next(iter(catalog.MODELS))}}}"
DURATION = "is not a duration; write 90s, 5m, 1h30m, 2d or a number of seconds"
SIZE = "is not a size; write 512MB, 8GB, 8GiB or a number of bytes"
NO_SIZE = "is out of range; memory is from 256MB, which PyTorch alone takes, to 1024TiB"
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
            "train.optimizer.momentum: 'adam' has no such field; it belongs to sgd, muon"
            + known("betas", *OF_OPTIMIZERS, "lr", "name", "norm_weight_decay", "weight_decay"),
        ),
        (
            "train: {optimizer: {moment: 0.9}}",
            "train.optimizer.moment: 'sgd' has no such field; did you mean 'momentum'?"
            + known(*OF_OPTIMIZERS, "lr", "momentum", "name", "nesterov", "norm_weight_decay", "weight_decay"),
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
            "train.precision: 'fp8' is not allowed" + known("auto", "bf16", "fp16", "fp32"),
        ),
        (
            "resources: {retry_on: [faild]}",
            "resources.retry_on.0: 'faild' is not allowed; did you mean 'failed'?"
            + known("failed", "lost", "timed_out"),
        ),
        ("train: {epochs: 0}", "train.epochs: 0 should be at least 0.001"),
        ("train: {epochs: 100001}", "train.epochs: 100001 should be at most 100000"),
        ("train: {epochs: 99999999999999999999}", "train.epochs: 99999999999999999999 should be at most 100000"),
        ("train: {epochs: x}", "train.epochs: 'x' should be a number"),
        ("train: {epochs: '5'}", "train.epochs: '5' should be a number; write 5"),
        ("train: {epochs: 012}", "train.epochs: '012' should be a number; write 12"),
        ("train: {epochs: 1_000}", "train.epochs: '1_000' should be a number; write 1000"),
        ("train: {epochs: -1.5}", "train.epochs: -1.5 should be at least 0.001"),
        ("train: {accumulate: 1e3}", "train.accumulate: 1000.0 should be a whole number; write 1000"),
        ("train: {accumulate: 1.5}", "train.accumulate: 1.5 should be a whole number"),
        ("train: {epochs: true}", "train.epochs: true should be a number"),
        ("train: {epochs: [1]}", "train.epochs: [1] should be a number"),
        ("train: {epochs:}", "train.epochs: nothing (null) should be a number; leave it out for the default"),
        ("train: {optimizer: {lr: -1}}", "train.optimizer.lr: -1 should be above 0"),
        ("train: {optimizer: {lr: 1e999}}", "train.optimizer.lr: Infinity should be a finite number"),
        ("train: {optimizer: {lr: .nan}}", "train.optimizer.lr: '.nan' should be a number"),
        ("train: {label_smoothing: 1}", "train.label_smoothing: 1 should be below 1"),
        ("train: {deterministic: no}", "train.deterministic: 'no' should be true or false; write false"),
        ("train: {deterministic: Yes}", "train.deterministic: 'Yes' should be true or false; write true"),
        ("train: {deterministic: 1}", "train.deterministic: 1 should be true or false"),
        ("train: {fused: maybe}", "train.fused: 'maybe' should be true or false or auto"),
        ("train:", "train: nothing (null) should be a mapping of fields; leave it out for the default"),
        ("train: fast", "train: 'fast' should be a mapping of fields, as {epochs: 10}"),
        ("train: {early_stopping: 5}", "train.early_stopping: 5 should be a mapping of fields, as {patience: 5}"),
        ("train: {early_stopping: {patience: 0}}", "train.early_stopping.patience: 0 should be at least 1"),
        ("train: {optimizer: adam}", "train.optimizer: 'adam' should be a mapping of fields; write {name: adam}"),
        (
            "train: {optimizer: [sgd]}",
            'train.optimizer: ["sgd"] should be a mapping of fields; choose one of adam, adamw, muon, sgd, '
            "as {name: sgd}",
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
        ("resources: {memory: 8 GB}", f"resources.memory: '8 GB' {SIZE}"),
        ("resources: {memory: 1e9}", f"resources.memory: 1000000000.0 {SIZE}"),
        ("resources: {memory: true}", f"resources.memory: true {SIZE}"),
        ("resources: {memory: 200MB}", f"resources.memory: '200MB' {NO_SIZE}"),
        ("resources: {memory: 4}", f"resources.memory: 4 {NO_SIZE}"),
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
        ("{name:}", f"model.name: nothing (null) is not a model{MODELS}"),
        ("{name: [a]}", f'model.name: ["a"] is not a model{MODELS}'),
        ("{}", f"model.name: is missing and has no default; choose one of {NAMES}"),
        ("net", "model: 'net' should be a mapping of fields; write {name: net}"),
        ("vgg11", f"model: 'vgg11' should be a mapping of fields; {ANY}"),
        ("", f"model: nothing (null) should be a mapping of fields; {ANY}"),
        ("{name: net, depth: 11}", "model.depth: 'net' has no such field; it belongs to vgg" + known(*OF_MODELS)),
        (
            "{name: vgg, depth: 12}",
            "model.depth: 12 is not allowed; did you mean 11?" + known("11", "13", "16", "19"),
        ),
        ("{name: vgg, depth: '11'}", "model.depth: '11' is not allowed; write it without quotes"),
        ("{name: vgg, depth: deep}", "model.depth: 'deep' is not allowed" + known("11", "13", "16", "19")),
        ("{name: vgg, widths: 64}", "model.widths: 64 should be a list; write [64]"),
        ("{name: vgg, widths: []}", "model.widths: [] should have at least 1 item"),
        ("{name: vgg, widths: [64, N]}", "model.widths.1: 'N' should be a whole number or M"),
        ("{name: vgg, widths: [64, {a: 1}]}", 'model.widths.1: {"a": 1} should be a whole number or M'),
        ("{name: vgg, widths: [64, {int: }]}", 'model.widths.1: {"int": null} should be a whole number or M'),
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
            + known(
                "augment",
                "batch_size",
                "image_size",
                "last_batch",
                "name",
                "readers",
                "sampler",
                *("test_augment", "val"),
            ),
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
            "data.augment.0: 3 should be a mapping of fields; choose one of color_jitter, crop, cutout, flip, "
            "random_resized_crop, rotation, trivial_augment, as {name: crop}",
        ),
        (
            "{name: mnist, augment: [{name: random_resized_crop, scale: [0.9, 0.1]}]}",
            "data.augment.0.scale: 0.9 is more than 0.1; write [0.1, 0.9]",
        ),
        ("{name: mnist, augment: [{name: crop, padding: 99}]}", "data.augment.0.padding: 99 should be at most 64"),
        (
            "{name: mnist, augment: [{name: crop, padding: 28, padding_mode: reflect}]}",
            "data.augment.0.padding: 28 is more than there is to reflect in images of 28 pixels, as their edge is not "
            "repeated; set 27 or less, or padding_mode: constant",
        ),
        (
            "{name: mnist, augment: [{name: crop, padding: 29, padding_mode: reflect}]}",
            "data.augment.0.padding: 29 is more than the images' 28 pixels",
        ),
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
