"""Job files as text: what is read of one, or what is said of it."""

from __future__ import annotations

from pathlib import Path

import job_schema
import pytest

from pipeline.errors import SpecError
from pipeline.jobfile import catalog, reading
from pipeline.jobfile.spec import Spec

MINIMAL = "name: tiny\nmodel: {name: net}\ndata: {name: mnist}\n"
JOBS = Path(__file__).parents[1] / "jobs"


def read(more: str = "", *overrides: str, text: str = MINIMAL) -> Spec:
    spec = reading.parse((text + more).encode(), "job.yaml", overrides)
    if not overrides:
        job_schema.require_acceptance(text + more)
    return spec


def errors(more: str = "", *overrides: str, text: str = MINIMAL) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(more, *overrides, text=text)
    found = str(caught.value).splitlines()
    if not overrides:
        job_schema.require_refusal(text + more, found)
    return found


def known(*names: str) -> str:
    return f" (known: {', '.join(names)})"


TOP = known("after", "data", "description", "log", "model", "name", "resources", "search", "train")
DATASETS = known(*sorted(catalog.DATASETS))
MODELS = known(*sorted(catalog.MODELS))
