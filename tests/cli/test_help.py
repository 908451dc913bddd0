"""The help of every command, as a terminal shows it."""

from __future__ import annotations

import re
import sys

import pytest
from terminals import run_on_terminal
from typer.testing import CliRunner

from pipeline.cli.app import COMMANDS, make_app


def on_terminal(words: list[str], columns: int) -> list[str]:
    command = [sys.executable, "-m", "pipeline.cli", *words, "--help"]
    return run_on_terminal(command, columns=columns, environment={"TERM": "xterm"}).replace("\r\n", "\n").splitlines()


def in_process(words: list[str], columns: int) -> list[str]:
    environment = {"COLUMNS": str(columns)}
    shown = CliRunner().invoke(make_app(words), [*words, "--help"], env=environment, prog_name="python -m pipeline.cli")
    return shown.output.splitlines()


@pytest.mark.parametrize("command", ["", *sorted(COMMANDS)])
def test_help_fits_a_terminal_and_no_word_of_it_is_cut(command: str) -> None:
    words = [command] if command else []
    told = " ".join(" ".join(in_process(words, 100)).split())
    assert "..." not in re.sub(r"\b[A-Z]+\.\.\.|\[[A-Z]*\]\.\.\.", "", told), "nothing is left out"
    assert re.search(r"<(str|int|path|list|float)\b|\{|<=x", told) is None, "kinds are told in words"
    for columns, lines in ((60, in_process(words, 60)), (80, on_terminal(words, 80)), (120, in_process(words, 120))):
        assert max(map(len, lines)) <= columns
        assert sorted(" ".join(lines).split()) == sorted(told.split()), "the same words, whole"


def test_help_says_what_may_be_given_and_what_is_taken_else() -> None:
    text = " ".join(" ".join(on_terminal(["worker"], 80)).split())
    assert "--slots N Jobs that run, or wait in a cluster, at the same time. [default: 1; 1 to 1000]" in text
    lines = on_terminal(["status"], 60)
    assert "  --state <pending|running|done|failed|cancelled>" in lines
    assert on_terminal(["submit"], 80)[0].endswith("submit [OPTIONS] FILE...")


def test_wrong_usage_is_told_in_whole_words() -> None:
    command = [sys.executable, "-m", "pipeline.cli", "status", "--state", "wrong"]
    lines = run_on_terminal(command, columns=60, environment={"TERM": "xterm"}).replace("\r\n", "\n").splitlines()
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()).endswith("'pending', 'running', 'done', 'failed', 'cancelled'.")
