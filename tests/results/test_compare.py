"""`compare`: what differs between runs, best first."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from quick import quick_spec

from pipeline.board import tags
from pipeline.board.writer import Board
from pipeline.home.paths import Home
from pipeline.home.records import Progress, Result
from pipeline.jobfile import frozen
from pipeline.queue.job_queue import Queue
from pipeline.results.compare import compare, number, to_json
from pipeline.results.compared_run import as_text, flatten, lower_is_better
from pipeline.results.runs import find_all
from pipeline.training.progress import write_progress

Pipeline = Callable[..., subprocess.CompletedProcess[str]]
WIDE = {**os.environ, "COLUMNS": "250"}


def make_run(home: Home, name: str, curves: dict[str, list[float]], **sections: Any) -> str:
    """A run of three epochs of ten steps, a value an epoch. Gives its id."""
    job_id = f"{name}-20260101T000000000000Z-aaaaaa"
    run = home.run(job_id)
    frozen.save(run, quick_spec(name, epochs=3, **sections))
    with Board(run.root, first_step=0) as board:
        for tag, values in curves.items():
            for epoch, value in enumerate(values, start=1):
                board.scalars(10 * epoch, {tag: value})
    write_progress(run, Progress(1, epoch=3, epochs=3, step=30, steps=30))
    Result(1, "succeeded", "", 3, 3, 30, {}, "2026-01-01T00:00:00.000Z", "2026-01-01T00:01:05.500Z").write(run.result)
    return job_id


def lr(value: float) -> dict[str, Any]:
    return {"train": {"optimizer": {"name": "adamw", "lr": value}}}


def in_json(home: Home, *ids: str, metric: str = "test/accuracy") -> dict[str, Any]:
    """What `--json` prints, without a process."""
    comparison = compare(home, find_all(home, list(ids)), metric, say=[].append)
    value: dict[str, Any] = json.loads(json.dumps(to_json(comparison)), parse_constant=pytest.fail)
    return value


def test_a_table_says_what_differs_and_ranks_by_the_best_value(home: Home, pipeline: Pipeline) -> None:
    make_run(home, "low", {"test/accuracy": [0.5, 0.6, 0.55], "test/loss": [1.0, 0.9, 0.8]}, **lr(0.1))
    make_run(home, "high", {"test/accuracy": [0.5, 0.9, 0.4], "test/loss": [1.0, 0.9, 1.8]}, **lr(0.01))
    done = pipeline("compare", "low", "high", env=WIDE)
    assert (done.returncode, done.stderr) == (0, "")
    assert [re.split(" {2,}", line) for line in done.stdout.splitlines()[:3]] == [
        ["RUN", "BEST test/accuracy", "AT", "FINAL", "test/loss", "TIME", "train.optimizer.lr"],
        ["high", "90.00 %", "epoch 2", "40.00 %", "1.8", "66 s", "0.01"],
        ["low", "60.00 %", "epoch 2", "55.00 %", "0.8", "66 s", "0.1"],
    ]
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"the same in all: epochs 3/3, state succeeded, \d+ fields of their job files", last)


def test_the_train_loss_is_that_of_the_epoch_and_in_runs_of_before_that_of_the_last_steps(
    home: Home, pipeline: Pipeline
) -> None:
    last_window = {"train/loss": [0.9, 0.8, 0.01]}
    make_run(home, "now", {"test/accuracy": [0.9], **last_window, "train/epoch_loss": [0.7, 0.6, 0.5]})
    make_run(home, "then", {"test/accuracy": [0.8], "train/loss": [0.9, 0.8, 0.02]})
    make_run(home, "still", {"test/accuracy": [0.7], "train/loss": [0.9, 0.8, 0.03]})
    found = [re.split(" {2,}", line) for line in pipeline("compare", "now", "then", env=WIDE).stdout.splitlines()[:3]]
    assert [row[found[0].index("train/epoch_loss")] for row in found] == ["train/epoch_loss", "0.5", "0.02"]
    assert "train/loss" not in found[0]
    found = [re.split(" {2,}", line) for line in pipeline("compare", "then", "still", env=WIDE).stdout.splitlines()[:3]]
    assert [row[found[0].index("train/loss")] for row in found] == ["train/loss", "0.02", "0.03"]
    final = in_json(home, "now", "then")["runs"][0]["final"]
    assert (final["train/epoch_loss"], final["train/loss"]) == (0.5, 0.01)


def test_the_size_of_quantized_networks_is_a_column_beside_those_of_others(home: Home, pipeline: Pipeline) -> None:
    make_run(home, "few", {"test/accuracy": [0.9], tags.MODEL_BITS: [1_089_984]})
    make_run(home, "many", {"test/accuracy": [0.8]})
    rows = [re.split(" {2,}", line) for line in pipeline("compare", "few", "many", env=WIDE).stdout.splitlines()[:3]]
    assert [row[rows[0].index("SIZE")] for row in rows] == ["SIZE", "1.09 Mbit", "-"]


def test_a_run_is_a_column_where_rows_do_not_fit(home: Home, pipeline: Pipeline) -> None:
    make_run(home, "low", {"test/accuracy": [0.5]}, **lr(0.1))
    make_run(home, "high", {"test/accuracy": [0.9]}, **lr(0.01))
    lines = pipeline("compare", "low", "high", env={**os.environ, "COLUMNS": "50"}).stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["RUN", "high", "low"],
        ["BEST", "test/accuracy", "90.00", "%", "50.00", "%"],
    ]
    assert "train.optimizer.lr  0.01     0.1" in lines


@pytest.mark.parametrize("num_runs", [2, 6])
def test_tables_of_up_to_six_runs_fit_into_100_columns(home: Home, pipeline: Pipeline, num_runs: int) -> None:
    names = [f"a_name_that_is_rather_long_{number}" for number in range(num_runs)]
    for place, name in enumerate(names):
        make_run(home, name, {"test/accuracy": [place / 10], "test/loss": [0.123456]}, data={"batch_size": 8 + place})
    done = pipeline("compare", *names, env={**os.environ, "COLUMNS": "100"})
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert all(name in done.stdout for name in names)
    assert done.stdout.count("data.batch_size") == 1, "all are beside one another"


def test_where_cells_are_cut_what_differs_still_does(home: Home, pipeline: Pipeline) -> None:
    names = [f"run_{number}" for number in range(6)]
    for seed, name in enumerate(names):
        data = {"name": "image_folder", "path": f"/a/long/path/that/begins/alike/{name}", "image_size": 32}
        make_run(home, name, {"test/accuracy": [0.5]}, data=data, train={"seed": seed})
    done = pipeline("compare", *names, env={**os.environ, "COLUMNS": "95"})
    [line] = [line for line in done.stdout.splitlines() if line.startswith("data.path")]
    assert [cell[-5:] for cell in line.split()[1:]] == names


def test_of_a_loss_lower_is_better(home: Home) -> None:
    make_run(home, "a", {"test/loss": [0.9, 0.5, 0.7]})
    make_run(home, "b", {"test/loss": [0.4, 0.8, 0.8]})
    found = in_json(home, "a", "b", metric="test/loss")
    assert found["lower_is_better"] is True
    assert [run["best"] for run in found["runs"]] == [
        {"value": 0.4, "step": 10, "epoch": 1.0},
        {"value": 0.5, "step": 20, "epoch": 2.0},
    ]


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("test/loss", True),
        ("train/step_time", True),
        ("error", True),
        ("train/device_memory_mib", True),
        ("test/accuracy", False),
        ("train/images_per_second", False),
        (tags.MODEL_BITS, True),
        ("true_class_accuracy/error", False),
        ("test/glossiness", False),
    ],
)
def test_which_way_is_better_is_told_by_the_name(tag: str, expected: bool) -> None:
    assert lower_is_better(tag) is expected


def test_what_is_not_a_number_is_never_best(home: Home, pipeline: Pipeline) -> None:
    make_run(home, "broken", {"test/loss": [math.nan, -math.inf, math.nan]})
    make_run(home, "late", {"test/loss": [math.nan, 0.9]})
    make_run(home, "early", {"test/loss": [0.5, math.inf]})
    found = in_json(home, "broken", "late", "early", metric="test/loss")
    assert [run["id"].partition("-")[0] for run in found["runs"]] == ["early", "late", "broken"]
    assert found["runs"][2]["best"] is None
    assert found["runs"][0]["final"] == {"test/loss": None}
    assert "nan" in pipeline("compare", "broken", "late", "--metric", "test/loss").stdout


def test_a_run_without_the_metric_comes_last_and_is_named(home: Home, pipeline: Pipeline) -> None:
    without = make_run(home, "a", {"train/loss": [0.1]})
    make_run(home, "b", {"test/accuracy": [0.1]})
    assert [run["id"][0] for run in in_json(home, "a", "b")["runs"]] == ["b", "a"]
    assert pipeline("compare", "a", "b").stderr == f"{without}: has no test/accuracy\n"


def test_runs_that_have_not_been_tested_yet_are_compared_all_the_same(home: Home, pipeline: Pipeline) -> None:
    make_run(home, "a", {"train/loss": [0.1]})
    make_run(home, "b", {})
    done = pipeline("compare", "a", "b")
    assert (done.returncode, done.stderr) == (0, "no run has test/accuracy yet\n")


def test_an_unknown_metric_names_those_that_there_are(home: Home, pipeline: Pipeline) -> None:
    curves = {"test/accuracy": [0.1], "test/loss": [1.0], "true_class_accuracy/cat": [0.1]}
    make_run(home, "a", curves)
    make_run(home, "b", curves)
    done = pipeline("compare", "a", "b", "--metric", "test/los")
    assert (done.returncode, done.stdout) == (2, "")
    expected = "test/los: no run has such a metric; did you mean 'test/loss'? (known: test/accuracy, test/loss)"
    assert done.stderr == f"error: {expected}\n"
    done = pipeline("compare", "a", "b", "--metric", "true_class_accuracy/dog")
    assert "did you mean 'true_class_accuracy/cat'?" in done.stderr


def test_names_count_only_where_nothing_else_differs(home: Home) -> None:
    make_run(home, "a", {"test/accuracy": [0.1]})
    make_run(home, "b", {"test/accuracy": [0.1]})
    make_run(home, "c", {"test/accuracy": [0.1]}, **lr(0.5))
    assert in_json(home, "a", "b")["differing"] == ["name"]
    assert in_json(home, "a", "b", "c")["differing"] == ["train.optimizer.lr"]


def test_a_field_that_only_some_have_is_one_that_differs(home: Home) -> None:
    make_run(home, "a", {"test/accuracy": [0.1]}, train={"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}})
    make_run(home, "b", {"test/accuracy": [0.2]}, train={"optimizer": {"name": "adamw", "lr": 0.1}})
    found = in_json(home, "a", "b")
    assert {"train.optimizer.name", "train.optimizer.momentum", "train.optimizer.betas"} <= set(found["differing"])
    assert "train.optimizer.lr" in found["same"]
    assert [run["differing"]["train.optimizer.momentum"] for run in found["runs"]] == [None, 0.9]


def test_a_field_that_an_older_version_did_not_know_is_at_its_default(home: Home) -> None:
    ids = [make_run(home, name, {"test/accuracy": [0.1]}) for name in "ab"]
    path = home.run(ids[0]).spec
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "test_augment" not in line and "bias_lr" not in line))
    assert len(path.read_text().splitlines()) == len(lines) - 2
    assert in_json(home, "a", "b")["differing"] == ["name"]


def test_a_job_that_is_queued_again_is_told_as_pending(home: Home) -> None:
    job_id = Queue(home).submit(quick_spec("waits"))
    frozen.save(home.run(job_id), quick_spec("waits"))
    make_run(home, "a", {"test/accuracy": [0.1]})
    found = [(run["state"], run["epoch"], run["epochs"]) for run in in_json(home, "a", "waits")["runs"]]
    assert found == [("succeeded", 3, 3), ("pending", 0, 1)]


def test_one_run_is_not_enough(home: Home, pipeline: Pipeline) -> None:
    job_id = make_run(home, "a", {"test/accuracy": [0.1]})
    done = pipeline("compare", "a", "latest")
    assert done.returncode == 2
    assert done.stderr == f"error: {job_id}: that is one run, and it takes two; `pipeline show` shows one\n"


@pytest.mark.parametrize(("text", "why"), [(": [", "spec.yaml:"), ("5", "it is no job file")])
def test_a_spec_that_is_none_is_named(home: Home, pipeline: Pipeline, text: str, why: str) -> None:
    run = home.run(make_run(home, "a", {"test/accuracy": [0.1]}))
    make_run(home, "b", {"test/accuracy": [0.1]})
    run.spec.write_text(text)
    done = pipeline("compare", "a", "b")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {run.spec}: cannot be read: {why}")
    assert done.stderr.count("\n") == 1


def test_a_plot_is_an_image_with_a_legend(home: Home, pipeline: Pipeline, tmp_path: Path) -> None:
    make_run(home, "a", {"test/accuracy": [0.1, math.nan, 0.3]}, **lr(0.5))
    make_run(home, "b", {"test/accuracy": [0.2, 0.3]}, **lr(0.25))
    done = pipeline("compare", "a", "b", "--plot", tmp_path / "a.png")
    assert (done.returncode, done.stderr) == (0, f"{tmp_path / 'a.png'}: test/accuracy over the steps\n")
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.size[0]) == ("PNG", 1200)
    done = pipeline("compare", "a", "b", "--plot", tmp_path / "a.SVG", "--json")
    assert json.loads(done.stdout)["metric"] == "test/accuracy"
    svg = (tmp_path / "a.SVG").read_text()
    assert all(
        f"<!-- {text} -->" in svg for text in ("a: train.optimizer.lr 0.5", "b: train.optimizer.lr 0.25", "step")
    )


def test_runs_whose_epochs_are_not_as_many_steps_are_drawn_over_the_epochs(
    home: Home, pipeline: Pipeline, tmp_path: Path
) -> None:
    make_run(home, "a", {"test/accuracy": [0.1, 0.2, 0.3]})
    make_run(home, "b", {"test/accuracy": [0.2, 0.3, 0.4]})
    write_progress(home.run("b-20260101T000000000000Z-aaaaaa"), Progress(1, epoch=3, epochs=3, step=30, steps=90))
    done = pipeline("compare", "a", "b", "--plot", tmp_path / "a.svg")
    assert (done.returncode, done.stderr) == (0, f"{tmp_path / 'a.svg'}: test/accuracy over the epochs\n")
    assert "<!-- epoch -->" in (tmp_path / "a.svg").read_text()


def test_a_plot_needs_no_folder_of_its_own_and_no_display(home: Home, pipeline: Pipeline, tmp_path: Path) -> None:
    for name in ("a", "b"):
        data = {
            "name": "image_folder",
            "path": f"$x_{name} \N{SNOWMAN} \N{CJK UNIFIED IDEOGRAPH-4E00}$",
            "image_size": 8,
        }
        make_run(home, name, {"test/accuracy": [0.1]}, data=data)
    kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLCONFIGDIR")}
    done = pipeline("compare", "a", "b", "--plot", tmp_path / "a.png", env={**kept, "HOME": "/proc/none"})
    assert (done.returncode, done.stderr) == (0, f"{tmp_path / 'a.png'}: test/accuracy over the steps\n")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a.pdf", "a.pdf: a plot's name should end in .png or .svg"),
        ("none/a.png", "none/a.png: cannot be written: there is no folder"),
        ("folder.png", "folder.png: is a folder"),
    ],
)
def test_a_plot_that_cannot_be_written_is_told_before_anything_is_read(
    home: Home, pipeline: Pipeline, tmp_path: Path, out: str, message: str
) -> None:
    make_run(home, "a", {"test/accuracy": [0.1]})
    make_run(home, "b", {"test/accuracy": [0.1]})
    (tmp_path / "folder.png").mkdir()
    done = pipeline("compare", "a", "b", "--plot", out, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")


def test_where_there_is_nothing_to_draw_no_file_is_left(home: Home, pipeline: Pipeline, tmp_path: Path) -> None:
    make_run(home, "a", {})
    make_run(home, "b", {})
    done = pipeline("compare", "a", "b", "--plot", tmp_path / "a.png")
    assert done.returncode == 2
    assert "nothing to draw" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_table_needs_neither_torch_nor_matplotlib(home: Home) -> None:
    make_run(home, "a", {"test/accuracy": [0.1]})
    make_run(home, "b", {"test/accuracy": [0.1]})
    loaded = (
        "import sys; from pipeline.cli.app import make_app; "
        "make_app()(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    )
    command = [sys.executable, "-c", loaded, "--home", str(home.root), "compare", "a", "b"]
    modules = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    assert {"torch", "matplotlib"}.isdisjoint(modules)


def test_fields_are_named_and_written_as_in_a_job_file() -> None:
    flat = flatten({"a": {"b": 1, "c": {"d": None}}, "e": [], "f": {}})
    assert flat == {"a.b": 1, "a.c.d": None, "e": [], "f": {}}
    values = [None, True, 1e-5, "text", ["a", {"name": "crop", "padding": 4}], {}, ...]
    assert [as_text(value) for value in values] == [
        *("null", "true", "1e-05", "text"),
        "[a, {name: crop, padding: 4}]",
        *("{}", "-"),
    ]


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        ("test/accuracy", 0.98765, "98.77 %"),
        ("test/accuracy", math.nan, "nan"),
        ("test/loss", 0.0123456, "0.01235"),
        ("train/images_per_second", 24791.4, "24,791"),
        ("test/loss", math.inf, "inf"),
        ("test/loss", None, "-"),
    ],
)
def test_numbers_are_as_long_as_a_person_needs_them(tag: str, value: float | None, expected: str) -> None:
    assert number(tag, value) == expected
