"""A home that is made is told of, and none is made by commands that only look; they say where they looked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline

from pipeline.home.paths import Home

QUICK = """\
name: quick
model: {name: cnn_bn}
data: {name: digits, batch_size: 256}
train: {epochs: 1}
log: {histograms: false, images: false, graph: false, figures: false, pr_curves: false, embeddings: false}
resources: {device: cpu}
"""


def told(home: Home) -> str:
    return f"makes a new home: {home.root}"


def test_submit_tells_of_it_once_and_never_where_it_is_to_be_quiet(
    pipeline: Pipeline, job_file: JobFile, home: Home, tmp_path: Path
) -> None:
    first = pipeline("submit", job_file())
    assert first.stderr.splitlines()[0] == told(home)
    assert told(home) not in pipeline("submit", job_file()).stderr
    other = Home(tmp_path / "other")
    quiet = pipeline("submit", "--quiet", job_file(), home=other)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert other.queue.root.is_dir()


def test_a_wrong_job_file_makes_no_home(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    done = pipeline("submit", job_file("unknown: 1\n"))
    assert done.returncode == 2
    assert told(home) not in done.stderr
    assert not home.root.exists()


@pytest.mark.parametrize("arguments", [("worker", "--drain"), ("doctor",)], ids=lambda arguments: arguments[0])
def test_others_that_make_one_tell_of_it(pipeline: Pipeline, home: Home, arguments: Sequence[str]) -> None:
    assert pipeline(*arguments).stderr.splitlines()[0] == told(home)
    assert told(home) not in pipeline(*arguments).stderr


def test_a_run_in_the_foreground_tells_of_it(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    done = pipeline("run", job_file(text=QUICK))
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, told(home))


@pytest.mark.parametrize(
    "arguments",
    [
        *(("status",), ("status", "--json"), ("show", "latest"), ("logs", "latest"), ("cancel", "latest"), ("down",)),
        *(("retry", "latest"), ("best", "latest"), ("export", "latest"), ("compare", "a", "b"), ("compare", "a")),
        *(("compare", "--last", "2"), ("report", "latest"), ("predict", "latest", "a.png"), ("health",)),
        ("export-model", "latest", "--format", "safetensors"),
    ],
    ids=" ".join,
)
def test_commands_that_only_look_make_none_and_say_where_they_looked(
    pipeline: Pipeline, home: Home, arguments: Sequence[str]
) -> None:
    done = pipeline(*arguments)
    assert not home.root.exists()
    assert "makes a new home" not in done.stderr
    assert str(home.root) in done.stderr or "--json" in arguments


def test_jobs_are_submitted_and_written_from_a_sub_folder_as_from_the_checkout(tmp_path: Path) -> None:
    """Paths of job files are relative to the current folder, whatever home is found."""
    (tmp_path / "var" / "queue").mkdir(parents=True)
    (tmp_path / "modules").mkdir()
    docs = tmp_path / "docs"
    docs.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        return subprocess.run(command, cwd=docs, capture_output=True, text=True, check=False, env=dict(os.environ))

    written = run("new", "wide_net")
    assert written.stdout.splitlines() == [f"{tmp_path}/modules/wide_net.py", f"{tmp_path}/jobs/wide_net.yaml"]
    assert f"pipeline submit {tmp_path}/jobs/wide_net.yaml" in written.stderr
    submitted = run("submit", "../jobs/wide_net.yaml")
    assert (submitted.returncode, submitted.stderr.count("makes a new home")) == (0, 0), submitted.stderr
    assert run("show", "latest").stdout.splitlines()[0].split() == ["job", submitted.stdout.strip()]
    assert list(docs.iterdir()) == []
    again = run("new", "wide_net")
    assert again.returncode == 2
