"""The two images: who runs in them, what is in them, what makes them anew."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine import ROOT, docker, engine, images, out_of  # noqa: F401 - two are fixtures

import pipeline

pytestmark = pytest.mark.containers
NAMES = ("worker", "tensorboard")
MOST_MB_OF_TENSORBOARD = 600


def inspected(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def inside(image: str, program: str, *arguments: str) -> str:
    return docker("run", "--rm", "--network", "none", "--entrypoint", program, image, *arguments)


@pytest.mark.parametrize("name", NAMES)
def test_labels_say_what_it_is_and_what_it_was_built_from(images: dict[str, str], name: str) -> None:
    labels = inspected(images[name])["Config"]["Labels"]
    is_dirty = out_of(["git", "status", "--porcelain", "--", "pipeline"])
    revision = out_of(["git", "rev-parse", "HEAD"]) + ("-dirty" if is_dirty else "")
    given = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
    assert given["title"] == f"pipeline-{name}"
    assert given["version"] == pipeline.__version__
    assert given["revision"] == revision
    assert given["licenses"] == "MIT"


def test_the_user_is_the_same_in_both_and_not_root(images: dict[str, str]) -> None:
    assert {inside(image, "id", "-un") for image in images.values()} == {"pipeline"}
    assert {inspected(image)["Config"]["User"] for image in images.values()} == {inside(images["worker"], "id", "-u")}
    ids = {inside(image, "id", "-u") + ":" + inside(image, "id", "-g") for image in images.values()}
    assert len(ids) == 1
    assert "0" not in ids.pop().split(":")


@pytest.mark.parametrize("name", NAMES)
def test_the_home_is_the_users(images: dict[str, str], name: str) -> None:
    owners = inside(
        images[name], "stat", "-c", "%U", *(f"/var/lib/pipeline/{f}" for f in ("queue", "runs", "datasets"))
    )
    assert set(owners.split()) == {"pipeline"}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_the_program_was_copied(images: dict[str, str], name: str) -> None:
    """No job file, no run, no git folder, no lock, no secret."""
    listing = inside(images[name], "sh", "-c", "find /srv /tmp /src /app -type f 2>/dev/null; true")
    assert listing == ""
    code = "import pathlib, pipeline; [print(p.name) for p in pathlib.Path(pipeline.__file__).parent.rglob('*.py')]"
    installed = sorted(inside(images[name], "python", "-c", code).split())
    assert installed == sorted(path.name for path in (ROOT / "pipeline").rglob("*.py"))


def test_tensorboards_image_is_small_and_has_no_torch(images: dict[str, str]) -> None:
    assert inspected(images["tensorboard"])["Size"] < MOST_MB_OF_TENSORBOARD * 10**6
    found = inside(images["tensorboard"], "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))")
    assert found == "None"
    predict = ["predict", "latest", "an image.png"]
    said = docker("run", "--rm", "--network", "none", images["tensorboard"], *predict, fails=True)
    assert said.startswith("error: this needs torch")
    assert said.endswith("docker compose run --rm worker predict latest 'an image.png'")


def test_cuda_comes_with_the_wheels_and_not_twice(images: dict[str, str]) -> None:
    code = "import torch, pathlib; print(torch.version.cuda, *pathlib.Path('/').glob('usr/local/cuda*'))"
    assert inside(images["worker"], "python", "-c", code).split()[1:] == []
    assert inside(images["worker"], "python", "-c", "import torch; print(torch.version.cuda)")[0].isdigit()


def test_the_worker_asks_nvidias_runtime_for_what_it_needs(images: dict[str, str]) -> None:
    environment = inspected(images["worker"])["Config"]["Env"]
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(environment)


@pytest.mark.parametrize("name", NAMES)
def test_the_installed_packages_are_those_of_the_lock(images: dict[str, str], name: str) -> None:
    frozen = json.loads(
        inside(images[name], "/opt/venv/bin/pip", "list", "--format", "json", "--disable-pip-version-check")
    )
    lock = (ROOT / "docker" / f"{name}.lock").read_text()
    ours = [p for p in frozen if p["name"] not in ("pip", "pipeline")]
    assert [
        p for p in ours if f"{p['name'].lower().replace('_', '-')}=={p['version'].split('+')[0]} " not in lock
    ] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_source_installs_no_dependency_again(images: dict[str, str], name: str, tmp_path: Path) -> None:  # noqa: ARG001
    for part in ("pipeline", "docker"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for part in (".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tmp_path / part)
    changed = tmp_path / "pipeline" / "errors.py"
    mark = f"# changed {secrets.token_hex(8)}"  # nobody has built that before
    changed.write_text(f"{changed.read_text()}{mark}\n")
    command = ["docker", "build", "--progress", "plain", "--file", str(tmp_path / "docker" / f"{name}.Dockerfile")]
    image = ["--tag", f"pipeline-{name}:changed", str(tmp_path)]
    built = subprocess.run([*command, *image], capture_output=True, text=True, timeout=1500, check=True).stderr
    try:
        steps = {line.split()[0]: line for line in built.splitlines() if " RUN " in line}
        cached = {line.split()[0] for line in built.splitlines() if line.endswith(" CACHED")}
        assert [step in cached for step, line in steps.items() if "--require-hashes" in line] == [True]
        assert [step in cached for step, line in steps.items() if "target=/src" in line] == [False]
        source = "import inspect, pipeline.errors as e; print(inspect.getsource(e))"
        assert inside(f"pipeline-{name}:changed", "python", "-c", source).endswith(mark)
    finally:
        subprocess.run(["docker", "image", "rm", f"pipeline-{name}:changed"], capture_output=True, check=False)
