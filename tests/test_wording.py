"""Words for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.wording import against_fp32, in_bits, in_words, plural


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


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "epoch", "1 epoch"),
        (0, "epoch", "0 epochs"),
        (2000, "step", "2,000 steps"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
        (2, "batch", "2 batches"),
        (1, "more byte", "1 more byte"),
    ],
)
def test_a_count_and_its_noun_agree(count: int, noun: str, words: str) -> None:
    assert plural(count, noun) == words


PACKAGE = Path(__file__).parents[1] / "pipeline"
NOUNS = (
    "attempts|batches|bytes|classes|epochs|fields|files|images|items|jobs|labels|layers|lines|numbers|parameters|"
    "rows|runs|steps|tensors|trials|values|workers"
)
A_COUNT_OF_MANY = re.compile(rf"\{{(?![^{{}}]*plural)[^{{}}]*\}} (?:more )?(?:{NOUNS})\b(?!/)")
NEVER_ONE = {
    "cli/results.py": ["{path.stat().st_size:,} bytes"],  # of a file of weights
    "data/own_dataset.py": ["{len(test):,} images"],  # of a sum
    "home/durable.py": ["{size:,} bytes", "{len(content):,} bytes"],  # too many
    "jobfile/reading.py": ["{size:,} bytes"],  # too many
    "jobfile/worth.py": ["{EPOCHS} epochs"],
    "jobfile/yamltree.py": ["{len(data):,} bytes"],  # too many
    "queue/tickets.py": ["{len(content):,} bytes"],  # too many
    "results/choice.py": ["{len(named):,} runs"],  # several
    "results/export_model.py": ["{len(expected)} classes", "{len(expected)} tensors"],  # of eight images; of a network
    "results/preview.py": ["{NUM_AUGMENTED} epochs"],
    "results/runs.py": ["{len(found)} runs"],  # several
    "results/sweep_charts.py": ["{len(trials):,} trials"],  # too many
    "results/sweep_report.py": ["{len(axes):,} fields", "{sweep_importance.FEWEST} trials"],  # too many; ten
    "training/logbook.py": ["{features.shape[1]:,} values"],  # too many
    "training/starting_weights.py": ["{len(names)} runs"],  # several
    "worker/notifications.py": ["{end.attempt} attempts"],  # several
}


@pytest.mark.parametrize(
    "path", sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jinja")]), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_what_counts_is_right_for_one(path: Path) -> None:
    """A count stands before a noun in the plural only where it cannot be one; elsewhere `plural` is called."""
    allowed = NEVER_ONE.get(str(path.relative_to(PACKAGE)), [])
    found = (match[0] for match in A_COUNT_OF_MANY.finditer(path.read_text()))
    assert [count for count in found if count not in allowed] == []
