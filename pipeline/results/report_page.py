"""What the pages of a run and of a sweep have in common: how a template is filled in, and what both say of a job."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import pipeline
from pipeline.home.paths import RunPaths
from pipeline.home.records import now
from pipeline.results import report_facts, run_state
from pipeline.results.report_facts import RunFacts, duration, moment
from pipeline.wording import plural

STATES: Mapping[str, str] = {
    "timed_out": "timed out",
    "lost": "lost: its process was killed too often",
    "invalid": "not started: its job file is invalid",
    "interrupted": "interrupted",
    "pending": "waiting",
    "running": "still running",
    run_state.NO_END: "still running",
}

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def render(template: str, job: RunFacts, run: RunPaths, **more: Any) -> str:
    """Fills in a template of this folder with what is known of any job, and with what belongs to the page alone."""
    return (
        _environment()
        .get_template(template)
        .render(
            job={**vars(job), "name": job.name, "description": job.spec.get("description")},
            state=STATES.get(job.state, job.state),
            state_class=job.state if job.state.isidentifier() else "",
            started=moment(job.started_at),
            finished=moment(job.finished_at),
            took=duration(job.started_at, job.finished_at),
            attempts=report_facts.attempts(job),
            log=report_facts.log_tail(run),
            written=moment(now()),
            version=pipeline.__version__,
            **more,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=_share, grouped="{:,}".format, plural=plural, figure="{:.4g}".format)
    return environment


def printable(value: object) -> object:
    """Replaces what HTML cannot hold: class names, job files and logs may have anything in them."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", _TERMINAL_CODES.sub("", value))
    return value


def percent(value: float) -> str:
    """Returns a share as `12.34 %`."""
    return f"{100 * value:.2f} %"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else percent(value)  # noqa: RUF001 - a dash, as the caption has it
