"""The documents name what there is, and what they point at exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.cli import app
from pipeline.jobfile import catalog, reference
from pipeline.jobfile.resources import Resources
from pipeline.jobfile.search import Search
from pipeline.jobfile.spec import Data, Log, Spec
from pipeline.jobfile.train import EarlyStopping, Train

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


def tracked_jobs() -> list[str]:
    """The job files that belong to the project; none where git does not say."""
    command = ["git", "-C", str(ROOT), "ls-files", "jobs/*.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [Path(name).stem for name in done.stdout.split()]


TARGETS = re.findall(r"^([a-z-]+):.*## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.yaml"))
READY = [job for job in JOBS if not (tracked := tracked_jobs()) or job in tracked]  # the others are a user's own
COMMANDS = sorted(app.COMMANDS)
MODULES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "pipeline").rglob("*.py") if path.name != "__init__.py"
)  # of which a network that somebody adds to models/ need not be named: the catalog does


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert re.search(rf"`[^`\n]*\bpipeline {command}\b|^[ $]*pipeline {command}\b", TEXT, re.MULTILINE)


@pytest.mark.parametrize("target", [name for name, _ in TARGETS])
def test_every_make_target_is_documented(target: str) -> None:
    """By itself, or in the paragraph that lists them."""
    assert re.search(rf"\bmake {target}\b|^`make` targets:[^.]*`{target}`", TEXT, re.MULTILINE)


@pytest.mark.parametrize("job", READY)
def test_every_ready_job_is_documented(job: str) -> None:
    assert re.search(rf"\b{job}\b", TEXT)


def test_the_page_of_job_files_is_current() -> None:
    """It is written from the spec, so it has every field and every name of the catalog."""
    assert (ROOT / "docs" / "job-files.md").read_text() == reference.markdown()


def names() -> Iterator[str]:
    """Every field of a job file, and every name that one may choose."""
    models: list[type[BaseModel]] = [Spec, Data, Train, EarlyStopping, Log, Resources, Search]
    for model in models:
        yield from model.model_fields
    groups = (catalog.MODELS, catalog.DATASETS, catalog.AUGMENTATIONS)
    for entries in (*groups, catalog.OPTIMIZERS, catalog.SCHEDULES, catalog.LOSSES):
        yield from entries
        for entry in entries.values():
            yield from entry.options


@pytest.mark.parametrize("name", sorted(set(names())))
def test_every_field_and_choice_of_a_job_file_is_documented(name: str) -> None:
    assert f"`{name}`" in reference.markdown()


@pytest.mark.parametrize("module", MODULES)
def test_the_architecture_page_says_where_every_module_belongs(module: str) -> None:
    """By its path, or by its name beside the path of its package."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    package, name = module.rsplit("/", 1)
    assert f"`{module}`" in text or (f"`{package}/`" in text and (f"`{name}`" in text or package == "pipeline/models"))


def links() -> Iterator[tuple[Path, str]]:
    for page in dict.fromkeys(PAGES):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(
    ("page", "target"), [pytest.param(page, target, id=f"{page.name}-{target}") for page, target in links()]
)
def test_every_link_between_the_pages_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = page.parent / path if path else page
    assert there.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_no_page_has_a_placeholder() -> None:
    assert re.findall(r"@@\w+@@|TODO|FIXME", TEXT) == []


# The Makefile


def make(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A target without making the environment anew, for the one that runs this test is ready."""
    command = [
        shutil.which("make") or "make",
        "--no-print-directory",
        "--old-file=.venv/.installed",
        "MODE=local",
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options)


def test_make_alone_prints_each_target_and_each_job() -> None:
    done = make()
    assert done.returncode == 0
    assert make("help").stdout == done.stdout
    whole = re.sub(r"\n {12,}", " ", done.stdout)
    shown = dict(re.findall(r"^  ([a-z-]+) +(.+)$", whole, re.MULTILINE))
    assert shown == dict(TARGETS)
    assert sorted(done.stdout.rpartition("\njobs: ")[2].split()) == JOBS
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(("arguments", "said"), [((), "which job?"), (("JOB=vgg1",), "there is no job 'vgg1'")])
def test_make_submit_without_a_job_says_which_there_are(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path))
    done = make("submit", *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    assert said in done.stderr
    assert f"jobs: {' '.join(JOBS)}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["cancel", "retry"])
def test_make_targets_that_need_an_id_ask_for_it(target: str) -> None:
    done = make(target)
    assert done.returncode != 0
    assert "which job?" in done.stderr
