"""Which runs `compare` takes: by ids, by the names of jobs, the latest ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable

import pytest
from cli_runs import JobFile, Pipeline
from quick import NOTHING_SHOWN, quick_spec

from pipeline.errors import UsageError
from pipeline.home import durable
from pipeline.home.ids import by_age
from pipeline.home.paths import Home
from pipeline.jobfile import frozen
from pipeline.queue.job_queue import Queue
from pipeline.results import choice

Chosen = Callable[..., list[str]]


@pytest.fixture
def say() -> list[str]:
    return []


@pytest.fixture
def chosen(home: Home, say: list[str]) -> Chosen:
    def choose(*words: str, last: int | None = None) -> list[str]:
        return [run.root.name for run in choice.choose(home, words, last, say=say.append)]

    return choose


def make_runs(home: Home, *names: str) -> list[str]:
    """A run a name, in this order of submission. Gives the ids, as the queue makes them."""
    ids = [Queue(home).submit(quick_spec(name)) for name in names]
    for job_id, name in zip(ids, names, strict=True):
        frozen.save(home.run(job_id), quick_spec(name))
    assert by_age(ids) == ids
    return ids


def make_run_of_before(home: Home, name: str) -> str:
    job_id = f"{name}-20260101T000000000000Z-aaaaaa"
    frozen.save(home.run(job_id), quick_spec(name))
    return job_id


def make_sweep(home: Home, name: str) -> str:
    """What the run of a sweep is told by; its trials are runs as others are."""
    (job_id,) = make_runs(home, name)
    durable.replace_json(home.run(job_id).trials, {})
    return job_id


def test_a_name_stands_for_its_latest_run_which_is_said(home: Home, chosen: Chosen, say: list[str]) -> None:
    _, latest, other, _ = make_runs(home, "vgg11", "vgg11", "net", "vgg11_bn")
    assert chosen("vgg11", "net") == [latest, other]
    assert say == [f"vgg11: the latest of its 2 runs, {latest}"]


def test_a_name_alone_stands_for_all_its_runs(home: Home, chosen: Chosen, say: list[str]) -> None:
    before = make_run_of_before(home, "vgg11")
    first, _, second = make_runs(home, "vgg11", "vgg11_bn", "vgg11")
    assert chosen("vgg11") == chosen("vgg11", "vgg11") == [before, first, second]
    assert say == []


def test_the_latest_runs_are_the_newest_of_all(home: Home, chosen: Chosen) -> None:
    before = make_run_of_before(home, "z")
    ids = make_runs(home, "c", "a", "b")
    assert chosen(last=2) == ids[1:]
    assert chosen(last=4) == [before, *ids]
    assert chosen(last=100) == [before, *ids], "where there are not so many, it takes what is there"


def test_of_names_and_ids_the_latest_are_taken_from_all_their_runs(home: Home, chosen: Chosen, say: list[str]) -> None:
    vgg, net, _, later_vgg, other = make_runs(home, "vgg", "net", "vgg_bn", "vgg", "other")
    assert chosen("vgg", "net", last=2) == [net, later_vgg]
    assert chosen("net", "vgg", last=9) == [vgg, net, later_vgg]
    assert chosen("vgg", other, last=2) == [later_vgg, other]
    assert chosen("vgg", last=9) == [vgg, later_vgg]
    assert say == []


def test_ids_and_beginnings_of_ids_and_latest_are_taken_as_everywhere(home: Home, chosen: Chosen) -> None:
    first, second, third = make_runs(home, "vgg", "vgg", "net")
    assert chosen(first, "n") == [first, third]
    assert chosen("latest", second, third) == [third, second]


def test_an_id_that_looks_like_the_name_of_another_job_is_the_id(home: Home, chosen: Chosen) -> None:
    (first,) = make_runs(home, "vgg")
    second, third = make_runs(home, first[:60], first[:60])
    assert chosen(first) == [first]
    assert chosen(first, third) == [first, third]
    assert {second, third} > {chosen(third)[0]}


def test_sweeps_are_no_runs_and_trials_are(home: Home, chosen: Chosen) -> None:
    sweep = make_sweep(home, "tune")
    trials = make_runs(home, "tune-0", "tune-1")
    later = make_sweep(home, "tune")
    assert chosen(last=5) == trials
    assert chosen("tune-0", "tune-1") == trials
    for words in ([later], ["tune-0", sweep]):
        with pytest.raises(UsageError, match="is a sweep; each of its trials is a job"):
            chosen(*words)
    (plain,) = make_runs(home, "tune")
    assert chosen("tune") == chosen("tune", last=5) == [plain]
    assert chosen("tune", "tune-0") == [plain, trials[0]]


def test_what_is_no_run_does_not_count(home: Home, chosen: Chosen, say: list[str]) -> None:
    removed, _, first, second = make_runs(home, "net", "net", "net", "vgg")
    shutil.rmtree(home.run(removed).root)
    home.run(_).spec.unlink()
    (home.runs / "notes.txt").touch()
    assert chosen("net", "vgg") == [first, second]
    assert chosen(last=9) == [first, second]
    assert say == []


@pytest.mark.parametrize("last", [None, 3])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("vg11", "vg11: no run's id begins so; the latest is {latest}; did you mean vgg11?"),
        ("unlike", "unlike: no run's id begins so; the latest is {latest}"),
        ("vgg11-fff0", "vgg11-fff0: no run's id begins so; the latest is {latest}"),
        ("waits", "waits-.*: has not started yet, so there is no run to look at"),
        ("", "the id is empty"),
        ("x" * 300, "x: no run's id begins so"),
        ("../vgg11", "no run's id begins so; the latest is {latest}; did you mean vgg11?"),
    ],
)
def test_a_word_that_means_no_run_is_told(home: Home, chosen: Chosen, wrong: str, said: str, last: int | None) -> None:
    ids = make_runs(home, "vgg11", "vgg11")
    Queue(home).submit(quick_spec("waits"))
    with pytest.raises(UsageError) as caught:
        chosen("vgg11", wrong, last=last)
    expected = said.format(latest=ids[-1])
    assert str(caught.value).endswith(expected) or re.search(expected, str(caught.value))
    assert ("did you mean" in str(caught.value)) == ("did you mean" in said)


def test_nothing_given_and_nothing_there(chosen: Chosen) -> None:
    with pytest.raises(UsageError, match="which runs\\? give ids or names of jobs, or --last 5"):
        chosen()
    with pytest.raises(UsageError, match="there are no runs here yet"):
        chosen(last=5)


def test_the_command_compares_runs_of_the_foreground_as_any_other(pipeline: Pipeline, job_file: JobFile) -> None:
    quick = quick_spec("quick").model_dump(mode="json")
    text = {key: quick[key] for key in ("name", "model", "data", "resources")}
    file = job_file(text=json.dumps(text | {"log": NOTHING_SHOWN, "train": {"epochs": 1, "precision": "fp32"}}))
    for seed in (1, 2):
        done = pipeline("run", file, "--set", f"train.seed={seed}")
        assert done.returncode == 0, done.stderr
    for arguments in (["--last", "5"], ["quick"]):
        found = json.loads(pipeline("compare", *arguments, "--json").stdout)
        assert found["differing"] == ["train.seed"]
        assert sorted(run["differing"]["train.seed"] for run in found["runs"]) == [1, 2]
        assert found["same"]["environment.precision"] == "fp32"
    wrong = pipeline("compare", "--last", "1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--last" in wrong.stderr
