"""Whatever is written in a job file, the answer is a spec or an ordinary error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from job_texts import JOBS

from pipeline.errors import PipelineError
from pipeline.jobfile import reading
from pipeline.jobfile.spec import Spec

VALID = (JOBS / "vgg11.yaml").read_text()
JUNK = st.sampled_from(
    [
        "",
        "null",
        "[]",
        "{}",
        "-1",
        "1e999",
        "no",
        "'",
        "{name: x}",
        "[1, [2]]",
        "x: y",
        "&a *a",
        "\t",
        "\x00",
        "9" * 5000,
    ]
)
FIELDS = st.sampled_from(
    [
        *("name", "model", "model.name", "model.widths", "model.depth", "data", "data.name", "data.augment"),
        *("data.augment.0", "train", "train.epochs", "train.optimizer", "train.optimizer.name", "train.optimizer.lr"),
        *("train.schedule", "log", "resources.timeout", "resources.retry_on", "zzz"),
    ]
)


def answers(text: str, *overrides: str) -> None:
    with contextlib.suppress(PipelineError):
        reading.parse(text.encode("utf-8", "surrogatepass"), "job.yaml", overrides)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=100))
def test_any_text_gets_an_ordinary_answer(text: str) -> None:
    answers(text)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(VALID)), st.integers(0, 30), JUNK | st.text(max_size=8))
def test_any_slip_in_a_valid_file_gets_an_ordinary_answer(start: int, length: int, typed: str) -> None:
    answers(VALID[:start] + typed + VALID[start + length :])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(FIELDS, JUNK | st.text(max_size=8)), min_size=1, max_size=4))
def test_any_overrides_get_an_ordinary_answer(fields: list[tuple[str, str]]) -> None:
    answers(VALID, *(f"{field}={value}" for field, value in fields))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["vgg", "crop", "sgd", "auto", "M", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "depth", "augment", "optimizer", "lr", "0", "<<", ""]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from([*Spec.model_fields, "x"]), PLAIN))
def test_any_structure_gets_an_ordinary_answer(value: dict[str, Any]) -> None:
    answers(json.dumps(value))
