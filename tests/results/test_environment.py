"""`compare` by where runs ran: precision, device, commit and versions, from the manifests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_runs import Pipeline
from in_process import digits, make_spec  # noqa: F401 - a fixture
from quick import quick_spec

from pipeline.board.writer import Board
from pipeline.data.dataset import Dataset
from pipeline.home import durable
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import frozen
from pipeline.results.compare import Comparison, compare, lines, to_json
from pipeline.results.plot import legend
from pipeline.results.runs import find_all
from pipeline.training import device, manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


def make_run(home: Home, name: str, **sections: Any) -> RunPaths:
    run = home.run(f"{name}-20260101T000000000000Z-aaaaaa")
    frozen.save(run, quick_spec(name, **sections))
    with Board(run.root, first_step=0) as board:
        board.scalars(10, {"test/accuracy": 0.5})
    return run


def entry(**changes: Any) -> dict[str, Any]:
    """What an attempt has in the manifest, as training writes it."""
    given: dict[str, Any] = {
        "code": {"version": "0.1.0", "commit": COMMIT, "dirty": False},
        "python": "3.11.7",
        "packages": {"torch": "2.14.0"},
        "cuda": None,
        "node": "one",
        "image_digest": None,
        "computes": {"device": "cpu", "name": "AMD EPYC", "uuid": None, "precision": "fp32", "threads": 2},
    }
    return {
        **given,
        **{key: {**given[key], **value} if isinstance(value, dict) else value for key, value in changes.items()},
    }


def write(run: RunPaths, *entries: Any, **more: Any) -> None:
    durable.replace_json(run.manifest, {"attempts": list(entries), **more})


def compared(home: Home, *names: str, said: list[str] | None = None) -> Comparison:
    return compare(home, find_all(home, list(names)), "test/accuracy", say=([] if said is None else said).append)


def values(comparison: Comparison, field: str) -> list[Any]:
    found: dict[str, Any] = json.loads(json.dumps(to_json(comparison)))
    return [run["differing"][field] for run in found["runs"]]


def test_what_trainings_write_is_compared_field_by_field(
    home: Home,
    digits: Dataset,
) -> None:
    """`auto` and what it came to are two fields; a precision that was asked for is both."""
    resolved = {}
    for name in ("auto", "fp32", "bf16"):
        run = make_run(home, name, train={"precision": name})
        spec = make_spec(train={"precision": name, "deterministic": False})
        setting = device.choose(spec)
        manifest.write(run, spec, digits, setting, job_id=run.root.name, attempt=1)
        resolved[name] = setting.precision
    assert (resolved["fp32"], resolved["bf16"]) == ("fp32", "bf16")
    all_three = compared(home, *resolved)
    assert all_three.differing == ["train.precision", "environment.precision"]
    assert values(all_three, "environment.precision") == list(resolved.values())
    same = {"environment.torch", "environment.threads", "environment.device", "environment.dataset"}
    assert same <= all_three.same.keys()

    alike = compared(home, "auto", resolved["auto"])
    assert alike.differing == ["train.precision"]
    assert alike.same["environment.precision"] == resolved["auto"]
    labels = {run.id: run.id for run in alike.runs}
    assert f"environment.precision {resolved['auto']}, " in lines(alike, labels, width=200)[-1]


def test_one_job_file_and_two_environments(home: Home, pipeline: Pipeline) -> None:
    there, here = make_run(home, "a"), make_run(home, "b")
    gpu = {"device": "cuda:0", "name": "NVIDIA H200", "precision": "bf16", "threads": 8, "onednn": True}
    write(there, entry(computes=gpu, code={"dirty": True}, packages={"torch": "2.15.0"}), dataset={"sha256": "a" * 64})
    write(here, entry(node="elsewhere"), dataset={"sha256": "b" * 64})
    found = compared(home, "a", "b")
    table = {name: values(found, name) for name in found.differing}
    assert table == {
        "environment.precision": ["bf16", "fp32"],
        "environment.device": ["NVIDIA H200", "AMD EPYC"],
        "environment.commit": [f"{COMMIT[:10]}-dirty", COMMIT[:10]],
        "environment.torch": ["2.15.0", "2.14.0"],
        "environment.dataset": ["a" * 10, "b" * 10],
    }, "what counts on a CPU alone is no difference of a GPU, and a host's name is none at all"
    assert legend(found, found.runs, {})[0] == (
        f"a: environment.precision bf16, environment.device NVIDIA H200, environment.commit {COMMIT[:10]}-dirty, ..."
    )
    for width in (80, 120, 200):
        done = pipeline("compare", "a", "b", env={**os.environ, "COLUMNS": str(width)})
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= width
        assert all(text in done.stdout for name in table for text in [name, *table[name]])
    assert "2 of their environments" in done.stdout


def test_what_a_run_of_before_does_not_say_is_no_difference(home: Home, pipeline: Pipeline) -> None:
    for name in ("a", "b", "old", "older"):
        make_run(home, name)
    runs = find_all(home, ["a", "b", "old"])
    write(runs[0], entry())
    write(runs[1], entry(computes={"precision": "bf16"}))
    write(runs[2], {"code": {"commit": COMMIT}, "computes": {"precision": "fp32"}})
    assert compared(home, "a", "old", "older").differing == ["name"]
    assert "environment.commit" not in compared(home, "a", "older").same
    assert set(compared(home, "a", "old").same) > {"environment.commit", "environment.precision"}
    found = compared(home, "a", "b", "old", "older")
    assert found.differing == ["environment.precision"]
    assert values(found, "environment.precision") == ["fp32", "bf16", "fp32", None]
    shown = pipeline("compare", "a", "b", "older", env={**os.environ, "COLUMNS": "200"}).stdout.splitlines()
    assert [line.split()[-1] for line in shown[:4]] == ["environment.precision", "fp32", "bf16", "-"]


def test_attempts_that_ran_in_different_environments_are_told_and_the_latest_counts(home: Home) -> None:
    moved, stayed = make_run(home, "moved"), make_run(home, "stayed")
    old = entry(code={"commit": OTHER}, computes={"threads": 1})
    write(moved, old, entry(computes={"threads": 4}), entry())
    write(stayed, entry(), entry(node="elsewhere"))
    said: list[str] = []
    assert compared(home, "moved", "stayed", said=said).differing == ["name"]
    assert said == [
        f"{moved.root.name}: its attempts ran in different environments, and the latest counts: "
        f"environment.commit was {OTHER[:10]}, environment.threads was 1 and 4"
    ]


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "5", '{"attempts": 5}', '{"attempts": [5]}', '{"attempts": [{"code": 5, "packages": []}]}'),
        '{"attempts": [{"computes": {"precision": ["fp32"], "name": {}}, "code": {"commit": 5}}], "dataset": "a"}',
    ],
)
def test_a_damaged_manifest_stops_nothing(home: Home, content: str, tmp_path: Path) -> None:
    damaged, whole = make_run(home, "a"), make_run(home, "b")
    damaged.manifest.write_text(content)
    write(whole, entry())
    found = compared(home, "a", "b")
    assert found.differing == ["name"]
    assert tmp_path in home.root.parents
    assert not [name for name in found.same if name.startswith("environment.")]
