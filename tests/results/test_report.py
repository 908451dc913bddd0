"""The page of a run: what it says, that it needs nothing but itself, and that no state of a run is an error."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluations import evaluation
from html_page import Page, check_can_be_read_out, check_is_whole_in_itself
from quick import NOTHING_SHOWN, quick_spec

from pipeline.board import tags
from pipeline.errors import PipelineError, UsageError
from pipeline.home import durable
from pipeline.home.evaluation_record import EvaluationRecord, Mistake
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import End, Progress, Result
from pipeline.jobfile import frozen
from pipeline.queue.job_queue import Queue
from pipeline.results import report_classes
from pipeline.results.report import OLD_TEMPORARY_S, render, write

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d494844520000000100000001080000000"
        "03a7e9b550000000a49444154789c63600000000200014827 14e00000000049454e44ae426082".replace(" ", "")
    )
).decode()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, RunPaths]:
    """A run of three epochs, trained by a worker."""
    home = Home(tmp_path_factory.mktemp("ran"))
    spec = quick_spec("quick", epochs=3, log={"every": 5, **NOTHING_SHOWN, "figures": True})
    job_id = Queue(home).submit(spec)
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "worker", "--drain"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return home, home.run(job_id)


@pytest.fixture
def run(ran: tuple[Home, RunPaths], home: Home) -> RunPaths:
    """A copy of that run, in a home without a queue."""
    return RunPaths(shutil.copytree(ran[1].root, home.run(ran[1].root.name).root))


def evaluated(classes: list[str], *, per_class: int = 20, mistakes: int = 3) -> EvaluationRecord:
    """Each class is taken for the next one a few times."""
    count, wrong = len(classes), per_class // 5 if len(classes) > 1 else 0
    cells = [(n, n, per_class - wrong) for n in range(count)] + [(n, (n + 1) % count, wrong) for n in range(count)]
    found = [Mistake(n, n % count, (n + 1) % count, 0.998, PIXEL) for n in range(mistakes)]
    return evaluation(cells, classes, found)


def leave(run: RunPaths, found: EvaluationRecord) -> None:
    found.write(run.evaluation)


def test_the_page_that_a_worker_leaves_says_what_the_run_holds(ran: tuple[Home, RunPaths]) -> None:
    home, run = ran
    page, end = Page(run.report.read_text()), End.read(home.queue.end(run.root.name))
    found = EvaluationRecord.read(run.evaluation)
    assert end is not None
    assert found is not None
    assert page.texts("h1") == ["quick"]
    assert end.why in page.text
    figures = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert figures["Test accuracy"].startswith(f"{100 * end.metrics['test/accuracy']:.2f} %")
    assert figures["Test loss"].startswith(f"{end.metrics['test/loss']:.4f}")
    assert re.fullmatch(r"[0-9.]+ % epoch [123], chosen on the test set", figures["Best test accuracy"])
    assert (figures["Epochs"], figures["Steps"]) == ("3 of 3", "69 of 69")
    assert [e.text for e in page.all("title") if "svg" in e.inside] == [
        f"{title}, a chart" for title in ("Loss", "Accuracy", "Learning rate", "Gradient norm")
    ]
    header, *rows = page.table("Held-out images by true class")
    assert header[1:] == found.classes
    counts = {(label, predicted): n for label, predicted, n in found.cells}
    assert [[int(cell) for cell in row[1:]] for row in rows] == [
        [counts.get((label, predicted), 0) for predicted in range(10)] for label in range(10)
    ]
    assert [row[:2] for row in page.table("Support:")[1:]] == [
        *([name, str(support)] for name, support in zip(found.classes, found.supports, strict=True)),
        ["mean of the classes", "360"],
    ]
    assert [image.attributes["src"] for image in page.all("img")] == [
        f"data:image/png;base64,{mistake.png}" for mistake in found.mistakes
    ]
    conditions = dict(page.table("What the figures depend on"))
    manifest = json.loads(run.manifest.read_text())
    assert conditions["Dataset fingerprint"] == manifest["dataset"]["sha256"]
    assert (conditions["Batch size"], conditions["Epochs"], conditions["Seed"]) == ("64", "3", "0")
    assert conditions["Optimizer"] == "adamw (lr 0.003, betas 0.9, 0.999, weight decay 0.01)"
    assert dict(page.table("Where attempt 1 ran"))["torch"] == manifest["attempts"][0]["packages"]["torch"]
    assert page.table("Each time that the job was started")[1][4:] == ["succeeded", end.why]
    job_file, log = [element.text for element in page.all("pre")]
    assert job_file == run.spec.read_text()
    assert log.strip().splitlines() == run.log(1).read_text().strip().splitlines()


def test_the_page_needs_nothing_but_itself_and_can_be_read_out(ran: tuple[Home, RunPaths]) -> None:
    source = ran[1].report.read_text()
    check_can_be_read_out(check_is_whole_in_itself(source))
    assert len(source) < 200_000


@pytest.mark.parametrize(
    ("metrics", "accuracy", "loss"),
    [
        (
            {"train/epoch_accuracy": 0.5, "train/epoch_loss": 1.25, "train/accuracy": 1.0, "train/loss": 0.01},
            "50.00 % mean of the latest epoch",
            "1.2500 mean of the latest epoch",
        ),
        ({"train/accuracy": 1.0, "train/loss": 0.01}, "100.00 % mean of the latest steps", "0.0100 mean of the latest"),
        ({}, None, None),
    ],
    ids=["now", "before", "none"],
)
def test_the_figures_of_training_are_those_of_an_epoch(
    run: RunPaths, home: Home, metrics: dict[str, float], accuracy: str | None, loss: str | None
) -> None:
    for path in (run.result, run.progress):
        durable.replace_json(path, {**(durable.read_json(path) or {}), "metrics": metrics})
    page = Page(render(home, run))
    figures = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert figures.get("Train accuracy") == accuracy
    assert (figures.get("Train loss") or "").startswith(loss or "")
    assert ("Train loss" in figures) == (loss is not None)


@pytest.mark.parametrize("metrics", [{}, {"test/top5_accuracy": 0.875}], ids=["few classes", "many classes"])
def test_the_top5_accuracy_is_told_where_it_is_known(run: RunPaths, home: Home, metrics: dict[str, float]) -> None:
    for path in (run.result, run.progress):
        durable.replace_json(path, {**(durable.read_json(path) or {}), "metrics": metrics})
    page = Page(render(home, run))
    figures = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert figures.get("Test top-5 accuracy") == ("87.50 % latest" if metrics else None)


@pytest.mark.parametrize("is_quantized", [False, True])
def test_the_size_of_a_quantized_network_is_told(run: RunPaths, home: Home, is_quantized: bool) -> None:
    metrics = {tags.MODEL_BITS: 1_089_984, tags.MODEL_BITS_IN_FP32: 6_544_704} if is_quantized else {}
    for path in (run.result, run.progress):
        durable.replace_json(path, {**(durable.read_json(path) or {}), "metrics": metrics})
    page = Page(render(home, run))
    figures = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert figures.get("Size") == ("1.09 Mbit of 6.54 Mbit in fp32, 6.0 times smaller" if is_quantized else None)


def test_a_mistake_is_told_in_words(run: RunPaths, home: Home) -> None:
    leave(run, evaluated(["cat", "dog"], mistakes=1))
    page = Page(render(home, run))
    assert page.all("img")[0].attributes["alt"] == (
        "held-out image 0: cat, taken for dog with probability 99.80 %"
    )  # fmt: skip


def test_writing_it_loads_no_torch(run: RunPaths, home: Home) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision"], None))  # as if not installed
from pathlib import Path
from pipeline.results import report
from pipeline.home.paths import Home
home = Home(Path({str(home.root)!r}))
report.write(home, home.run({run.root.name!r}))
"""
    run.report.unlink()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert run.report.exists()


HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "two\nlines", "half \ud800 a pair"]
HOSTILE += ["nul \x00 \x1b[31mred", "{{ 7 * 7 }}", "", "a" * 300, "</pre></table><h1>", "日本語"]


def test_hostile_names_and_lines_are_only_text(run: RunPaths, home: Home) -> None:
    leave(run, evaluated(HOSTILE))
    spec = quick_spec("quick").model_copy(update={"description": HOSTILE[0]})
    frozen.save(run, spec)
    run.log(1).write_bytes(b"\n".join(name.encode(errors="surrogatepass") for name in HOSTILE))
    manifest = {"dataset": {"sha256": HOSTILE[1]}, "attempts": [{"attempt": 1, "code": {"commit": HOSTILE[1]}}]}
    durable.replace_json(run.manifest, manifest)
    Result(1, "failed", HOSTILE[8]).write(run.result)
    page = check_is_whole_in_itself(write(home, run).read_text(encoding="utf-8"))
    check_can_be_read_out(page)
    names = [row[0] for row in page.table("Support:")[1:-1]]
    assert names[:2] == HOSTILE[:2]
    assert names[3:6] == ["half \N{REPLACEMENT CHARACTER} a pair", "nul \N{REPLACEMENT CHARACTER} red", "{{ 7 * 7 }}"]
    assert HOSTILE[0] in page.all("pre")[1].text
    assert HOSTILE[8] in page.text


def remove(name: str) -> Callable[[RunPaths], object]:
    return lambda run: [path.unlink() for path in run.root.glob(name)]


def fill(name: str, text: str) -> Callable[[RunPaths], object]:
    return lambda run: [path.write_text(text) for path in run.root.glob(name)]


def change_evaluation(**fields: object) -> Callable[[RunPaths], object]:
    """As somebody might who edits the file by hand."""
    value = {**evaluation([(0, 0, 3), (0, 1, 1), (1, 1, 2)], ["a", "b"]).to_json(), **fields}
    return lambda run: durable.replace_json(run.evaluation, value)


STATES: list[tuple[str, Callable[[RunPaths], object], str]] = [
    ("no_manifest", remove("manifest.json"), "Not known: it is written into manifest.json"),
    ("damaged_manifest", fill("manifest.json", '{"attempts": 5, "dataset": [], "seed": null}'), "Not known: it is"),
    ("odd_manifest", fill("manifest.json", '{"attempts": [1, {"packages": 3, "code": {"dirty": []}}]}'), "not known"),
    ("no_evaluation", remove("evaluation.json"), "The run has no evaluation.json"),
    ("damaged_evaluation", fill("evaluation.json", '{"epoch": 3'), "evaluation.json is damaged"),
    ("odd_confusion", change_evaluation(confusion=[[1, 2]]), "its confusion matrix does not fit its 2 classes"),
    ("negative_confusion", change_evaluation(confusion=[[1, -1], [0, 1]]), "its confusion matrix has a negative count"),
    ("ragged_confusion", change_evaluation(confusion=[[1], [2, 3]]), "evaluation.json is damaged"),
    ("odd_cells", change_evaluation(cells=[[0, 2, 1]]), "its confusion matrix does not fit its 2 classes"),
    ("too_many_images", change_evaluation(cells=[[0, 1, 5]]), "its confusion matrix does not fit its 2 classes"),
    ("negative_cells", change_evaluation(cells=[[0, 0, 1], [0, 1, -1]]), "its confusion matrix has a negative count"),
    ("odd_supports", change_evaluation(supports=[4]), "its confusion matrix does not fit its 2 classes"),
    ("negative_supports", change_evaluation(supports=[-4, 2]), "its confusion matrix does not fit its 2 classes"),
    ("no_events", remove("events.*"), "There are no curves: the run has no event files any more"),
    ("no_spec", remove("spec.yaml"), "It is missing: spec.yaml cannot be read"),
    ("damaged_spec", fill("spec.yaml", "a: [\n&b *c"), "spec.yaml is damaged"),
    ("no_log", remove("*.log"), "There is no log"),
    ("empty_log", fill("*.log", ""), "attempt-1.log is empty"),
    ("damaged_records", fill("[pr]*.json", "[]"), "still running"),
    ("nothing", remove("*.*"), "There are no curves: it has not taken a step yet"),
]


@pytest.mark.parametrize(("damage", "said"), [pytest.param(d, said, id=name) for name, d, said in STATES])
def test_what_is_missing_or_damaged_is_said(
    damage: Callable[[RunPaths], object], said: str, run: RunPaths, home: Home
) -> None:
    damage(run)
    page = check_is_whole_in_itself(render(home, run))
    check_can_be_read_out(page)
    assert said in page.text


def test_a_damaged_event_file_costs_what_is_damaged_in_it(run: RunPaths, home: Home) -> None:
    [events] = run.events()
    data = events.read_bytes()
    at = data.rindex(b"train/loss")
    events.write_bytes(data[:at] + b"x" + data[at + 1 :])
    page = Page(render(home, run))
    assert "Note:" in page.text
    assert "Loss, a chart" in page.texts("title")


def test_a_job_that_failed_before_its_first_epoch_has_a_page(home: Home) -> None:
    run = home.run("job")
    frozen.save(run, quick_spec("early"))
    Result(1, "failed", "data.path: there is no folder", finished_at="2026-01-01T00:00:01.000Z").write(run.result)
    page = Page(write(home, run).read_text())
    assert "failed: data.path: there is no folder" in page.text
    assert "There are no curves: it ended before its first step." in page.text
    assert "There is no evaluation: the first one comes at the end of the first epoch, and it ended" in page.text


def test_a_running_job_has_a_page_that_says_so(run: RunPaths, home: Home) -> None:
    """Its result is that of the attempt before."""
    Result(1, "interrupted", "asked to stop").write(run.result)
    durable.replace_json(run.progress, Progress(2, epoch=1, epochs=3, step=30, steps=69).to_json())
    page = Page(render(home, run))
    assert page.texts("strong")[0] == "still running"
    assert dict(zip(page.texts("dt"), page.texts("dd"), strict=True))["Steps"] == "30 of 69"


def test_the_recorded_end_of_the_job_counts_for_more_than_what_its_attempt_left(ran: tuple[Home, RunPaths]) -> None:
    home, run = ran
    queue, job_id = Queue(home), run.root.name
    end = End.read(queue.paths.end(job_id))
    before = run.result.read_bytes()
    assert end is not None
    try:
        Result(1, "failed", "of an attempt").write(run.result)
        assert f"succeeded: {end.why}" in Page(render(home, run)).text
    finally:
        run.result.write_bytes(before)


@pytest.mark.parametrize("count", [1, 25, 26, 1000])
def test_any_number_of_classes_fits(count: int, run: RunPaths, home: Home) -> None:
    """A matrix where it can be looked at, else the most frequent confusions; the hardest classes first."""
    leave(run, evaluated([f"class {number}" for number in range(count)]))
    source = render(home, run)
    page = check_is_whole_in_itself(source)
    check_can_be_read_out(page)
    assert len(source) < 1_000_000
    if count <= report_classes.MATRIX_CLASSES:
        assert len(page.table("Held-out images by true class")) == count + 1
    else:
        assert len(page.table(f"Of {count:,} classes")) == report_classes.FREQUENT + 1
    rows = page.table("Support:")[1:-1]
    assert len(rows) == min(count, report_classes.PLAIN_ROWS)
    if count == 1000:
        assert len(page.table("The other classes")) == 1 + count - report_classes.PLAIN_ROWS


def test_confusions_that_were_not_recorded_are_told(run: RunPaths, home: Home) -> None:
    """Of thousands of classes the rarest ones are left out, and the figures of each class count them all the same."""
    found = evaluated([f"class {number}" for number in range(2400)])
    page = Page(render(home, leave_out_some(run, found, 1234)))
    assert "Not recorded: 1,234 rarer confusions." in page.text
    assert len(page.table("Of 2,400 classes")) == report_classes.FREQUENT + 1
    assert page.table("Support:")[-1][:2] == ["mean of the classes", "48,000"]


def leave_out_some(run: RunPaths, found: EvaluationRecord, count: int) -> RunPaths:
    leave(run, dataclasses.replace(found, num_left_out=count))
    return run


# The command


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_command_writes_the_page_and_prints_where(pipeline: Run, run: RunPaths, tmp_path: Path) -> None:
    run.report.unlink()
    done = pipeline("report", "latest")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{run.report}\n", "")
    out = tmp_path / "pages" / "my page.html"
    out.parent.mkdir()
    assert pipeline("report", run.root.name[:8], "--out", out).stdout == f"{out}\n"
    assert out.read_text().startswith("<!doctype html>")
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.usefixtures("run")
def test_the_command_refuses_what_it_cannot_do(pipeline: Run, home: Home, tmp_path: Path) -> None:
    def said(*arguments: str | Path) -> str:
        done = pipeline("report", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    assert "there are no runs here yet" in pipeline("report", "latest", home=Home(tmp_path / "empty")).stderr
    assert "no run's id begins so" in said("nobody")
    assert "is a folder; name a file in it" in said("latest", "--out", tmp_path)
    assert "there is no folder" in said("latest", "--out", tmp_path / "absent" / "page.html")
    assert "is not a regular file" in said("latest", "--out", "/dev/null")
    assert "has not started yet" in said(Queue(home).submit(quick_spec("waits")))


def test_a_page_that_cannot_be_written_leaves_the_old_one(run: RunPaths, home: Home, small_disk: Path) -> None:
    out = small_disk / "page.html"
    out.write_text("old")
    (small_disk / "ballast").write_bytes(bytes(200_000))
    with pytest.raises(PipelineError, match=r"page\.html: cannot be written: No space left on device$"):
        write(home, run, out)
    assert out.read_text() == "old"
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "page.html"]


def test_a_folder_in_the_place_of_the_page_is_left_alone(run: RunPaths, home: Home) -> None:
    run.report.unlink()
    run.report.mkdir()
    with pytest.raises(UsageError, match=r"report\.html: is a folder; remove it"):
        write(home, run)


def test_what_killed_writers_have_left_beside_the_page_is_removed(run: RunPaths, home: Home) -> None:
    """Not what one that is still at it writes, nor what another program has left."""
    old, fresh, other = (run.root / name for name in (".report.html.7.ab.tmp", ".report.html.8.cd.tmp", ".x.tmp"))
    for path in (old, fresh, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (0, time.time() - OLD_TEMPORARY_S - 1))
    write(home, run)
    assert [path.exists() for path in (old, fresh, other)] == [False, True, True]


# In a browser


def test_nothing_is_wider_than_a_phone_or_a_sheet(run: RunPaths, home: Home) -> None:
    """360 pixels on a screen; in print, tables too, for nobody can scroll there."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    leave(run, evaluated([f"long_name_of_class_{number}" for number in range(25)], per_class=5000))
    url = write(home, run).as_uri()
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
