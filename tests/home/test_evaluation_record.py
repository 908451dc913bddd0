"""The record of an evaluation: whatever was written can be read, and the scores are those of its whole confusion."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.home import durable
from pipeline.home.evaluation_record import MAX_CONFUSIONS, Cell, EvaluationRecord, Mistake

CONFUSION = [[5, 1, 0, 2], [0, 7, 0, 0], [3, 0, 0, 1], [0, 0, 0, 0]]  # nothing is of the last class
NAMES = ["a", "b", "ünï", "$\n"]
MISTAKES = [
    Mistake(9, label=0, predicted=3, probability=0.75, png="iVBOR", file="test/cat/7 \udcff\n.png"),
    Mistake(2, 2, 0, 0.5, ""),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({*EvaluationRecord.__dataclass_fields__, "confusion"})


def cells_of(confusion: list[list[int]]) -> list[Cell]:
    return [(label, predicted, n) for label, row in enumerate(confusion) for predicted, n in enumerate(row)]


def record(cells: list[Cell], classes: list[str], mistakes: list[Mistake] | None = None) -> EvaluationRecord:
    return EvaluationRecord.of(
        cells, epoch=3, step=69, loss=0.25, accuracy=12 / 19, classes=classes, mistakes=mistakes or []
    )


EVALUATION = record(cells_of(CONFUSION), NAMES, MISTAKES)


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    EVALUATION.write(tmp_path / "evaluation.json")
    assert EvaluationRecord.read(tmp_path / "evaluation.json") == EVALUATION


def test_of_the_confusion_only_what_is_not_0_is_stored(tmp_path: Path) -> None:
    EVALUATION.write(tmp_path / "evaluation.json")
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["cells"] == [[0, 0, 5], [0, 1, 1], [0, 3, 2], [1, 1, 7], [2, 0, 3], [2, 3, 1]]
    assert (stored["supports"], stored["num_predicted"]) == ([8, 7, 4, 0], [8, 8, 0, 3])
    assert stored["num_left_out"] == 0


def test_a_mistake_of_before_has_no_file(tmp_path: Path) -> None:
    mistakes = [{key: value for key, value in vars(mistake).items() if key != "file"} for mistake in MISTAKES]
    durable.replace_json(tmp_path / "evaluation.json", {**EVALUATION.to_json(), "mistakes": mistakes})
    found = EvaluationRecord.read(tmp_path / "evaluation.json")
    assert found is not None
    assert found.mistakes == [dataclasses.replace(mistake, file=None) for mistake in MISTAKES]


def test_a_file_of_before_with_the_whole_matrix_is_read(tmp_path: Path) -> None:
    written = {"epoch": 3, "step": 69, "loss": 0.25, "accuracy": 12 / 19, "classes": NAMES, "confusion": CONFUSION}
    written["mistakes"] = [vars(mistake) for mistake in MISTAKES]
    durable.replace_json(tmp_path / "evaluation.json", written)
    assert EvaluationRecord.read(tmp_path / "evaluation.json") == EVALUATION


@pytest.mark.parametrize("confusion", [5, None, [1], [[1], [2, 3]], [["x"]], [[1.5]]], ids=str)
def test_a_file_of_before_whose_matrix_is_none_reads_as_none(confusion: Any) -> None:
    assert EvaluationRecord.from_json({**EVALUATION.to_json(), "confusion": confusion}) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2))
def test_no_json_breaks_the_reader(changed: dict[str, Any]) -> None:
    found = EvaluationRecord.from_json({**EVALUATION.to_json(), **changed})
    assert found is None or isinstance(found, EvaluationRecord)


def test_that_of_2400_classes_can_be_read(tmp_path: Path) -> None:
    """Its whole matrix takes 17 MB, and a reader takes 16."""
    count = 2400
    cells = [cell for i in range(count) for cell in ((i, i, 40), (i, (i + 1) % count, 10))]
    written = record(cells, [f"class {number}" for number in range(count)])
    written.write(tmp_path / "evaluation.json")
    assert EvaluationRecord.read(tmp_path / "evaluation.json") == written
    assert {(s.support, s.num_correct, s.num_predicted) for s in written.class_scores()} == {(50, 40, 50)}


def test_of_10000_classes_and_a_million_images_the_largest_cells_are_kept(tmp_path: Path) -> None:
    """As bad as can be: each wrong image in a cell of its own, but for a hundred cells of two."""
    count, wrong_of_each = 10_000, 99
    twice = {(label, label + 1) for label in range(100)}
    cells = [(label, label, 1) for label in range(count)]
    cells += [
        (label, predicted, 2 if (label, predicted) in twice else 1)
        for label in range(count)
        for predicted in itertools.islice((p % count for p in range(label + 1, label + count)), wrong_of_each)
    ]
    written = record(cells, [f"a class with a name of some length, number {number}" for number in range(count)])
    written.write(tmp_path / "evaluation.json")
    read = EvaluationRecord.read(tmp_path / "evaluation.json")
    assert read == written
    assert len(written.cells) == count + MAX_CONFUSIONS
    assert written.num_left_out == count * wrong_of_each - MAX_CONFUSIONS
    assert {(label, predicted) for label, predicted, n in written.cells if n == 2} == twice
    assert (tmp_path / "evaluation.json").stat().st_size < durable.MAX_RECORD_BYTES / 3
    scores = written.class_scores()
    assert [scores[0].support, scores[5000].support, scores[5000].num_predicted] == [101, 100, 100], "all are counted"
    assert {score.num_correct for score in scores} == {1}


def test_what_could_not_be_read_back_is_not_written_and_what_was_there_stays(tmp_path: Path) -> None:
    EVALUATION.write(tmp_path / "evaluation.json")
    classes = ["\x01" * 255] * 20_000  # six bytes a character
    with pytest.raises(ValueError, match=r"evaluation\.json: is not written: 30,\d{3},\d{3} bytes, and 16,777,216 can"):
        record([], classes).write(tmp_path / "evaluation.json")
    assert EvaluationRecord.read(tmp_path / "evaluation.json") == EVALUATION
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_scores_of_classes_are_those_of_counting_image_by_image() -> None:
    pairs = [(i, j) for i, row in enumerate(CONFUSION) for j, number in enumerate(row) for _ in range(number)]
    for index, score in enumerate(EVALUATION.class_scores()):
        of_class = [predicted == index for label, predicted in pairs if label == index]
        taken_for_it = [label == index for label, predicted in pairs if predicted == index]
        assert (score.support, score.num_predicted) == (len(of_class), len(taken_for_it))
        assert score.num_correct == sum(of_class) == sum(taken_for_it)
        if of_class and taken_for_it:
            precision, recall = statistics.mean(taken_for_it), statistics.mean(of_class)
            assert (score.precision, score.recall) == (precision, recall)
            assert score.f1 == pytest.approx(statistics.harmonic_mean([precision, recall]))


def test_a_share_of_nothing_is_no_number() -> None:
    a, _, never_predicted, without_images = EVALUATION.class_scores()
    assert (a.support, a.num_correct, a.num_predicted) == (8, 5, 8)
    assert (a.precision, a.recall, a.f1) == (5 / 8, 5 / 8, 5 / 8)
    assert math.isnan(never_predicted.precision)
    assert (never_predicted.recall, never_predicted.f1) == (0, 0)
    assert math.isnan(without_images.recall)
    assert (without_images.precision, without_images.f1) == (0, 0)
    alone = record([(0, 0, 1)], ["a", "b"]).class_scores()[1]
    assert all(map(math.isnan, (alone.precision, alone.recall, alone.f1)))
