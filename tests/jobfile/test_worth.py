"""What the reference page says of the worth of options."""

from __future__ import annotations

import pytest
from job_texts import read

from pipeline.jobfile.worth import WORTH, Worth, markdown

OPTIONS = (  # each that came with recipes has figures
    *("linear_one_cycle", "bias_lr", "norm_weight_decay", "batch_norm_momentum", "last_batch", "reflect", "alternate"),
    *("lookahead", "ema", "test_augment: mirror", "test_augment: mirror_shift", "muon", "train.epochs", "whiten"),
)


@pytest.mark.parametrize("worth", WORTH, ids=lambda worth: worth.option)
def test_an_option_stands_there_as_a_job_file_has_it(worth: Worth) -> None:
    changes = [change.replace(": ", "=", 1) for change in worth.option.split("; ")]
    text = "name: x\nmodel: {name: airnet, whiten: false}\ndata: {name: cifar10}\n"
    assert read("", *changes, text=text) != read("", text=text)
    assert all(0 < value < 100 for value in (*worth.without, *worth.with_it))


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_of_a_recipe_has_figures(option: str) -> None:
    assert any(option in worth.option for worth in WORTH)
    assert all(f"| `{worth.option}` |" in markdown() for worth in WORTH)
