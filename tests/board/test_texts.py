"""Texts, as TensorBoard makes HTML of them."""

from __future__ import annotations

import html
import json
import re
import statistics
import warnings

import pytest
import torch
from evaluations import evaluation
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    digits,
    engine_of,
    make_spec,
    ordinary_kernels,
    train_engine,
)
from quick import NOTHING_SHOWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.board import tags, texts
from pipeline.board.conditions import describe_conditions
from pipeline.data.dataset import Dataset
from pipeline.home.evaluation_record import EvaluationRecord
from pipeline.home.paths import RunPaths


def shown(markdown: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a library that TensorBoard brings along
        from tensorboard.plugin_util import markdown_to_safe_html
    page: str = markdown_to_safe_html(markdown)
    return page


def cells(markdown: str) -> list[list[str]]:
    """Of each row of the one table, the header first."""
    rows = re.findall(r"<tr>(.*?)</tr>", shown(markdown), re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


@pytest.mark.parametrize("text", ["a|b", "a\\b", "a\\", "\\|", "<b>bold</b>", "<script>", "a_b_c", "~~~~", "|"])
def test_a_cell_holds_its_text_whatever_that_is(text: str) -> None:
    assert cells(texts.table(("name", "x"), [(text, "1"), ("next", "2")])) == [
        ["name", "x"],
        [text, "1"],
        ["next", "2"],
    ]


def test_a_line_break_in_a_cell_is_a_space() -> None:
    assert cells(texts.table(("name", "x"), [("a\nb\r\n\tc", "1")]))[1] == ["a b c", "1"]


@pytest.mark.parametrize("text", ["name: x\n", "description: '~~~~ **bold** <b>'\n  ~~~~~~\n```\n", "a: 1\n\n\nb: 2\n"])
def test_a_job_file_is_shown_as_it_is(text: str) -> None:
    (block,) = re.findall(r"<pre><code>(.*)</code></pre>", shown(texts.code(text, "yaml")), re.DOTALL)
    assert html.unescape(block) == text


@pytest.fixture(scope="module")
def finished(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunPaths, dict[str, str]]:
    """A run, and its texts by tag."""
    folder = tmp_path_factory.mktemp("run")
    data = {"augment": ["flip", {"name": "crop", "padding": 1}]}
    optimizer = {"name": "sgd", "lr": 0.05, "nesterov": True}
    spec = make_spec(data=data, train={"seed": 17, "optimizer": optimizer, "precision": "fp32"}, log=NOTHING_SHOWN)
    train_engine(engine_of(spec, digits), folder)
    reader = EventAccumulator(str(folder))
    reader.Reload()
    found = {
        tag: reader.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
        for tag in (tags.JOB_FILE, tags.CONDITIONS, tags.CLASS_REPORT)
    }
    return RunPaths(folder), found


def test_of_an_augmentation_the_conditions_have_what_is_not_as_always() -> None:
    def told(*augment: object) -> str:
        data = {"name": "digits", "augment": list(augment), "last_batch": "drop"}
        rows = dict(describe_conditions(make_spec(data=data).model_dump(mode="json"), {}))
        assert rows["Last batch"] == "left out, as it is smaller"
        return rows["Augmentation"]

    assert told("flip", "crop") == "flip, crop (padding 4)"
    alternate, reflect = {"name": "flip", "alternate": True}, {"name": "crop", "padding_mode": "reflect"}
    assert told(alternate, reflect) == "flip (alternate yes), crop (padding 4, padding mode reflect)"


def test_the_conditions_are_all_there(finished: tuple[RunPaths, dict[str, str]], digits: Dataset) -> None:
    run, found = finished
    rows = {name: value for name, value in cells(found[tags.CONDITIONS])[1:]}  # noqa: C416 - pairs, checked
    manifest = json.loads(run.manifest.read_text())
    expected = {
        "Model": "cnn_bn",
        "Dataset": "digits",
        "Training images": "1,437",
        "Held-out images": "360",
        "Image size": "8 by 8 pixels",
        "Dataset fingerprint": digits.fingerprint,
        "Batch size": "64",
        "Batches in a step": "1",
        "Augmentation": "flip, crop (padding 1)",
        "Epochs": "2",
        "Optimizer": "sgd (lr 0.05, momentum 0.9, weight decay 0, nesterov yes)",
        "Schedule": "constant (warmup epochs 0)",
        "Label smoothing": "0",
        "Seed": "17",
        "Deterministic": "yes",
        "Precision": "fp32",
        "Job file's SHA-256": manifest["spec_sha256"],
    }
    assert {name: rows[name] for name in expected} == expected
    assert rows["Device"].startswith("cpu (")
    assert f"torch {torch.__version__.partition('+')[0]}" in rows["Versions"]
    assert "python 3." in rows["Versions"]
    assert rows["Code"].startswith("pipeline 0.")


def test_the_class_report_is_that_of_counting_image_by_image(
    finished: tuple[RunPaths, dict[str, str]], digits: Dataset
) -> None:
    run, found = finished
    evaluated = EvaluationRecord.read(run.evaluation)
    assert evaluated is not None
    pairs = [(label, predicted) for label, predicted, number in evaluated.cells for _ in range(number)]
    expected = []
    for index, name in enumerate(digits.classes):
        precision = statistics.mean(label == index for label, predicted in pairs if predicted == index)
        recall = statistics.mean(predicted == index for label, predicted in pairs if label == index)
        shares = (precision, recall, statistics.harmonic_mean([precision, recall]))
        support = sum(label == index for label, _ in pairs)
        expected.append([name, str(support), *(f"{100 * share:.2f} %" for share in shares)])
    header, *rows = cells(found[tags.CLASS_REPORT])
    assert header == ["class", "held-out images", "precision", "recall", "F1"]
    assert rows == expected


def test_a_class_that_nothing_is_known_of_has_empty_cells() -> None:
    found = evaluation([(0, 0, 2), (0, 1, 1)], ["a", "b", "c"])
    _, *rows = cells(texts.class_report(found.class_scores()))
    assert rows == [
        ["a", "3", "100.00 %", "66.67 %", "80.00 %"],
        ["b", "0", "0.00 %", "", "0.00 %"],
        ["c", "0", "", "", ""],
    ]
