"""What a report says of the classes: scores, what is taken for what, and the images of mistakes."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from zlib import crc32

import pytest
from evaluations import evaluation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.home.evaluation_record import Mistake
from pipeline.results import report_classes

NEVER = ["a", "b", "never seen", "never said"]
NEVER_CELLS = [(0, 0, 3), (0, 1, 1), (1, 0, 1), (1, 1, 2), (3, 0, 2)]


def test_the_mean_counts_each_class_that_has_images_once_and_a_share_of_nothing_as_0() -> None:
    scores = evaluation(NEVER_CELLS, NEVER).class_scores()
    mean = report_classes.mean(scores)
    assert mean == report_classes.Mean(9, (3 / 6 + 2 / 3 + 0) / 3, (3 / 4 + 2 / 3 + 0) / 3, (6 / 10 + 4 / 6 + 0) / 3)
    assert report_classes.mean([]) is None
    names = [score.name for score in report_classes.hardest_first(scores)]
    assert names == ["never said", "a", "b", "never seen"]


def test_what_is_taken_for_what_most_often_comes_first() -> None:
    found = evaluation(NEVER_CELLS, NEVER)
    assert [(c.label, c.predicted, c.count, c.share) for c in report_classes.most_confused(found)] == [
        ("never said", "a", 2, 1),
        ("a", "b", 1, 1 / 4),
        ("b", "a", 1, 1 / 3),
    ]


def test_a_matrix_has_a_cell_for_each_pair_of_classes() -> None:
    rows = report_classes.matrix(evaluation(NEVER_CELLS, NEVER))
    assert [(name, [cell.count for cell in cells]) for name, cells in rows] == [
        ("a", [3, 1, 0, 0]),
        ("b", [1, 2, 0, 0]),
        ("never seen", [0, 0, 0, 0]),
        ("never said", [2, 0, 0, 0]),
    ]
    assert [cell.shade for cell in rows[0][1]] == [7, 3, 0, 0]
    assert [cell.is_right for cell in rows[1][1]] == [False, True, False, False]


def test_a_mistake_is_told_with_its_file_where_it_has_one() -> None:
    mistakes = [Mistake(7, 0, 1, 0.5, "", "test/a/x.png"), Mistake(8, 0, 1, 0.5, "")]
    first, second = report_classes.shown_mistakes(evaluation([(0, 0, 1)], ["a", "b"], mistakes), max_chars=1000)
    assert (first.where, second.where) == ("image 7, test/a/x.png", "image 8")
    assert first.text.startswith("held-out image 7, test/a/x.png: a, taken for b")


def test_a_mistake_without_an_image_or_a_known_class_is_listed_all_the_same() -> None:
    mistakes = [Mistake(7, 99, 0, math.nan, "no base64!"), Mistake(8, 0, 0, 1.0, base64.b64encode(b"GIF89a").decode())]
    found = evaluation([(0, 0, 1)], ["a"], mistakes)
    first, second = report_classes.shown_mistakes(found, max_chars=1000)
    assert (first.text, first.png) == ("held-out image 7: class 99, taken for a with probability not known", "")
    assert second.png == ""
    assert report_classes.shown_mistakes(found, max_chars=10) == [first]


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with a header that says so, and no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", b""), (b"IEND", b"")]
    made = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data)) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


HOSTILE_PNGS = {
    "empty": b"",
    "not a PNG": b"GIF89a",
    "cut short": png(5, 7)[:20],
    "no pixels a side": png(0, 7),
    "more pixels than fit a memory": png(2**31 - 1, 2**31 - 1),
    "so many pixels that Pillow warns": png(12_000, 12_000),
    "a text that grows": png(5, 7, (b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000))),
    "a checksum that is wrong": png(5, 7).replace(b"\0\0\0\x05", b"\0\0\0\x06"),
}


@pytest.mark.parametrize("data", HOSTILE_PNGS.values(), ids=HOSTILE_PNGS)
def test_an_image_that_is_none_or_does_harm_is_left_out(data: bytes) -> None:
    """Without a warning, as all warnings are errors here."""
    mistake = Mistake(7, 0, 0, 0.5, base64.b64encode(data).decode())
    [shown] = report_classes.shown_mistakes(evaluation([(0, 0, 1)], ["a"], [mistake]), max_chars=10_000_000)
    assert (shown.png, shown.width, shown.height) == ("", 0, 0)


def test_an_image_has_its_size_and_oddities_in_it_are_no_warning() -> None:
    for chunks in ((), ((b"acTL", bytes(8)),)):  # an animation without frames, of which Pillow warns
        mistake = Mistake(7, 0, 0, 0.5, base64.b64encode(png(5, 7, *chunks)).decode())
        [shown] = report_classes.shown_mistakes(evaluation([(0, 0, 1)], ["a"], [mistake]), max_chars=1000)
        assert (shown.png, shown.width, shown.height) == (mistake.png, 5, 7)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_bytes_in_a_png_raise_anything(data: bytes, at: int) -> None:
    whole = png(5, 7)
    mistake = Mistake(7, 0, 0, 0.5, base64.b64encode(whole[:at] + data + whole[at + len(data) :]).decode())
    [shown] = report_classes.shown_mistakes(evaluation([(0, 0, 1)], ["a"], [mistake]), max_chars=1000)
    assert (shown.png == "") == (shown.width == 0)
