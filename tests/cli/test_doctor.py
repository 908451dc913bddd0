"""doctor tells a good home from a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import Pipeline

from pipeline.home.paths import Home
from pipeline.queue import checks


def test_doctor_tells_a_good_home_from_a_bad_one(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    verdicts = {check.name: check.verdict for check in checks.check_home(home)}
    assert verdicts["home"] == "ok"
    assert verdicts.keys() == {"home", "filesystem", "free disk", "workers"}

    (tmp_path / "file").touch()
    bad = pipeline("doctor", "--json", home=Home(tmp_path / "file" / "x"))
    assert bad.returncode == 1
    found = {check["name"]: check for check in json.loads(bad.stdout)}
    assert found["home"]["verdict"] == "error"
    assert found["home"]["text"].endswith("choose another with --home or PIPELINE_HOME")
    assert {"python", "torch", "processors"} <= found.keys()


@pytest.mark.parametrize(("kind", "verdict"), [("ext4", "ok"), ("nfs4", "error"), ("overlay", "warning")])
def test_doctor_judges_the_filesystem_where_the_queue_lies(
    kind: str, verdict: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the queue is a volume of its own, in a home of another kind."""
    other = "nfs4" if verdict == "ok" else "ext4"
    monkeypatch.setattr(checks, "filesystem_of", lambda path: kind if path == home.queue.root else other)
    assert {check.name: check.verdict for check in checks.check_home(home)}["filesystem"] == verdict


def test_doctor_measures_the_disk_that_runs_are_written_to(home: Home, small_disk: Path) -> None:
    home.root.mkdir()
    home.runs.symlink_to(small_disk)
    (disk,) = (check for check in checks.check_home(home) if check.name == "free disk")
    assert (disk.verdict, disk.text) == ("warning", "0.0 GiB")
