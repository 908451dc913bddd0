"""The page of a sweep: what it says and draws, and that no state of a sweep is an error. Nothing is trained here."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from html_page import Page, check_can_be_read_out, check_is_whole_in_itself
from quick import quick_spec
from sweep_home import SPACE, SWEEP, Tried, job_id, leave

from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.jobfile import frozen
from pipeline.results import sweep_charts, sweep_field_charts, sweep_report
from pipeline.results.report import render, write

WELL = [0.5, 0.8, 0.75]


def tried(number: int, *, accuracy: Sequence[float] = WELL, **more: Any) -> Tried:
    """A trial with values of its own of each field of SPACE."""
    lr = 10 ** (-4 + 3 * ((number * 0.37) % 1))
    values = {
        "train.optimizer.lr": lr,
        "data.batch_size": 32 + 32 * (number % 8),
        "train.optimizer.name": ["sgd", "adamw"][number % 2],
    }
    loss = [-math.log(value) for value in accuracy]
    return Tried(values, {"test/accuracy": accuracy, "test/loss": loss} if accuracy else {}, **more)


def some(count: int) -> list[Tried]:
    """Trials the best of which is the second."""
    return [tried(n, accuracy=[0.3, 0.9 - 0.5 * abs(n - 1) / count, 0.4]) for n in range(count)]


def page_of(home: Home, *, links: tuple[str, ...] = ()) -> Page:
    """Returns the page, of which what holds for every page is checked."""
    page = check_is_whole_in_itself(write(home, home.run(SWEEP)).read_text(encoding="utf-8"), links=links)
    check_can_be_read_out(page)
    return page


def charts_of(page: Page) -> list[str]:
    return [element.text.removesuffix(", a chart") for element in page.all("title") if "svg" in element.inside]


def headline_of(page: Page) -> dict[str, str]:
    return dict(zip(page.texts("dt"), page.texts("dd"), strict=True))


SLICES = [f"test/accuracy against {label}" for label in ("lr", "batch_size", "optimizer.name")]
WITHOUT_IMPORTANCES = ["History", "Learning curves", "Parallel coordinates", *SLICES]


def test_the_page_says_what_a_sweep_has_found(home: Home) -> None:
    pruned = tried(12, accuracy=[0.1], outcome="pruned", why="pruned at step 10: it was behind")
    failed = tried(13, accuracy=[], outcome="failed", why="RuntimeError: out of memory")
    leave(home, [*some(12), pruned, failed], num_trials=20)
    page = page_of(home)
    assert page.texts("h1") == ["sweep"]
    figures = headline_of(page)
    assert figures["Highest test/accuracy"] == "90.00 % trial 1, epoch 2, chosen on the test set"
    assert figures["Trials ended"] == "14 of 20 12 succeeded, 1 pruned, 1 failed, 6 not started"
    assert figures["Took"] == "2 min"
    assert figures["Epochs trained"] == "37 2 saved by pruning"
    best = dict(page.table("The values of trial 1"))
    assert (best["data.batch_size"], best["train.optimizer.name"], best["Job"]) == ("64", "adamw", job_id(1))
    assert f"pipeline best {SWEEP} > jobs/sweep_best.yaml" in page.text
    assert charts_of(page) == ["History", "Learning curves", "Importances", "Parallel coordinates", *SLICES]
    assert "by PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023)" in page.text
    header, *rows = page.table("Each trial by its number")
    labels = ["test/accuracy", "lr", "batch_size", "optimizer.name"]
    assert header == ["Trial", "Outcome", *labels, "Best epoch", "Epochs", "Took", "Job"]
    assert [row[0] for row in rows[:3]] == ["1 (best)", "0", "2"]
    assert rows[0][6:9] == ["2", "3 of 3", "2 min"]
    assert rows[-2][:3] == [
        "12",
        "pruned pruned at step 10: it was behind".replace("pruned pruned", "prunedpruned"),
        "10.00 %",
    ]
    assert rows[-1][2] == sweep_report.UNKNOWN
    conditions = dict(page.table("How it searched"))
    assert conditions["Objective"] == "test/accuracy, to be high"
    assert conditions["Field train.optimizer.lr"] == "from 0.0001 to 0.1, logarithmic"
    assert conditions["Field train.optimizer.name"] == "sgd, adamw"
    job_file = page.all("pre")[1].text
    assert job_file == home.run(SWEEP).spec.read_text()
    assert page.all("pre")[2].text.strip() == "asked for trials"


def test_each_chart_tells_those_who_do_not_see_it_what_it_shows(home: Home) -> None:
    leave(home, some(12))
    told = [element.text for element in page_of(home).all("desc")]
    assert told[0] == (
        "test/accuracy of 12 trials by their numbers. The first that succeeded, trial 0, has 85.83 %; "
        "the highest value, 90.00 %, was found by trial 1."
    )
    assert told[1] == "test/accuracy after each epoch of 12 trials, up to epoch 3."
    assert "The best, trial 1: lr 0.0012" in told[3]
    assert told[-1].endswith("The best of each: adamw 90.00 %, sgd 85.83 %.")


def test_a_range_that_is_logarithmic_is_drawn_so_and_choices_by_their_names(home: Home) -> None:
    leave(home, some(6))
    page = page_of(home)
    texts = [element.text for element in page.all("text")]
    assert {"0.0001", "0.001", "0.01", "0.1"} <= set(texts)
    assert texts.count("adamw") == 2  # on the parallel axis, and below its slice
    assert charts_of(page) == WITHOUT_IMPORTANCES
    assert "takes 10 trials that have succeeded; there are 6." in page.text


def test_what_is_to_be_low_has_its_lowest_as_the_best(home: Home) -> None:
    leave(home, some(4), maximize=[], minimize=["val/loss"])
    figures = headline_of(page_of(home))
    assert figures["Lowest val/loss"] == "0.1054 trial 1, epoch 2, chosen on the test set"


def test_where_images_are_held_out_the_best_is_told_on_the_test_set_too(home: Home) -> None:
    one = Tried({"train.optimizer.lr": 0.1}, {"val/accuracy": [0.7], "test/accuracy": [0.65]})
    leave(home, [one], maximize=["val/accuracy"])
    figures = headline_of(page_of(home))
    assert figures["Highest val/accuracy"] == "70.00 % trial 0, epoch 1"
    assert figures["Its test/accuracy"] == "65.00 % trial 0"


@pytest.mark.parametrize("minimize", [["train/images_per_second"], ["test/loss", "train/images_per_second"]])
def test_of_several_objectives_the_front_is_shown(minimize: list[str], home: Home) -> None:
    trials = some(12)
    for number, trial in enumerate(trials):
        trial.figures["train/images_per_second"] = [5000.0 if number == 2 else 6000.0 + number] * 3
    leave(home, trials, maximize=["test/accuracy"], minimize=minimize)
    page = page_of(home)
    figures = headline_of(page)
    assert figures["Highest test/accuracy"].startswith("90.00 % trial 1")
    assert figures["Lowest train/images_per_second"].startswith("5,000 trial 2")
    assert figures["On the Pareto front"].startswith("2 ")
    assert [row[0] for row in page.table("The Pareto front")[1:]] == ["1 (best)", "2 (best)"]
    pairs = {1: ["train/images_per_second against test/accuracy"]}.get(
        len(minimize),
        [
            "test/loss against test/accuracy",
            "train/images_per_second against test/accuracy",
            "train/images_per_second against test/loss",
        ],
    )
    assert charts_of(page)[: len(pairs) + 2] == [*pairs, "History", "Learning curves"]
    assert "best by the first objective" in page.text


def test_a_sweep_that_still_runs_has_a_page_that_says_so(home: Home) -> None:
    leave(home, [tried(0)], num_trials=8, outcome=None)
    page = page_of(home)
    assert page.texts("strong")[0] == "still running"
    assert headline_of(page)["Trials ended"] == "1 of 8 1 succeeded, 7 not started"


@pytest.mark.parametrize(("outcome", "said"), [("cancelled", "it ended before"), (None, "it has not asked for one")])
def test_a_sweep_without_trials_says_so(outcome: str | None, said: str, home: Home) -> None:
    leave(home, [], num_trials=8, outcome=outcome)
    page = page_of(home)
    assert f"There are no trials: {said}" in page.text
    assert page.all("svg") == []


def test_a_sweep_whose_trials_all_failed_says_so(home: Home) -> None:
    trials = [tried(n, accuracy=[], outcome="failed", why="ValueError: no") for n in range(3)]
    leave(home, [*trials, tried(3, accuracy=[0.2], outcome="timed_out")], outcome="failed")
    page = page_of(home)
    assert "There is none: no trial has succeeded." in page.text
    assert charts_of(page) == ["History"]
    assert [row[1] for row in page.table("Each trial")[1:]] == ["timed out", *["failedValueError: no"] * 3]


def test_a_trial_whose_ticket_is_gone_is_told_as_one(home: Home) -> None:
    leave(home, [tried(0), tried(1, outcome="missing")])
    assert page_of(home).table("Each trial")[2][1] == "its ticket is gone"


def remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def fill(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


ODD_TRIALS = [
    {"number": 0, "job": job_id(0), "values": {"train.optimizer.lr": "fast", "data.batch_size": [1, {"a": None}]}},
    {"number": 1, "job": "../../etc", "values": {}},
    {"number": 1, "job": "nul \0", "values": {"train.optimizer.lr": -1}},
    {"number": 5, "job": "", "values": {"train.optimizer.lr": 1e308, "train.optimizer.name": True}},
]
ODD_RECORD = {"num_trials": -3, "maximize": ["no/such"], "minimize": [], "fields": ["a", "a", ""], "trials": ODD_TRIALS}
DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("no_trials", remove("trials.json"), "trials.json is missing, or cannot be read"),
    ("torn_trials", fill("trials.json", '{"num_trials": 3, "max'), "trials.json is damaged"),
    ("no_objectives", lambda root: change_record(root, maximize=[]), "trials.json is damaged"),
    ("odd_record", lambda root: durable.replace_json(root / "trials.json", ODD_RECORD), "trial"),
    ("odd_values", lambda root: change_record(root, trials=[ODD_TRIALS[0], *ODD_TRIALS[1:2]]), "its ticket is gone"),
    ("no_spec", remove("spec.yaml"), "spec.yaml cannot be read"),
    ("torn_spec", fill("spec.yaml", "a: [\n&b *c"), "spec.yaml is damaged"),
    (
        "odd_space",
        fill("spec.yaml", "search: {space: {train.optimizer.lr: {from: 5, to: []}, data.batch_size: 3}}"),
        "",
    ),
    ("odd_log", fill("spec.yaml", "search: {space: {train.optimizer.lr: {from: -5, log: true}}}"), "from"),
    ("other_choices", fill("spec.yaml", "search: {space: {train.optimizer.name: [a, b]}}"), "adamw"),
    ("odd_search", fill("spec.yaml", "search: 7"), "Job file"),
    ("no_log", remove("attempt-1.log"), "There is no log"),
    ("no_progress", remove("progress.json"), "sweep"),
]


def change_record(root: Path, **fields: object) -> None:
    durable.replace_json(root / "trials.json", {**(durable.read_json(root / "trials.json") or {}), **fields})


@pytest.mark.parametrize(("damage", "said"), [pytest.param(d, said, id=name) for name, d, said in DAMAGES])
def test_what_is_missing_or_damaged_is_said(damage: Callable[[Path], object], said: str, home: Home) -> None:
    leave(home, some(12))
    damage(home.run(SWEEP).root)
    assert said in page_of(home).text


def test_damaged_figures_of_a_trial_cost_that_trial_its_figures(home: Home) -> None:
    leave(home, some(3))
    home.run(job_id(1)).epochs.write_bytes(b'{"epoch": 1, "step"\n\xff\xfe\n[]\n')
    home.run(job_id(0)).epochs.unlink()
    home.run(job_id(0)).epochs.mkdir()
    assert headline_of(page_of(home))["Trials ended"].startswith("3 of 3")


HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "$\\frac{1}{2}$ $", "-->", "日本語"]
HOSTILE += [
    "nul \x00 \x1b[31mred",
    "{{ 7 * 7 }}",
    "",
    "a" * 300,
    "</pre></table><h1>",
    "two\nlines",
    '" id="x" d="0.1234',
]


def test_hostile_names_and_values_are_only_text(home: Home) -> None:
    fields = [
        f"train.{name}" for name in HOSTILE if len(name) < 90 and "\0" not in name
    ]  # which a job file cannot have
    trials = [
        Tried({field: HOSTILE[(n + i) % len(HOSTILE)] for i, field in enumerate(fields)}, {"test/accuracy": [n / 20]})
        for n in range(12)
    ]
    trials.append(tried(12, accuracy=[], outcome="failed", why=HOSTILE[1]))
    leave(
        home,
        trials,
        space={field: [name for name in HOSTILE if name.isprintable()] for field in fields},
        name=HOSTILE[0],
    )
    page = page_of(home)
    assert page.texts("h1") == [HOSTILE[0]]
    assert HOSTILE[1] in page.text
    assert HOSTILE[9] in page.text
    assert "Of 10 fields, 8 are drawn" in page.text
    assert "$\\frac{1}{2}$ $" in [element.text for element in page.all("text")]
    assert "'<script>alert(1)</script>_best.yaml'" in page.all("pre")[0].text


def test_values_of_any_kind_are_choices(home: Home) -> None:
    choices = [None, True, 1, 1.5, "1", [1, 2], {"name": "crops", "padding": 4}]
    trials = [Tried({"data.augment": value}, {"test/accuracy": [0.5 + n / 100]}) for n, value in enumerate(choices)]
    leave(home, trials, space={"data.augment": choices})
    page = page_of(home)
    assert charts_of(page) == ["History", "test/accuracy against augment"]
    assert "There is one field alone" in page.text
    assert [row[3] for row in page.table("Each trial")[1:]][:3] == ["{name: crops, padding: 4}", "[1, 2]", "1"]


def test_many_trials_and_fields_fit(home: Home) -> None:
    space = {f"train.field{n}": {"from": 0, "to": 1} for n in range(20)}
    values = [{field: (n * 0.618 * (i + 1)) % 1 for i, field in enumerate(space)} for n in range(350)]
    leave(home, [Tried(v, {"test/accuracy": [0.1, v["train.field3"]]}) for v in values], space=space)
    source = render(home, home.run(SWEEP))
    page = check_is_whole_in_itself(source)
    assert len(source) < 2_000_000
    assert "Of 20 fields, 8 are drawn; not " in page.text
    assert "not train.field3" not in page.text, "the most important ones are drawn"
    assert f"the {sweep_charts.MAX_DRAWN} best are drawn" in page.text
    assert len([title for title in charts_of(page) if " against " in title]) == sweep_field_charts.MAX_FIELDS
    assert len(page.table("Each trial")) == sweep_report.PLAIN_ROWS + 1
    assert len(page.table("The other trials")) == 1 + 350 - sweep_report.PLAIN_ROWS


def test_a_trial_that_has_a_page_is_linked_to_from_the_page_in_the_run_alone(home: Home, tmp_path: Path) -> None:
    leave(home, some(2))
    home.run(job_id(1)).report.write_text("a page")
    link = f"../{job_id(1)}/report.html"
    page = page_of(home, links=(link,))
    assert {element.attributes["href"] for element in page.all("a") if "table" in element.inside} == {link}
    write(home, home.run(SWEEP), tmp_path / "elsewhere.html")
    assert link not in (tmp_path / "elsewhere.html").read_text()


def test_writing_it_loads_no_torch(home: Home) -> None:
    """As a worker has it written."""
    leave(home, some(12))
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision", "sklearn", "scipy"], None))  # as if not installed
from pipeline.results import report
sys.exit(report.main())
"""
    subprocess.run([sys.executable, "-c", code, home.root, SWEEP], check=True, timeout=120)
    assert "Importances, a chart" in Page(home.run(SWEEP).report.read_text()).texts("title")


# Commands


@pytest.mark.parametrize("command", ["compare", "export", "predict", "export-model"])
def test_what_is_for_trained_networks_says_that_a_sweep_is_none(
    command: str, home: Home, pipeline: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    leave(home, some(2))
    more = {"predict": ["image.png"], "export-model": ["--format", "safetensors"]}.get(command, [])
    done = pipeline(command, SWEEP, *more)
    said = f"{SWEEP}: is a sweep; each of its trials is a job with an id of its own, as {job_id(0)}"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {said}\n")


def test_the_report_of_a_sweep_is_asked_for_as_any_other(
    home: Home, pipeline: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    leave(home, some(2))
    assert pipeline("report", SWEEP).stdout == f"{home.run(SWEEP).report}\n"


def test_a_job_whose_file_has_no_search_has_the_page_of_a_run(home: Home) -> None:
    frozen.save(home.run("job"), quick_spec())
    assert "Training report" in Page(render(home, home.run("job"))).text


# In a browser


def test_nothing_is_wider_than_a_phone_or_a_sheet(home: Home) -> None:
    """360 pixels on a screen; in print, charts too, for nobody can scroll there."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    leave(home, [*some(12), tried(12, accuracy=[], outcome="failed", why="a long reason " * 20)])
    url = write(home, home.run(SWEEP)).as_uri()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 360, "height": 800})
        complaints: list[str] = []
        page.on("console", lambda line: complaints.append(line.text))
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.set_viewport_size({"width": 688, "height": 900})  # A4 without its margins
        page.emulate_media(media="print")
        everything = "[...document.querySelectorAll('table, pre, svg, p')]"
        widest = f"Math.max(...{everything}.map(element => element.getBoundingClientRect().right))"
        assert page.evaluate(widest) <= 688
        browser.close()
    assert complaints == []


assert set(SPACE) == set(tried(0).values)
