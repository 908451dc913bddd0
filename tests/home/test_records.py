"""Records read back as they were written; anything else reads as None."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import classification_report

from pipeline.home import durable
from pipeline.home.records import FOLDER_OF, Attempts, End, Evaluated, Mistake, Progress, Result, now

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
EVALUATED = set(Evaluated.__dataclass_fields__)
FIELDS = sorted(
    {*Result.__dataclass_fields__, *End.__dataclass_fields__, *Progress.__dataclass_fields__, "entries"} | EVALUATED
)


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    result = Result(3, "failed", "the loss is nan", 4, 9, 120, {"test/loss": 0.25}, now(), now())
    result.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == result


def test_numbers_that_json_does_not_have_are_left_out(tmp_path: Path) -> None:
    result = Result(1, "failed", "diverged", metrics={"train/loss": math.nan, "test/loss": math.inf, "a": 1.0})
    result.write(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == {"a": 1.0}


@pytest.mark.parametrize("outcome", ["interrupted", "unknown", "", None])
def test_an_attempt_that_goes_on_is_the_end_of_no_job(outcome: Any) -> None:
    assert End.from_json({"attempt": 1, "outcome": outcome, "why": "x"}) is None


def test_every_end_has_a_folder() -> None:
    for outcome in FOLDER_OF:
        assert End.from_json({"attempt": 1, "outcome": outcome, "why": "x"}) is not None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"attempt": 1, "outcome": "failed"},
        {"attempt": "one", "outcome": "failed", "why": "x"},
        {"attempt": 1, "outcome": "failed", "why": ["x"]},
        {"attempt": 1, "outcome": "failed", "why": "x", "metrics": []},
        {"attempt": 1, "outcome": "failed", "why": "x", "metrics": {"a": "b"}},
    ],
)
def test_a_result_with_a_field_missing_or_of_the_wrong_kind_reads_as_none(value: dict[str, Any]) -> None:
    assert Result.from_json(value) is None


def test_fields_of_a_later_version_are_left_out() -> None:
    assert Result.from_json({"attempt": 1, "outcome": "lost", "why": "x", "later": 5}) == Result(1, "lost", "x")


@pytest.mark.parametrize("entries", [5, "text", [1], {"a": 1}, None])
def test_attempts_that_are_not_a_list_of_entries_read_as_none(entries: Any) -> None:
    assert Attempts.from_json({"entries": entries}) is None


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_json_breaks_a_reader(value: dict[str, Any]) -> None:
    for record in (Result, End, Progress, Attempts, Evaluated):
        found = record.from_json(value)
        assert found is None or isinstance(found, record)


def test_an_attempt_is_open_from_its_begin_to_its_end() -> None:
    attempts = Attempts()
    assert (attempts.number, attempts.is_open, attempts.started_at) == (0, False, None)
    attempts.begin("worker")
    first = attempts.started_at
    assert (attempts.number, attempts.is_open) == (1, True)
    attempts.end("lost", "killed")
    assert (attempts.number, attempts.is_open) == (1, False)
    attempts.begin("another")
    assert (attempts.number, attempts.is_open, attempts.started_at) == (2, True, first)


def test_times_are_utc_with_milliseconds_and_sort_as_text() -> None:
    times = [now() for _ in range(1000)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time) for time in times)
    assert times == sorted(times)


CONFUSION = [[5, 1, 0, 2], [0, 7, 0, 0], [3, 0, 0, 1], [0, 0, 0, 0]]  # nothing is of the last class


def evaluated() -> Evaluated:
    mistakes = [Mistake(9, label=0, predicted=3, probability=0.75, png="iVBOR"), Mistake(2, 2, 0, 0.5, "")]
    return Evaluated(3, 69, 0.25, 12 / 19, ["a", "b", "ünï", "$\n"], CONFUSION, mistakes)


def test_an_evaluation_reads_back_as_it_was_written(tmp_path: Path) -> None:
    durable.replace_json(tmp_path / "evaluation.json", evaluated().to_json())
    assert Evaluated.read(tmp_path / "evaluation.json") == evaluated()


def test_scores_of_classes_are_those_of_scikit_learn() -> None:
    pairs = [(i, j) for i, row in enumerate(CONFUSION) for j, number in enumerate(row) for _ in range(number)]
    labels, predicted = zip(*pairs, strict=True)
    names = evaluated().classes
    expected = classification_report(
        labels, predicted, labels=range(4), target_names=names, output_dict=True, zero_division=math.nan
    )
    for score in evaluated().class_scores():
        theirs = expected[score.name]
        assert score.support == theirs["support"]
        assert score.precision == pytest.approx(theirs["precision"], nan_ok=True)
        assert score.recall == pytest.approx(theirs["recall"], nan_ok=True)
        if score.support:
            assert score.f1 == pytest.approx(theirs["f1-score"])


def test_a_share_of_nothing_is_no_number() -> None:
    a, _, never_predicted, without_images = evaluated().class_scores()
    assert (a.support, a.num_correct, a.num_predicted) == (8, 5, 8)
    assert (a.precision, a.recall, a.f1) == (5 / 8, 5 / 8, 5 / 8)
    assert math.isnan(never_predicted.precision)
    assert (never_predicted.recall, never_predicted.f1) == (0, 0)
    assert math.isnan(without_images.recall)
    assert (without_images.precision, without_images.f1) == (0, 0)
    alone = Evaluated(1, 1, 0.0, 1.0, ["a", "b"], [[1, 0], [0, 0]], []).class_scores()[1]
    assert all(map(math.isnan, (alone.precision, alone.recall, alone.f1)))
