"""Words for people."""

from __future__ import annotations

import pytest

from pipeline.wording import against_fp32, in_bits, in_words


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (7500, "2 h 05 min")])
def test_durations_are_told_as_people_do(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("bits", "words"),
    [(152, "152 bits"), (8_192, "8.19 kbit"), (1_089_984, "1.09 Mbit"), (4_425_000_000, "4.42 Gbit")],
)
def test_sizes_are_told_in_bits(bits: int, words: str) -> None:
    assert in_bits(bits) == words


@pytest.mark.parametrize(
    ("bits", "words"), [(1_089_984, "of 6.54 Mbit in fp32, 6.0 times smaller"), (0, "of 6.54 Mbit in fp32")]
)
def test_a_size_is_told_against_that_in_float32(bits: int, words: str) -> None:
    """Of nothing too: a damaged record may say so."""
    assert against_fp32(bits, 6_544_704) == words
