"""new: a model of one's own that trains at once, and nothing that is there already is written over."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import Pipeline
from quick import NOTHING_SHOWN

from pipeline.home.paths import Home


def test_what_it_writes_is_valid_and_trains_well_at_once(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    done = pipeline("new", "wide_net", cwd=tmp_path)
    assert done.stdout.splitlines() == ["home/modules/wide_net.py", "jobs/wide_net.yaml"]
    assert "make submit JOB=wide_net" in done.stderr
    assert pipeline("validate", "jobs/wide_net.yaml", cwd=tmp_path).stdout == "jobs/wide_net.yaml: ok\n"
    plain = [part for kind in NOTHING_SHOWN for part in ("--set", f"log.{kind}=false")]
    done = pipeline("run", "jobs/wide_net.yaml", *plain, "--set", "model.width=16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("test accuracy ")[2].split()[0]) > 95
    assert [path.name for path in home.runs.glob("*/modules/*")] == ["wide_net.py"]


@pytest.mark.parametrize("name", ["home/modules/wide_net.py", "jobs/wide_net.yaml"])
def test_it_writes_nothing_where_one_of_the_files_is_there(pipeline: Pipeline, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("mine")
    done = pipeline("new", "wide_net", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is such a file already; give another name, or remove it" in done.stderr
    assert [path.name for path in tmp_path.rglob("wide_net*")] == [Path(name).name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WideNet", "'WideNet' cannot be a module's name; write it as wide_net"),
        ("wide-net", "'wide-net' cannot be a module's name; write it as wide_net"),
        ("../wide", "'../wide' cannot be a module's name; write it as wide"),
        ("class", "'class' cannot be a module's name; write it as my_class"),
        ("3d", "'3d' cannot be a module's name; write it as my_3d"),
        ("", "'' cannot be a module's name; write it as wide_net"),
        ("random", "random is a module that others import; call yours something else"),
    ],
)
def test_a_name_that_no_module_can_have(pipeline: Pipeline, tmp_path: Path, name: str, said: str) -> None:
    done = pipeline("new", name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_checkout_has_its_modules_beside_its_home(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    assert pipeline("new", "wide_net", cwd=tmp_path).stdout.splitlines()[0] == "modules/wide_net.py"
