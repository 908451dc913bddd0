"""What commands say of a sweep, and the command that gives its best trial as a job file: best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.arguments import Id, message, print_lines
from pipeline.home.paths import Home, RunPaths
from pipeline.queue import sweeps
from pipeline.wording import in_words, plain, plural, table

if TYPE_CHECKING:
    from pipeline.queue.sweeps import SweepView, TrialView
    from pipeline.queue.views import JobView

SHOWN = 10  # trials


def best(
    context: typer.Context,
    sweep_id: Id,
    trial: Annotated[
        int | None, typer.Option(min=0, help="This trial instead of the best one.", show_default=False)
    ] = None,
) -> None:
    """Print the job file of a sweep's best trial, ready to be submitted: pipeline best ID > jobs/NAME.yaml."""
    from pipeline.results import best as chosen

    home: Home = context.obj
    job_id, view = chosen.find(home, sweep_id)
    found = chosen.choose(view, job_id, trial)
    text = chosen.job_file(home, job_id, view, found)
    typer.echo(text, nl=False)
    others = [str(other.number) for other in view.best if other.number != found.number]
    if others and trial is None:
        tags = ", ".join(tag for tag, _ in view.record.objectives)
        message(f"trial {found.number} is the best by {tags.partition(',')[0]}; by {tags} no other is better than")
        message(f"these either, which --trial gives: {', '.join(others)}")
    if view.num_ended < view.record.num_trials:
        wanted = plural(view.record.num_trials, "trial")
        have = "has" if view.num_ended == 1 else "have"
        message(f"{view.num_ended} of {wanted} {have} ended; another may still be better")


def facts(job: JobView, view: SweepView) -> list[tuple[str, str]]:
    """What `show` says of a sweep, a line a fact."""
    counts = view.count()
    ended = view.num_ended
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    left = view.record.num_trials - ended
    rows = [("sweep", job.id), ("state", job.state), ("outcome", job.outcome or "none yet")]
    rows += [
        (
            "trials",
            f"{ended} of {view.record.num_trials} {'has' if ended == 1 else 'have'} ended{f': {told}' if told else ''}",
        )
    ]
    if job.outcome is None:
        time_left = f", {in_words(job.time_left_s)}" if job.time_left_s else ""
        rows += [("left", f"{left}{time_left}")]
    else:
        rows += [("why", job.why)]
    for tag, is_high in view.record.objectives:
        rows.append(("maximizes" if is_high else "minimizes", tag))
    for trial in view.best[:SHOWN]:
        rows += [("best", _in_a_line(trial, view)), ("", trial.job_id)]
        rows += [("", f"{key}: {plain(value)}") for key, value in trial.values.items()]
    times = {"submitted": job.submitted_at, "started": job.started_at, "finished": job.finished_at}
    rows += [(label, at) for label, at in times.items() if at]
    rows += [("run", job.run_dir)]
    report = RunPaths(Path(job.run_dir)).report
    return [*rows, ("report", str(report))] if report.exists() else rows


def _in_a_line(trial: TrialView, view: SweepView) -> str:
    assert trial.score is not None
    epoch = f" in epoch {trial.score.epoch}" if trial.score.epoch else ""
    return f"trial {trial.number}, {sweeps.in_words(trial.score, view.record.objectives)}{epoch}"


def print_trials(view: SweepView) -> None:
    """The best trials, and those that run, in a table."""
    running = [trial for trial in view.trials if trial.outcome == "running"]
    shown = [*(trial for trial in view.ranked if trial.outcome != "running")][:SHOWN] + running
    if not shown:
        return
    metrics = next((trial.score.metrics for trial in shown if trial.score), {})
    tags = [sweeps.tag_in(metrics, tag) if metrics else tag for tag, _ in view.record.objectives]
    rows = [("TRIAL", "OUTCOME", "EPOCH", *tags, *sweeps.short_names(view.record.fields), "JOB")]
    for trial in shown:
        epoch = str(trial.score.epoch) if trial.score and trial.score.epoch else ""
        figures = [f"{value:.4g}" for value in trial.score.values] if trial.score else [""] * len(tags)
        values = [plain(trial.values.get(key)) for key in view.record.fields]
        rows.append((str(trial.number), trial.outcome, epoch, *figures, *values, trial.job_id))
    print_lines(["", *table(rows)])


def to_json(job: JobView, view: SweepView) -> dict[str, Any]:
    """As `show --json` has it."""
    return {
        **job.to_json(),
        "objectives": [{"tag": tag, "maximize": is_high} for tag, is_high in view.record.objectives],
        "num_trials": view.record.num_trials,
        "best": [trial.number for trial in view.best],
        "trials": [
            {
                "number": trial.number,
                "id": trial.job_id,
                "outcome": trial.outcome,
                "values": dict(trial.values),
                "epoch": trial.score.epoch if trial.score else None,
                "scores": list(trial.score.values) if trial.score else None,
            }
            for trial in view.trials
        ],
    }
