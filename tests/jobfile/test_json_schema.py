"""The JSON Schema that editors use agrees with what the program takes.

`job_texts.read` and `job_texts.errors` look at it too: every job file that a test here has read, or has seen refused,
is judged by both.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from job_schema import HEAD, UNSAID, Unsaid, complaints
from job_texts import JOBS, MINIMAL, errors, read
from pydantic_core import PydanticCustomError

from pipeline.jobfile import catalog
from pipeline.jobfile.fields import InBytes, InSeconds
from pipeline.jobfile.json_schema import json_schema
from pipeline.jobfile.spec import Spec

PAGES = JOBS.parent / "docs"
IN_PAGES = [
    pytest.param(text, id=f"{page.stem}-{index}")
    for page in (JOBS.parent / "README.md", *sorted(PAGES.glob("*.md")))
    for index, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    if "settings.yaml" not in text
]


def test_the_schema_in_the_repository_is_current() -> None:
    assert json.loads((JOBS / "schema.json").read_text()) == json_schema()


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_another_program_finds_nothing_wrong_with_the_schema_and_the_ready_jobs() -> None:
    """Its regular expressions are those of ECMAScript, as an editor's are."""
    command = [sys.executable, "-m", "check_jsonschema"]
    schema, jobs = str(JOBS / "schema.json"), sorted(map(str, JOBS.glob("*.yaml")))
    for arguments in (["--check-metaschema", schema], ["--schemafile", schema, *jobs]):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_editor_finds_nothing_wrong_with_a_ready_job(path: Path) -> None:
    assert complaints(path.read_text()) == []


@pytest.mark.parametrize("text", IN_PAGES)
def test_an_editor_finds_nothing_wrong_with_what_the_pages_show(text: str) -> None:
    """Most are parts of a file, so that the others are added."""
    missing = [line for line in HEAD.splitlines() if not re.search(rf"^{line.split(':')[0]}:", text, re.MULTILINE)]
    assert complaints("\n".join([*missing, text])) == []


@pytest.mark.parametrize("name", [*catalog.MODELS, "torchvision/resnet18"])
def test_an_editor_takes_the_frozen_spec_of_a_run(name: str) -> None:
    spec = read(text=f"name: x\nmodel: {{name: {name}}}\ndata: {{name: cifar10, augment: [crop, cutout]}}\n")
    assert complaints(json.dumps(spec.model_dump(mode="json"))) == []
    assert isinstance(spec, Spec)


@pytest.mark.parametrize(
    "more",
    [
        "trian: {}",
        "train: {epochs: 0}",
        "train: {epochs: x}",
        "train: {optimizer: {name: sdg}}",
        "train: {optimizer: {name: adam, momentum: 0.9}}",
        "train: {optimizer: {name: adam, betas: [0.9, 1]}}",
        "train: {optimizer: {nesterov: true, momentum: 0}}",
        "train: {capture: true, fused: false}",
        "train: {loss: {name: focal}, label_smoothing: 0.1}",
        "train: {clip_grad_norm: 1e999}",
        "resources: {device: gpu}",
        "resources: {device: cudax}",
        "resources: {device: cpu, gpus: 1}",
        "resources: {device: 'cuda:1', gpus: 0}",
        "resources: {timeout: soon}",
        "resources: {timeout: ''}",
        "resources: {timeout: 0s}",
        "resources: {timeout: 367d}",
        "resources: {memory: 255MB}",
        "resources: {memory: 1025TiB}",
        "resources: {retry_on: [faild]}",
        "after: [a, a]",
        "search: {space: {name: [a, b]}}",
        "search: {space: {train.accumulate: [1, 2.5]}}",
        "search: {space: {train.epochs: {from: 0, to: 3}}}",
        "search: {space: {train.precision: [fp32, fp8]}}",
        "search: {space: {train.early_stopping.patience: [0, 1]}}",
        "search: {space: {train.optimizer.name: [sgd, adm]}}",
        "search: {space: {train.optimizer: [{name: sgd, lr: 0}]}}",
        "search: {space: {data.batch_size: {from: 16, to: 100000}}}",
        "search: {space: {data.augment: [[], [flipp]]}}",
        "search: {space: {train.epochs: [1, 1.0]}}",
        "search: {space: {train.epochs: {from: 1, to: 9, log: true, step: 2}}}",
        "search: {space: {train.epochs: {from: 0, to: 9, log: true}}}",
        "search: {sampler: grid, space: {train.optimizer.lr: {from: 0.1, to: 1}}}",
        "search: {sampler: cmaes, space: {train.epochs: {from: 1, to: 9}}}",
        "search: {pruner: median, maximize: [val/accuracy, val/loss], space: {train.epochs: [1]}}",
        "search: {pruner: median, maximize: val/accuracy, minimize: val/loss, space: {train.epochs: [1]}}",
        "search: {maximize: [val/loss, val/loss], space: {train.epochs: [1]}}",
    ],
)
def test_an_editor_finds_what_the_program_refuses(more: str) -> None:
    assert complaints(MINIMAL) == []
    assert complaints(MINIMAL + more)
    assert errors(more)


QUANTIZED = "{name: cnn_bn, quantize: {%s}}"


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("{name: vgg, depth: 11, widths: [8, M]}", "{name: cifar10}"),
        ("{name: vgg, widths: [M, 8]}", "{name: cifar10}"),
        (QUANTIZED % "weights: {scheme: binary, bits: 2}", "{name: mnist}"),
        (QUANTIZED % "weights: {scheme: ternary, bits: 1}", "{name: mnist}"),
        (QUANTIZED % "weights: {bits: 1}", "{name: mnist}"),
        (QUANTIZED % "weights: {scheme: dorefa, per: channel}", "{name: mnist}"),
        (QUANTIZED % "activations: {bits: 1}", "{name: mnist}"),
        ("{name: net}", "{name: digits}"),
        ("{name: net}", "{name: digits, image_size: null}"),
        ("{name: net}", "{name: image_folder, path: x, image_size: 15}"),
        ("{name: vgg}", "{name: fashion_mnist}"),
        ("{name: torchvision/resnet18}", "{name: mnist}"),
        ("{name: cnn_bn}", "{name: digits, batch_size: 1}"),
        ("{name: cnn_bn}", "{name: digits, augment: [flip, {name: crop, padding: 9}]}"),
        ("{name: cnn_bn}", "{name: digits, augment: [{name: crop, padding: 8, padding_mode: reflect}]}"),
        ("{name: cnn_bn}", "{name: cifar10, augment: [{name: cutout, size: 33}]}"),
        ("{name: cnn_bn}", "{name: image_folder, path: x, val: 0.1}"),
        ("{name: cnn_bn}", "{name: image_folder, path: x, split: {}}"),
        ("{name: cnn_bn}", "{name: image_folder, path: x, split: {test: 0}}"),
    ],
)
def test_an_editor_finds_what_does_not_go_together(model: str, data: str) -> None:
    text = f"name: x\nmodel: {model}\ndata: {data}\n"
    assert complaints(text)
    assert errors(text=text)


@pytest.mark.parametrize(
    "space",
    ["data.image_size: [32, 64]", "model.name: [net, cnn_bn]", "data.name: [cifar10, cifar100]"],
)
def test_an_editor_takes_a_sweep_whose_values_make_it_right(space: str) -> None:
    """What is written beside the search is not what is trained."""
    file = "name: hunt\nmodel: {name: vgg}\ndata: {name: mnist}\n"
    jsonschema.validate(yaml.safe_load(f"{file}search: {{trials: 2, space: {{{space}}}}}\n"), json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(file), json_schema())


@pytest.mark.parametrize("unsaid", UNSAID, ids=lambda unsaid: unsaid.why)
def test_what_a_schema_cannot_say_is_listed_with_its_reason(unsaid: Unsaid) -> None:
    """So that what it can say does not stay on the list."""
    key = unsaid.example.split(":")[0]
    head = "".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    text = f"{head}{unsaid.example}\n"
    assert complaints(text) == []
    assert any(re.search(unsaid.message, message) for message in errors(text=text))


NUMBERS = st.one_of(
    st.integers(0, 10**10).map(str),
    st.sampled_from([0, 1, 244, 245, 255, 256, 257, 366, 367, 1024, 1125, 1126, 1048576, 1125899]).map(str),
)


def pattern(kind: InSeconds | InBytes) -> str:
    found: str = kind.json_schema({"type": "integer"})["anyOf"][0]["pattern"]
    return found


def takes(kind: InSeconds | InBytes, text: str) -> bool:
    try:
        kind.convert(text)
    except PydanticCustomError:
        return False
    return True


@settings(deadline=None, max_examples=500)
@given(NUMBERS, st.integers(0, 9), st.sampled_from("dhms"))
def test_an_editor_knows_the_bounds_of_a_duration(number: str, zeros: int, unit: str) -> None:
    text = f"{'0' * zeros}{number}{unit}"
    assert bool(re.search(pattern(InSeconds()), text)) == takes(InSeconds(), text)


@settings(deadline=None, max_examples=1000)
@given(
    NUMBERS,
    st.one_of(
        st.just(""), st.integers(0, 9999).map(lambda number: f".{number}"), st.sampled_from([".05", ".001", "."])
    ),
    st.sampled_from(["MB", "GB", "TB", "MiB", "GiB", "TiB", "m", "g", "t", "mb", "KB", ""]),
)
@example("244", ".141", "MiB")
@example("244", ".14", "MiB")
@example("0", ".256", "GB")
@example("0", ".255", "GB")
@example("0", ".239", "g")
@example("1125899", ".906", "GB")
@example("1125899", ".907", "GB")
@example("1125", ".9", "TB")
@example("1024", ".000", "TiB")
@example("1024", ".001", "TiB")
def test_an_editor_knows_the_bounds_of_a_size(number: str, decimals: str, unit: str) -> None:
    text = f"{number}{decimals}{unit}"
    assert bool(re.search(pattern(InBytes()), text)) == takes(InBytes(), text)


def test_every_field_of_the_schema_tells_an_editor_what_it_is() -> None:
    """Completion shows it, in a sweep's space too; what is said of fields together only narrows them."""
    schema: dict[str, Any] = json_schema()
    sections = {**schema["$defs"], "the file": schema, "the space": schema["$defs"]["Search"]["properties"]["space"]}
    silent = [
        f"{name}.{field}"
        for name, section in sections.items()
        for field, value in section.get("properties", {}).items()
        if not value.get("description")
    ]
    assert silent == []


def fields_of_rules(schema: Any, *, is_rule: bool = False) -> Iterator[tuple[str, Any]]:
    """The fields that are named under an `allOf`, which says something of fields that are declared beside it."""
    if isinstance(schema, list):
        for part in schema:
            yield from fields_of_rules(part, is_rule=is_rule)
    elif isinstance(schema, dict):
        if is_rule and isinstance(fields := schema.get("properties"), dict):
            yield from fields.items()
        for key, part in schema.items():
            yield from fields_of_rules(part, is_rule=is_rule or key == "allOf")


def test_no_field_is_completed_a_second_time_by_what_is_said_of_it() -> None:
    """The language server of YAML completes whatever is named in a part that fits."""
    schema = json_schema()
    del schema["$defs"]["Search"]["properties"]["space"]["properties"]  # whose `from` and `to` it completes once
    found = list(fields_of_rules(schema))
    assert len(found) > 30
    assert [name for name, part in found if not part.get("doNotSuggest")] == []
