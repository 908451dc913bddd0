"""Which home is meant where none is given: `./var`, or that of the checkout, from wherever in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.home import whereabouts
from pipeline.home.paths import Home

PACKAGE = Path(whereabouts.__file__).parents[1]


def make_home(folder: Path) -> Path:
    (folder / "var" / "queue").mkdir(parents=True)
    return folder / "var"


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def found_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return Home.find().root


def test_outside_of_any_checkout_it_is_var_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_from(make_folder(tmp_path / "a" / "b"), monkeypatch) == tmp_path / "a" / "b" / "var"


@pytest.mark.parametrize("where", ["docs", "docs/pictures", "var/runs/a_run", "jobs"])
def test_from_a_sub_folder_it_is_the_home_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    root = make_home(tmp_path)
    folder = tmp_path / where
    folder.mkdir(parents=True, exist_ok=True)
    assert found_from(folder, monkeypatch) == root


def test_of_two_homes_above_it_is_the_nearer_one_and_var_here_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_home(tmp_path)
    nearer = make_home(tmp_path / "a")
    folder = make_folder(tmp_path / "a" / "b" / "c")
    assert found_from(folder, monkeypatch) == nearer
    assert found_from(folder, monkeypatch) == nearer
    here = make_home(folder)
    assert found_from(folder, monkeypatch) == here


def test_a_folder_that_is_called_var_is_no_home_without_a_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_home(tmp_path)
    (tmp_path / "a" / "var" / "datasets").mkdir(parents=True)
    assert found_from(tmp_path / "a", monkeypatch) == root


def test_somebody_elses_home_above_is_not_taken_for_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    root = make_home(tmp_path)
    folder = make_folder(tmp_path / "a")
    os.chown(root, 12345, 12345)
    assert found_from(folder, monkeypatch) == folder / "var"
    assert found_from(tmp_path, monkeypatch) == root, "but where it is ./var, it is meant"


def test_what_is_given_counts_before_all_that_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_home(tmp_path)
    folder = make_folder(tmp_path / "a")
    monkeypatch.chdir(folder)
    assert Home.find(Path("b")).root == folder / "b"
    monkeypatch.setenv("PIPELINE_HOME", "c")
    assert Home.find().root == folder / "c"
    monkeypatch.setenv("PIPELINE_HOME", "")
    assert Home.find().root == tmp_path / "var"


def found_by_a_copy(checkout: Path, folder: Path) -> Path:
    """What a program finds that is installed from another checkout."""
    program = "from pipeline.home.paths import Home; print(Home.find().root)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())


def test_the_checkout_that_the_program_is_installed_from_needs_no_home_yet(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(PACKAGE, checkout / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    docs = make_folder(checkout / "docs" / "pictures")
    assert found_by_a_copy(checkout, docs) == docs / "var", "a folder with packages and no jobs is no checkout"
    (checkout / "jobs").mkdir()
    assert found_by_a_copy(checkout, docs) == checkout / "var"
    assert found_by_a_copy(checkout, checkout) == checkout / "var"
    link = tmp_path / "link"
    link.symlink_to(checkout)
    assert found_by_a_copy(link, link / "docs") == checkout / "var"
    outside = make_folder(tmp_path / "elsewhere")
    assert found_by_a_copy(checkout, outside) == outside / "var"
