"""The real TensorBoard on real runs, asked over its own HTTP endpoints for what each dashboard shows."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import urllib.parse
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import pytest
import torch
from dashboards import (  # noqa: F401 - board and runs are fixtures
    CNN,
    EPOCHS,
    EVERY,
    STEPS_OF_EPOCH,
    VGG,
    VGG_EPOCHS,
    VGG_FIGURES,
    VGG_LAST_STEP,
    Board,
    Runs,
    board,
    runs,
    serving,
)
from in_process import digits, ordinary_kernels  # noqa: F401 - fixtures
from PIL import Image
from quick import EVERYTHING_SHOWN, wait_until

from pipeline.board import hparams, tags
from pipeline.board.curves import NUM_THRESHOLDS
from pipeline.board.projector import NUM_IMAGES, Samples, add_embeddings
from pipeline.board.writer import Board as Writer
from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.home.records import Result

OF_EPOCHS = {tags.EPOCH_LOSS, tags.EPOCH_ACCURACY, tags.TEST_LOSS, tags.TEST_ACCURACY, tags.BEST_ACCURACY}
SCALARS = {*tags.TRAINING, *OF_EPOCHS}
DIGITS = [str(digit) for digit in range(10)]
EVERY_EPOCH = [STEPS_OF_EPOCH * epoch for epoch in range(1, EPOCHS + 1)]
EVERY_VGG_EPOCH = [STEPS_OF_EPOCH * epoch for epoch in range(1, VGG_EPOCHS + 1)]


def scalar(board: Board, run: str, tag: str) -> dict[int, float]:
    """Value by step. JSON has no NaN, TensorBoard sends it as text."""
    points = board.get("scalars/scalars", run=run, tag=tag)
    assert len({step for _, step, _ in points}) == len(points), "a step stands there twice"
    return {step: float(value) for _, step, value in points}


def logged_steps(last: int) -> list[int]:
    """There is no point for the steps that are left at the end: they are no whole `log.every`."""
    return [step for step in range(1, last + 1) if step % EVERY == 0]


def test_there_is_one_run_a_job(board: Board, runs: Runs) -> None:
    assert sorted(board.get("runs", plugin=False)) == sorted(runs.ids)


def test_every_dashboard_is_active(board: Board) -> None:
    listing = board.get("plugins_listing", plugin=False)
    active = {name for name, entry in listing.items() if entry["enabled"]}
    assert active >= {
        "timeseries",
        "scalars",
        "custom_scalars",
        "images",
        "graphs",
        "distributions",
        "histograms",
        "projector",
        "pr_curves",
        "text",
        "hparams",
    }


def test_scalars_are_all_there_and_agree_with_the_results(board: Board, runs: Runs) -> None:
    listing = board.get("scalars/tags")
    for run in (runs.cnn, runs.vgg):
        assert set(listing[run]) == SCALARS | {tags.class_accuracy(digit) for digit in DIGITS}
        result = Result.read(runs.home.run(run).result)
        assert result is not None
        for tag in SCALARS:
            assert list(scalar(board, run, tag).values())[-1] == pytest.approx(result.metrics[tag], rel=1e-5)


def test_a_run_that_was_stopped_and_killed_has_each_step_once(board: Board, runs: Runs) -> None:
    for tag in tags.TRAINING:
        assert list(scalar(board, runs.vgg, tag)) == logged_steps(VGG_LAST_STEP)
    for tag in (*OF_EPOCHS, tags.class_accuracy("7")):
        assert list(scalar(board, runs.vgg, tag)) == EVERY_VGG_EPOCH
    for path in ("histograms/histograms", "distributions/distributions"):
        events = board.get(path, run=runs.vgg, tag=tags.parameter("classifier.weight"))
        assert [step for _, step, _ in events] == EVERY_VGG_EPOCH
    curves = board.get("pr_curves/pr_curves", run=runs.vgg, tag=tags.pr_curve("7"))[runs.vgg]
    assert [entry["step"] for entry in curves] == EVERY_VGG_EPOCH
    for tag, steps in {tags.PREDICTIONS: VGG_FIGURES, tags.CONFUSION: VGG_FIGURES, tags.FIRST_BATCH: [0]}.items():
        assert [entry["step"] for entry in board.get("images/images", run=runs.vgg, tag=tag)] == steps
    for tag, step in {tags.JOB_FILE: 0, tags.CONDITIONS: 0, tags.CLASS_REPORT: VGG_LAST_STEP}.items():
        assert [entry["step"] for entry in texts(board, runs.vgg, tag)] == [step]


def test_a_tag_of_more_than_a_thousand_points_is_served_with_a_thousand(tmp_path: Path) -> None:
    """The page's CSV links too: what has all points is `pipeline export`."""
    with Writer(tmp_path / "runs" / "long", first_step=0) as writer:
        for step in range(1, 1501):
            writer.scalars(step, {tags.TRAIN_LOSS: 1 / step})
    query = {"run": "long", "tag": tags.TRAIN_LOSS}
    with serving(tmp_path / "runs") as board:
        wait_until(lambda: tags.TRAIN_LOSS in board.get("scalars/tags").get("long", {}), "the run to be read")
        wait_until(lambda: max(scalar(board, **query)) == 1500, "the last point, which is always kept")
        assert len(scalar(board, **query)) == 1000
        table = board.read("scalars/scalars", **query, format="csv").decode()
        assert len(table.splitlines()) == 1 + 1000


def test_custom_scalars_put_train_and_test_on_one_chart(board: Board, runs: Runs) -> None:
    layout = board.get("custom_scalars/layout")
    charts = [(chart["title"], chart["multiline"]["tag"]) for part in layout["category"] for chart in part["chart"]]
    shown = {title: set(matching(board, runs.cnn, patterns)) for title, patterns in charts}
    assert len(shown) == len(charts), "the layouts of several runs are one"
    assert shown["loss"] == {tags.EPOCH_LOSS, tags.TEST_LOSS}
    assert shown["accuracy"] == {tags.EPOCH_ACCURACY, tags.TEST_ACCURACY}
    assert shown["test accuracy of each class"] == {tags.class_accuracy(digit) for digit in DIGITS}
    assert all(shown.values()), "no chart is empty"


def matching(board: Board, run: str, patterns: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pattern in patterns:
        answer = board.get("custom_scalars/scalars", run=run, tag=pattern)
        assert answer["regex_valid"]
        found |= answer["tag_to_events"]
    return found


def test_images_can_be_decoded_and_are_there_for_every_step_that_was_asked(board: Board, runs: Runs) -> None:
    for run, steps in ((runs.cnn, EVERY_EPOCH), (runs.vgg, VGG_FIGURES)):
        for tag in (tags.PREDICTIONS, tags.CONFUSION, tags.MISTAKES):
            assert list(images(board, run, tag)) == steps, tag
        for tag in (tags.SAMPLES, tags.FIRST_BATCH):
            ((step, image),) = images(board, run, tag).items()
            assert (step, image.width) == (0, 8 * (64 + 2)), "eight a row, enlarged to 64 pixels, a line around each"
            assert len(np.unique(np.asarray(image))) > 10


def images(board: Board, run: str, tag: str) -> dict[int, Image.Image]:
    found = {}
    for entry in board.get("images/images", run=run, tag=tag):
        content = board.read("images/individualImage", **dict(urllib.parse.parse_qsl(entry["query"])))
        found[entry["step"]] = Image.open(io.BytesIO(content)).convert("RGB")
    return found


def test_images_are_large_enough_to_be_read_and_small_enough_for_a_page(board: Board, runs: Runs) -> None:
    for tag in board.get("images/tags")[runs.cnn]:
        for image in images(board, runs.cnn, tag).values():
            assert 100 <= image.width <= 1600
            assert 100 <= image.height <= 1600


@pytest.mark.parametrize(
    ("job", "scopes"),
    [
        ("cnn", ["CnnBn/Sequential[features]/Conv2d[conv1]", "CnnBn/Sequential[classifier]/Linear[fc2]"]),
        ("vgg", ["Vgg/Sequential[features]/Conv2d[conv1_1]", "Vgg/Linear[classifier]"]),
    ],
)
def test_the_graph_has_the_scopes_of_the_modules(board: Board, runs: Runs, job: str, scopes: list[str]) -> None:
    run = getattr(runs, job)
    assert board.get("graphs/info")[run]["run_graph"]
    graph = board.read("graphs/graph", run=run, conceptual="false").decode()
    names = re.findall(r'^  name: "(.*)"$', graph, re.MULTILINE)
    assert any(name.startswith("input/") for name in names)
    for scope in scopes:
        assert any(name.startswith(f"{scope}/") for name in names), names


@pytest.mark.parametrize("plugin", ["histograms", "distributions"])
def test_every_parameter_and_its_gradient_has_its_histograms(board: Board, runs: Runs, plugin: str) -> None:
    listing = board.get(f"{plugin}/tags")[runs.cnn]
    for layer in ("features.conv1", "features.bn1", "classifier.fc1", "classifier.fc2"):
        for tag in (tags.parameter(f"{layer}.weight"), tags.gradient(f"{layer}.weight")):
            assert tag in listing
            events = board.get(f"{plugin}/{plugin}", run=runs.cnn, tag=tag)
            assert [step for _, step, _ in events] == EVERY_EPOCH
            assert all(bins and np.isfinite(bins).all() for _, _, bins in events)
    assert len(listing) == len(set(listing)) > 20


def test_the_projector_has_pixels_and_features_with_labels_and_thumbnails(board: Board, runs: Runs) -> None:
    assert set(board.get("projector/runs")) == set(runs.ids)
    entries = board.get("projector/info", run=runs.cnn)["embeddings"]
    names = [entry["tensorName"] for entry in entries]
    assert names == [*(f"features at step {step}" for step in reversed(EVERY_EPOCH)), "pixels"], "the last comes first"
    for entry in entries:
        query = {"run": runs.cnn, "name": entry["tensorName"]}
        shape = entry["tensorShape"]
        values = np.frombuffer(board.read("projector/tensor", **query), np.float32).reshape(shape)
        assert len(values) >= 100
        assert shape == ([NUM_IMAGES, 64] if entry["tensorName"] == "pixels" else [NUM_IMAGES, 512])
        assert np.isfinite(values).all()
        assert values.std(0).max() > 0.01
        header, *rows = board.read("projector/metadata", **query).decode().splitlines()
        assert header.split("\t") == ["label", "predicted", "index"]
        assert len(rows) == len(values)
        assert {row.split("\t")[0] for row in rows} == set(DIGITS)
        sprite = Image.open(io.BytesIO(board.read("projector/sprite_image", **query)))
        width, height = entry["sprite"]["singleImageDim"]
        assert (sprite.width // width) * (sprite.height // height) >= len(values)


def test_the_projector_of_a_run_that_was_killed_lists_each_tensor_once(board: Board, runs: Runs) -> None:
    entries = board.get("projector/info", run=runs.vgg)["embeddings"]
    assert [entry["tensorName"] for entry in entries] == [f"features at step {VGG_LAST_STEP}", "pixels"]


def test_embeddings_that_are_written_while_tensorboard_runs_are_shown(tmp_path: Path) -> None:
    """Somebody looks while a job trains; its embeddings come with its end."""
    folder = tmp_path / "runs" / "late"
    with Writer(folder, first_step=0) as writer:
        writer.scalars(1, {tags.TRAIN_LOSS: 1.0})
    labels = torch.arange(4)
    samples = Samples([0, 1, 2, 3], torch.zeros(4, 8, 8, 1, dtype=torch.uint8), labels, labels, "abcd")
    with serving(tmp_path / "runs") as board:
        wait_until(lambda: "late" in board.get("runs", plugin=False), "the run")
        assert board.get("projector/runs") == []
        for step in (1, 2):
            add_embeddings(folder, samples, torch.full((4, 3), float(step)), step=step)
            wait_until(lambda: "late" in board.get("projector/runs"), "the projector")
            entries = board.get("projector/info", run="late")["embeddings"]
            names = [entry["tensorName"] for entry in entries]
            assert names == [*(f"features at step {s}" for s in range(step, 0, -1)), "pixels"]
            assert entries[0]["tensorShape"] == [4, 3]
            tensor = board.read("projector/tensor", run="late", name=names[0])
            assert np.frombuffer(tensor, np.float32).tolist() == [step] * 12


def test_precision_and_recall_are_those_of_a_curve(board: Board, runs: Runs) -> None:
    assert sorted(board.get("pr_curves/tags")[runs.cnn]) == [tags.pr_curve(digit) for digit in DIGITS]
    for digit in DIGITS:
        curves = board.get("pr_curves/pr_curves", run=runs.cnn, tag=tags.pr_curve(digit))[runs.cnn]
        assert [entry["step"] for entry in curves] == EVERY_EPOCH
        for entry in curves:
            check_curve(entry)
    last = curves[-1]
    assert np.interp(0.5, last["recall"][::-1], last["precision"][::-1]) > 0.9, "from labels, not from predictions"


def check_curve(entry: dict[str, list[float]]) -> None:
    """Its thresholds are probabilities of the class's own images, after the first, which is 0."""
    thresholds, precision, recall = (np.array(entry[name]) for name in ("thresholds", "precision", "recall"))
    assert len(thresholds) == NUM_THRESHOLDS
    assert (thresholds[0], (np.diff(thresholds) < 0).sum()) == (0, 0)
    assert ((precision >= 0) & (precision <= 1)).all()
    assert ((recall >= 0) & (recall <= 1)).all()
    assert (np.diff(recall) <= 0).all(), "a higher threshold finds no more"
    assert recall.max() == 1, "at threshold 0 all are found"
    positives = np.array(entry["true_positives"]) + np.array(entry["false_negatives"])
    assert len(set(positives)) == 1
    assert 30 <= positives[0] <= 40, "held-out images of one digit"


def texts(board: Board, run: str, tag: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = board.get("text/text", run=run, tag=tag)
    return entries


def test_the_text_says_what_was_run_under_which_conditions_and_how_it_came_out(board: Board, runs: Runs) -> None:
    for run in (runs.cnn, runs.vgg):
        (job,) = texts(board, run, tags.JOB_FILE)
        spec = runs.home.run(run).spec.read_text()
        for line in filter(None, map(str.strip, spec.splitlines())):
            assert line in job["text"].replace("&quot;", '"'), "the job file, in full"
        (conditions,) = texts(board, run, tags.CONDITIONS)
        for word in ("Batch size", "Epochs", "Optimizer", "Device", "torch", "Seed", "Dataset fingerprint"):
            assert word in conditions["text"]
        assert "<table>" in conditions["text"]
        (report,) = texts(board, run, tags.CLASS_REPORT)
        assert [digit for digit in DIGITS if f"<td>{digit}</td>" in report["text"]] == DIGITS
        (profile,) = texts(board, run, tags.TOP_OPERATORS)
        assert "aten::" in profile["text"]


def session_groups(board: Board, *columns: dict[str, Any]) -> dict[str, Any]:
    statuses = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    body = {"allowedStatuses": statuses, "colParams": columns, "startIndex": 0, "sliceSize": 100}
    answer = board.get("hparams/session_groups", body=body)
    return {group["name"]: group for group in answer["sessionGroups"]}


def test_hparams_has_the_fields_of_all_jobs(board: Board) -> None:
    found = {info["name"]: info for info in board.get("hparams/experiment", body={})["hparamInfos"]}
    fields = [dict(hparams.flatten(spec)) for spec in (CNN, VGG)]
    assert fields[0].keys() - fields[1].keys(), "only one has these"
    assert fields[1].keys() - fields[0].keys(), "only one has these"
    assert fields[0].keys() | fields[1].keys() <= found.keys()
    assert set(found["model.name"]["domainDiscrete"]) == {"cnn_bn", "vgg"}
    assert set(found["train.fused"]["domainDiscrete"]) == {"auto", "true"}
    assert found["train.optimizer.lr"]["domainInterval"] == {"minValue": 0.003, "maxValue": 0.05}
    assert found["train.optimizer.lr"]["differs"]


def test_hparams_has_one_session_a_run_with_its_fields_and_final_metrics(board: Board, runs: Runs) -> None:
    groups = session_groups(board)
    assert sorted(groups) == sorted(runs.ids), "and no sub-runs with a time for a name"
    for run, spec in ((runs.cnn, CNN), (runs.vgg, VGG)):
        assert groups[run]["hparams"] == dict(hparams.flatten(spec))
        (session,) = groups[run]["sessions"]
        assert session["status"] == "STATUS_SUCCESS"
        result = Result.read(runs.home.run(run).result)
        assert result is not None
        metrics = {value["name"]["tag"]: value["value"] for value in session["metricValues"]}
        for tag in OF_EPOCHS:
            assert metrics[tag] == pytest.approx(result.metrics[tag], rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("model.name", "vgg", {"vgg"}),
        ("model.name", "cnn_bn", {"cnn"}),
        ("train.fused", "true", {"vgg"}),
        ("train.fused", "auto", {"cnn"}),
        ("data.name", "digits", {"cnn", "vgg"}),
    ],
)
def test_a_filter_finds_the_runs_that_have_the_value(
    board: Board, runs: Runs, field: str, value: str, expected: set[str]
) -> None:
    found = session_groups(board, {"hparam": field, "filterDiscrete": [value], "excludeMissingValues": True})
    assert set(found) == {getattr(runs, name) for name in expected}


def test_runs_can_be_sorted_by_a_metric(board: Board, runs: Runs) -> None:
    names = list(session_groups(board, {"metric": {"tag": tags.TEST_LOSS, "group": ""}, "order": "ORDER_DESC"}))
    losses = [list(scalar(board, run, tags.TEST_LOSS).values())[-1] for run in names]
    assert losses == sorted(losses, reverse=True)
    assert sorted(names) == sorted(runs.ids)


def test_a_class_without_held_out_images_has_no_value_and_no_curve_and_breaks_nothing(
    tmp_path: Path, digits: Dataset
) -> None:
    seen = (digits.test.labels != 9).nonzero().flatten()
    source = dataclasses.replace(digits, test=Split(digits.test.read(seen.tolist()), digits.test.labels[seen]))
    spec = in_process.make_spec(train={"epochs": 1}, log=EVERYTHING_SHOWN)
    in_process.train_engine(in_process.engine_of(spec, source), tmp_path / "runs" / "gap")
    with serving(tmp_path / "runs") as board:
        wait_until(lambda: tags.CLASS_REPORT in board.get("text/tags").get("gap", []), "the run")
        assert all(map(math.isnan, scalar(board, "gap", tags.class_accuracy("9")).values()))
        for digit in DIGITS[:9]:
            ((_, value),) = scalar(board, "gap", tags.class_accuracy(digit)).items()
            assert 0 <= value <= 1
        assert sorted(board.get("pr_curves/tags")["gap"]) == [tags.pr_curve(digit) for digit in DIGITS[:9]]
        (report,) = texts(board, "gap", tags.CLASS_REPORT)
        assert "nan" not in report["text"].lower()
        metrics = {value["name"]["tag"] for value in session_groups(board)["gap"]["metricValues"]}
        assert {tags.TEST_ACCURACY, tags.BEST_ACCURACY, tags.TEST_LOSS} <= metrics
