"""The manifest: what would have to be the same for the same result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quick import quick_spec

import pipeline
from pipeline.home.paths import Home
from pipeline.jobfile import frozen
from pipeline.stop import Stop
from pipeline.training import manifest
from pipeline.training.attempt import Attempt


def test_the_manifest_says_what_a_repetition_would_need(home: Home) -> None:
    spec = quick_spec()
    frozen.save(home.run("job"), spec)
    Attempt(home, "job", 1, Stop(), str).execute()
    written = json.loads(home.run("job").manifest.read_text())
    assert written["spec_sha256"] == manifest.spec_hash(spec)
    assert written["seed"] == 0
    assert (written["dataset"]["train"], written["dataset"]["test"]) == (1437, 360)
    assert len(written["dataset"]["sha256"]) == 64
    (entry,) = written["attempts"]
    assert set(manifest.PACKAGES) == set(entry["packages"])
    assert entry["computes"]["device"]
    assert {"version", "commit", "dirty"} == set(entry["code"])


@pytest.mark.parametrize(
    ("revision", "commit", "dirty"), [("4f1c2a", "4f1c2a", False), ("4f1c2a-dirty", "4f1c2a", True)]
)
def test_an_image_says_from_which_commit_it_was_built(
    revision: str, commit: str, dirty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_REVISION", revision)
    code = manifest.environment()["code"]
    assert (code["commit"], code["dirty"]) == (commit, dirty)


def test_what_the_environment_leaves_empty_is_as_if_it_were_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose sets a variable that has no value to an empty one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    without = manifest.environment()
    assert without["image_digest"] is without["visible_gpus"] is None
    monkeypatch.setenv("PIPELINE_IMAGE_DIGEST", "")
    monkeypatch.setenv("PIPELINE_REVISION", "")
    assert manifest.environment() == without


def test_the_manifest_names_the_image_and_the_gpus_that_could_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_IMAGE_DIGEST", "sha256:0123")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    environment = manifest.environment()
    assert (environment["image_digest"], environment["visible_gpus"]) == ("sha256:0123", "GPU-a")


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout of this package's code."""
    folder = tmp_path / "checkout"
    code = Path(pipeline.__file__).parent
    shutil.copytree(code, folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "all of it")
    return folder


def code_of_a_run_from(checkout: Path, home: Home) -> dict[str, Any]:
    """What the manifest says of the code, after an attempt as a worker starts it."""
    run = home.run("job")
    shutil.rmtree(run.root, ignore_errors=True)
    frozen.save(run, quick_spec())
    command = [sys.executable, "-P", "-m", "pipeline.training.attempt", str(home.root), "job", "1"]
    env = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, env=env, capture_output=True, check=True, timeout=120)
    (entry,) = json.loads(run.manifest.read_text())["attempts"]
    code: dict[str, Any] = entry["code"]
    return code


def test_a_run_from_a_checkout_names_its_commit_and_whether_files_differ(home: Home, checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_of_a_run_from(checkout, home) == {"version": pipeline.__version__, "commit": commit, "dirty": False}
    with (checkout / "pipeline" / "wording.py").open("a") as file:
        file.write("# changed\n")
    assert code_of_a_run_from(checkout, home) == {"version": pipeline.__version__, "commit": commit, "dirty": True}


def test_code_in_somebody_else_s_checkout_has_no_commit(home: Home, checkout: Path) -> None:
    """As an environment that lies in a checkout of the user's own."""
    inside = checkout / "venv" / "site-packages"
    inside.mkdir(parents=True)
    (checkout / "pipeline").rename(inside / "pipeline")
    assert code_of_a_run_from(inside, home) == {"version": pipeline.__version__, "commit": None, "dirty": None}
