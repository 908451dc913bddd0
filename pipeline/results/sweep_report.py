"""A sweep as one page: its best trial, what its trials came to, and what that says of the fields that it searches.

As with a run's page, what is missing or damaged is said there, and no state of a sweep is an error.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pipeline.board.conditions import as_words, object_at
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import now
from pipeline.queue import sweeps
from pipeline.queue.job_queue import Queue
from pipeline.queue.sweeps import SweepView, TrialView
from pipeline.results import (
    report_facts,
    report_page,
    sweep_axes,
    sweep_charts,
    sweep_field_charts,
    sweep_importance,
)
from pipeline.results.compared_run import as_text
from pipeline.results.report_facts import RunFacts, duration
from pipeline.results.sweep_axes import Axis
from pipeline.results.sweep_charts import in_words
from pipeline.wording import cut, plural

PLAIN_ROWS = 20  # trials that are shown at once; the others unfold
MAX_ROWS = 1000
MAX_VALUE = 40  # letters
UNKNOWN = "–"  # noqa: RUF001 - a dash, for what is not known
OUTCOMES = {"timed_out": "timed out", "pending": "waits", "running": "runs", "missing": "its ticket is gone"}

Figure = tuple[str, str, str]  # a label, the figure, and what belongs to it


def render(home: Home, run: RunPaths, *, is_beside: bool) -> str:
    """is_beside: whether the page will lie in the run's folder, from where those of the trials can be linked to."""
    job, notes = report_facts.read(home, run), list[str]()
    view = _look(home, run, notes)
    if not job.spec and job.spec_text:
        notes.append("spec.yaml is damaged, so the ranges of the fields are those that trials had.")
    shown: dict[str, Any] = {"has_trials": False, "headline": _unknown_headline(job), "conditions": _conditions(job)}
    if view is not None:
        shown |= _results(view, job, home if is_beside else None)
    return report_page.render(
        "sweep_report.html.jinja",
        job,
        run,
        notes=notes,
        best_command=f"pipeline best {shlex.quote(job.id)} > jobs/{shlex.quote(f'{job.name}_best.yaml')}",
        no_trials=_why_no_trials(job, is_known=view is not None),
        plain_rows=PLAIN_ROWS,
        **shown,
    )


def _look(home: Home, run: RunPaths, notes: list[str]) -> SweepView | None:
    try:
        view = sweeps.look(Queue(home), run.root.name)
    except (OSError, ValueError) as error:  # ValueError: of an id that can be no file's name
        notes.append(f"The trials cannot be read: {error}.")
        return None
    if view is None and os.path.lexists(run.trials):
        notes.append("trials.json is damaged, so the trials are missing.")
    return view


def _why_no_trials(job: RunFacts, *, is_known: bool) -> str:
    if not is_known:
        return "There are no trials to show: trials.json is missing, or cannot be read."
    ended = "it ended before it asked for one" if job.finished_at else "it has not asked for one yet"
    return f"There are no trials: {ended}."


def _objectives(view: SweepView) -> list[tuple[str, str]]:
    return [("Objective", f"{tag}, to be {'high' if is_high else 'low'}") for tag, is_high in view.record.objectives]


def _conditions(job: RunFacts) -> list[tuple[str, str]]:
    """Returns how the sweep searches, and each field with what it may be."""
    search = object_at(job.spec, "search")
    rows = [(label, search.get(key)) for label, key in (("Sampler", "sampler"), ("Pruner", "pruner"))]
    rows += [(f"Field {field}", _values(written)) for field, written in object_at(search, "space").items()]
    return [(label, as_words(value)) for label, value in rows if value is not None]


def _values(written: Any) -> str:
    if isinstance(written, dict) and "from" in written and "to" in written:
        step = f" in steps of {as_text(written['step'])}" if "step" in written else ""
        scale = ", logarithmic" if written.get("log") is True else ""
        return f"from {as_text(written['from'])} to {as_text(written['to'])}{step}{scale}"
    return cut(", ".join(map(as_text, written)), 500) if isinstance(written, list) else cut(as_text(written), 500)


# The headline


def _unknown_headline(job: RunFacts) -> list[Figure]:
    return [("Trials", f"{job.epoch:,}", f"ended, of {job.epochs:,}" if job.epochs else "ended")]


def headline(view: SweepView, best: Sequence[TrialView], job: RunFacts) -> list[Figure]:
    """Returns the figures that people look for first."""
    rows = _best_figures(view, best)
    counts = view.count()
    ended = sum(trial.job is not None and trial.job.outcome is not None for trial in view.trials)
    left = view.record.num_trials - len(view.trials)
    parts = [f"{count:,} {OUTCOMES.get(outcome, outcome)}" for outcome, count in counts.items()]
    parts += [f"{left:,} not started"] if left > 0 else []
    rows.append(("Trials ended", f"{ended:,} of {view.record.num_trials:,}", ", ".join(parts)))
    if took := duration(job.started_at, job.finished_at or now()):
        rows.append(("Took", took, "" if job.finished_at else "so far"))
    trained = sum(trial.job.epoch for trial in view.trials if trial.job)
    pruned = sum(t.job.epochs - t.job.epoch for t in view.trials if t.job and t.outcome == "pruned")
    rows.append(("Epochs trained", f"{trained:,}", f"{pruned:,} saved by pruning" if pruned else "by all trials"))
    return rows


def _best_figures(view: SweepView, best: Sequence[TrialView]) -> list[Figure]:
    objectives = view.record.objectives
    rows = []
    for index, (tag, is_high) in enumerate(objectives):
        known = [(score.values[index], trial, score) for trial, score in sweep_charts.scored(best)]
        if known:
            value, trial, score = (max if is_high else min)(known, key=lambda found: found[0])
            where = f"trial {trial.number:,}, {_epoch(score.epoch)}"
            where += ", chosen on the test set" if _is_of_test(tag, score.metrics) else ""
            rows.append((f"{'Highest' if is_high else 'Lowest'} {tag}", in_words(tag, value), where))
    if len(objectives) > 1 and best:
        rows.append(("On the Pareto front", f"{len(best):,}", "trials that none is better than in all objectives"))
    if len(best) == 1 and best[0].score and "val/accuracy" in best[0].score.metrics:
        of_test = best[0].score.metrics.get("test/accuracy")
        if of_test is not None and objectives[0][0] != "test/accuracy":
            rows.append(("Its test/accuracy", in_words("test/accuracy", of_test), f"trial {best[0].number:,}"))
    return rows


def _is_of_test(tag: str, metrics: Any) -> bool:
    """Whether a value is that of images that nobody should choose by; val/ means test/ where there is no val."""
    return tag.startswith("test/") or (tag.startswith("val/") and tag not in metrics)


def _epoch(epoch: int) -> str:
    return f"epoch {epoch:,}" if epoch else "its latest epoch"


# The trials


@dataclass(frozen=True)
class Row:
    """A trial, as the page shows it."""

    number: int
    is_best: bool
    outcome: str
    why: str
    cells: list[str]  # objectives, values, best epoch, epochs, how long
    job: str
    link: str  # to the page of its run; empty where there is none


def _results(view: SweepView, job: RunFacts, linked: Home | None) -> dict[str, Any]:
    """linked: the home whose pages can be linked to."""
    axes = sweep_axes.of_fields(view.record.fields, job.spec, view.trials)
    best = view.best
    ranked = _best_first(view, best)
    numbers = {trial.number for trial in best}
    rows = [_row(trial, view, linked, is_best=trial.number in numbers) for trial in ranked[:MAX_ROWS]]
    return {
        "has_trials": bool(view.trials),
        "headline": headline(view, best, job),
        "front": [row for row in rows if row.is_best],
        "conditions": [*_objectives(view), *_conditions(job)],
        "best_values": _best_values(view, best),
        "columns": [tag for tag, _ in view.record.objectives] + [axis.label for axis in axes],
        "rows": rows,
        "num_left_out": len(ranked) - len(rows),
        **_pictures(view, best, axes),
    }


def _best_first(view: SweepView, best: Sequence[TrialView]) -> list[TrialView]:
    numbers = {trial.number for trial in best}
    order = [*(trial for trial in view.ranked if trial.number in numbers), *view.ranked, *view.trials]
    return list({trial.number: trial for trial in order}.values())


def _row(trial: TrialView, view: SweepView, linked: Home | None, *, is_best: bool) -> Row:
    job, score, objectives = trial.job, trial.score, view.record.objectives
    cells = [in_words(tag, v) for (tag, _), v in zip(objectives, score.values if score else (), strict=False)]
    cells += [] if score else [UNKNOWN] * len(objectives)
    cells += [_value(trial, field) for field in dict.fromkeys(view.record.fields)]
    cells.append(f"{score.epoch:,}" if score and score.epoch else UNKNOWN)
    cells.append(f"{job.epoch:,} of {job.epochs:,}" if job else UNKNOWN)
    cells.append((duration(job.started_at, job.finished_at) if job else "") or UNKNOWN)
    link = ""
    if linked and trial.job_id and linked.run(trial.job_id).report.is_file():
        link = f"../{quote(trial.job_id, safe='')}/report.html"
    outcome = OUTCOMES.get(trial.outcome, trial.outcome)
    why = job.why if job and trial.outcome not in ("succeeded", "pending", "running") else ""
    return Row(trial.number, is_best, outcome, cut(why, 300), cells, trial.job_id, link)


def _value(trial: TrialView, field: str) -> str:
    return cut(as_text(trial.values[field]), MAX_VALUE) if field in trial.values else UNKNOWN


def _best_values(view: SweepView, best: Sequence[TrialView]) -> list[tuple[str, str]]:
    """Returns the fields of the best trial with their values; nothing where there are several."""
    if len(best) != 1:
        return []
    return [*((field, _value(best[0], field)) for field in view.record.fields), ("Job", best[0].job_id)]


# The pictures


def _pictures(view: SweepView, best: Sequence[TrialView], axes: Sequence[Axis]) -> dict[str, Any]:
    complete = sweep_field_charts.complete(view)
    shares = {
        tag: found
        for index, (tag, is_high) in enumerate(view.record.objectives)
        if (found := sweep_importance.importances(axes, complete, index, is_high=is_high))
    }
    chosen = _chosen(axes, next(iter(shares.values()), {}))
    left_out = [axis.field for axis in axes if axis not in chosen]
    return {
        "pictures": {
            "history": sweep_charts.history(view),
            "curves": sweep_charts.curves(view),
            "fronts": sweep_charts.fronts(view, best),
            "importances": sweep_charts.importance_bars(axes, shares),
            "parallel": sweep_field_charts.parallel(view, chosen),
            "slices": sweep_field_charts.slices(view, chosen),
        },
        "importance_of": f"the best {sweep_importance.num_best(len(complete)):,} of {plural(len(complete), 'trial')}",
        "why_no_importances": "" if shares else _why_no_importances(axes, len(complete)),
        "fields_left_out": f"Of {len(axes):,} fields, {len(chosen)} are drawn; not {', '.join(left_out)}."
        if left_out
        else "",
    }


def _chosen(axes: Sequence[Axis], shares: dict[str, float]) -> list[Axis]:
    """Returns the fields that are drawn, the most important ones, in their order."""
    ranked = sorted(axes, key=lambda axis: -shares.get(axis.field, 0.0))[: sweep_field_charts.MAX_FIELDS]
    return [axis for axis in axes if axis in ranked]


def _why_no_importances(axes: Sequence[Axis], num_complete: int) -> str:
    if len(axes) < 2:
        return "There is one field alone, so there is nothing to compare its importance with."
    if num_complete < sweep_importance.FEWEST:
        return (
            f"To tell how important each field is takes {sweep_importance.FEWEST} trials that have succeeded; "
            f"there are {num_complete:,}."
        )
    return "How important each field is cannot be told from these trials."
