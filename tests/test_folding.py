"""Text that is broken at words."""

from __future__ import annotations

import pytest

from pipeline.folding import cut, fold, pad, table_lines, width

WORDS = "a word, some more, and `make submit JOB=digits` with 12.5 % of it"


@pytest.mark.parametrize("room", range(26, 70))
def test_lines_fit_and_lose_nothing(room: int) -> None:
    lines = fold(WORDS, room, hang=2)
    assert max(map(width, lines)) <= room
    assert " ".join(line.strip() for line in lines) == WORDS
    assert all(line.startswith("  ") for line in lines[1:])
    assert any("`make submit JOB=digits`" in line for line in lines), "a command is not broken"
    assert any("12.5 %" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "room", "lines"),
    [
        ("loss 0.5  accuracy 90 %  3 s left", 20, ["loss 0.5", "accuracy 90 %", "3 s left"]),
        ("loss 0.5  accuracy 90 %  3 s left", 24, ["loss 0.5  accuracy 90 %", "3 s left"]),
        (
            "in /a/very/long/path/that/fits/nowhere it lies",
            12,
            ["in", "/a/very/long/path/that/fits/nowhere", "it lies"],
        ),
        ("    File x, line 3", 14, ["    File x,", "    line 3"]),
        ("語" * 5 + " " + "語" * 5, 12, ["語" * 5, "語" * 5]),
        ("an odd ` among words", 10, ["an odd `", "among", "words"]),
        ("", 10, [""]),
    ],
)
def test_text_is_broken_at_wide_gaps_first_and_never_in_a_word(text: str, room: int, lines: list[str]) -> None:
    assert fold(text, room) == lines


def test_a_text_is_cut_behind_a_word() -> None:
    assert cut("the loss is nan at step 3", 20) == "the loss is nan at…"
    assert cut("x" * 30, 10) == "x" * 9 + "…"
    assert cut("short", 10) == "short"
    assert cut("long", 0) == ""
    assert pad("語", 4) == "語  "


ROWS = [("RUN", "OPTIMIZER", "NOTE"), ("one", "adamw", "a note of some words"), ("two", "sgd", "")]


def test_a_table_breaks_its_last_column_first_then_stands_in_bands() -> None:
    assert table_lines(ROWS, 36) == [
        "RUN  OPTIMIZER  NOTE",
        "one  adamw      a note of some words",
        "two  sgd",
    ]
    assert table_lines([(*row[:2], row[2] * 2) for row in ROWS], 40)[1:3] == [
        "one  adamw      a note of some wordsa",
        "                note of some words",
    ]
    assert table_lines(ROWS, 22) == [
        "RUN  OPTIMIZER",
        "  NOTE",
        "one  adamw",
        "  a note of some words",
        "two  sgd",
    ]
