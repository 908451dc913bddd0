"""`make submit` and its fellows: what they hand to the command, in both homes and from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkouts import Checkout, options_of

HOMES = ["local", "docker"]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """With the program, and a home that is not the checkout's."""
    made = Checkout.make(tmp_path / "with a blank")
    made.has_pipeline()
    made.env["PIPELINE_HOME"] = str(tmp_path / "home")
    return made


@pytest.fixture
def stand_in(tmp_path: Path) -> Checkout:
    """Where `pipeline` and `docker` note what they are called with."""
    made = Checkout.make(tmp_path)
    made.has_program(made.venv / "bin" / "pipeline", made.notes("pipeline"))
    board = 'case "$*" in *"port tensorboard 6006") echo "$BOARD";; esac; test -z "$FAILS"'
    made.has_program(made.programs / "docker", made.notes("docker", board))
    made.is_installed()
    return made


def tickets(home: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["spec"] for path in sorted((home / "queue" / "pending").glob("*.json"))]


def words_for_pipeline(checkout: Checkout) -> list[str]:
    """Of the one call of the program, in a container or without."""
    calls = [words for words in checkout.calls() if words[0] == "pipeline" or "cli" in words]
    assert len(calls) == 1
    return calls[0][1:] if calls[0][0] == "pipeline" else options_of(calls[0], after="cli")


# SET


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ("description='a b'", "description", "a b"),
        ('description="it\'s  \\"two\\""', "description", 'it\'s  "two"'),
        ("description='${HOME} `id` $$ \\ %#; & *'", "description", "${HOME} `id` $$ \\ %#; & *"),
        ("description='$(shell id) $x'", "description", "$(shell id) $x"),
        ("train.epochs=3", "train.epochs", 3),
        ("  train.epochs=2   data.batch_size=32 ", "data.batch_size", 32),
        ("train.optimizer='{name: sgd, lr: 0.25}'", "train.optimizer.lr", 0.25),
        ("train.optimizer={name:\\ sgd,\\ lr:\\ 0.5}", "train.optimizer.lr", 0.5),
        ("data.augment=[crop,flip]", "data.augment", ["crop", "flip"]),
    ],
)
@pytest.mark.parametrize("by", ["command line", "environment"])
def test_set_is_taken_as_a_shell_takes_it(
    checkout: Checkout, tmp_path: Path, given: str, field: str, value: object, by: str
) -> None:
    """Of make's own signs nothing is left: a dollar is a dollar."""
    words = ["submit", "JOB=digits"]
    done = checkout.run(*words, f"SET={given}") if by == "command line" else checkout.run(*words, SET=given)
    assert done.returncode == 0, done.stderr
    (found,) = tickets(tmp_path / "home")
    for key in field.split("."):
        found = found[key]
    if isinstance(value, list):
        found = [augmentation["name"] for augmentation in found]
    assert found == value


def test_several_values_are_a_sweep_with_and_without_quotes(checkout: Checkout) -> None:
    done = checkout.run("submit", "JOB=digits", "SET=train.epochs=2,5 description='a b'")
    assert "a sweep of 2 jobs" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("description='a b", "SET: no closing quotation: description='a b"),
        ("train.epochs=2 description=a\\", "SET: no escaped character"),
        ("description=a b", "SET: 'b' is not key=value; put a value with blanks in quotes"),
    ],
)
def test_a_set_that_cannot_be_read_submits_nothing(checkout: Checkout, tmp_path: Path, given: str, said: str) -> None:
    done = checkout.run("submit", "JOB=digits", f"SET={given}")
    assert done.stdout == ""
    assert f"error: {said}" in done.stderr
    assert "submit] Error 2" in done.stderr
    assert tickets(tmp_path / "home") == []


@pytest.mark.parametrize("mode", HOMES)
def test_set_comes_to_the_program_as_it_was_typed(stand_in: Checkout, mode: str) -> None:
    given = "description='a  \"b\" $c' train.epochs=2"
    stand_in.run("submit", "JOB=digits", f"SET={given}", f"MODE={mode}")
    assert words_for_pipeline(stand_in) == ["submit", "jobs/digits.yaml", f"--sets={given}"]


# The verbs


@pytest.mark.parametrize("mode", HOMES)
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("status", "status"),
        ("status WATCH=yes", "status --watch"),
        ("rm JOB=vgg11-3f2a", "rm vgg11-3f2a"),
        ("rm JOB=vgg11-3f2a|digits-0a1b", "rm vgg11-3f2a digits-0a1b"),
        ("pause", "pause"),
        ("resume", "resume"),
        ("prune KEEP=5", "prune --keep 5"),
        ("prune OLDER=30d FAILED=yes", "prune --older 30d --failed"),
        ("prune KEEP=5 OLDER=30d FAILED=yes YES=yes", "prune --keep 5 --older 30d --failed --yes"),
        ("compare JOBS=vgg11|cnn_bn", "compare vgg11 cnn_bn"),
        ("compare LAST=5", "compare --last 5"),
    ],
)
def test_a_verb_hands_on_what_was_typed(stand_in: Checkout, mode: str, typed: str, words: str) -> None:
    done = stand_in.run(*(word.replace("|", " ") for word in typed.split()), f"MODE={mode}")
    assert done.returncode == 0, done.stderr
    assert words_for_pipeline(stand_in) == words.split()


@pytest.mark.parametrize("mode", HOMES)
@pytest.mark.parametrize(("verb", "said"), [("rm", "which job?"), ("compare", 'make compare JOBS="vgg11 cnn_bn"')])
def test_a_verb_that_needs_to_know_which_asks(stand_in: Checkout, mode: str, verb: str, said: str) -> None:
    done = stand_in.run(verb, f"MODE={mode}")
    assert done.returncode != 0
    assert said in done.stderr
    assert [words for words in stand_in.calls() if words[1:] != ["info"]] == []


def test_prune_alone_is_about_images_or_says_what_to_type(stand_in: Checkout) -> None:
    stand_in.run("prune", "YES=yes", "MODE=docker")
    assert [words for words in stand_in.calls() if "cli" in words] == []
    assert ["docker", "builder", "prune", "--force"] in stand_in.calls()
    done = stand_in.run("prune", "YES=yes", "MODE=local")
    assert "make prune KEEP=5" in done.stderr
    assert [words for words in stand_in.calls() if words[0] == "pipeline"] == []


@pytest.mark.parametrize(
    ("board", "said"),
    [
        ("127.0.0.1:7007", "http://127.0.0.1:7007"),
        ("0.0.0.0:6006", "http://localhost:6006"),
        ("", ""),
    ],
)
def test_show_is_told_where_tensorboard_answers(stand_in: Checkout, board: str, said: str) -> None:
    stand_in.run("show", "JOB=vgg11", "MODE=docker", BOARD=board)
    (call,) = (words for words in stand_in.calls() if "cli" in words)
    assert options_of(call, after="-e")[0] == f"PIPELINE_TENSORBOARD_AT={said}"
    assert words_for_pipeline(stand_in) == ["show", "vgg11"]


# From anywhere


@pytest.mark.parametrize("of", ["environment", "command line"])
def test_a_makefile_that_is_named_by_its_path_acts_on_its_checkout(checkout: Checkout, tmp_path: Path, of: str) -> None:
    """With a home that is meant as the caller sees it, even where its folder is called as a target is."""
    here = tmp_path / "some where"
    (here / "submit").mkdir(parents=True)
    del checkout.env["PIPELINE_HOME"]
    words = ["-f", str(checkout.folder / "Makefile"), "submit", "JOB=digits", "SET=description='$a b'"]
    done = (
        checkout.run(*words, folder=here, PIPELINE_HOME="my home")
        if of == "environment"
        else checkout.run(*words, "PIPELINE_HOME=my home", folder=here)
    )
    assert done.returncode == 0, done.stderr
    assert [spec["description"] for spec in tickets(here / "my home")] == ["$a b"]
    assert done.stderr.splitlines()[0] == f"home: {here / 'my home'}, without containers (MODE=local)"
    again = checkout.run("-C", str(checkout.folder), "status", folder=here, PIPELINE_HOME=str(here / "my home"))
    assert done.stdout.strip() in again.stdout


def test_a_makefile_that_is_named_by_its_path_alone_prints_the_targets(checkout: Checkout, tmp_path: Path) -> None:
    there = checkout.run("-f", str(checkout.folder / "Makefile"), folder=tmp_path)
    assert there.stdout == checkout.run().stdout
    assert "jobs: " in there.stdout


def test_an_exit_code_comes_through_a_makefile_that_is_named_by_its_path(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.run("-f", str(checkout.folder / "Makefile"), "submit", "JOB=digits", "SET=a", folder=tmp_path)
    assert done.returncode == 2
    assert "SET: 'a' is not key=value" in done.stderr
