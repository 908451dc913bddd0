"""What a run's small files say in words: outcome, conditions, environment, attempts, the end of the log.

Any of them may be missing, damaged or edited by hand: what is not there is left out, and nothing here raises for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.board.conditions import Row, attempts_of, part, words
from pipeline.errors import SpecError
from pipeline.home import durable
from pipeline.home.ids import name_of
from pipeline.home.paths import Home, RunPaths
from pipeline.home.records import Progress, Result
from pipeline.jobfile import yamltree
from pipeline.queue import views
from pipeline.queue.job_queue import Queue
from pipeline.wording import in_words

LOG_LINES = 40
LOG_BYTES = 64 * 1024
MAX_LINE = 500
MAX_SPEC_BYTES = 256 * 1024


@dataclass
class Facts:
    """What is known of a job and its run, as the files hold it."""

    id: str
    state: str  # the outcome where there is one, else pending or running
    why: str
    started_at: str | None
    finished_at: str | None
    epoch: int
    epochs: int
    step: int
    steps: int
    metrics: dict[str, float]
    entries: list[dict[str, Any]]  # of attempts.json; none where the job never was in the queue
    spec_text: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.spec.get("name") or name_of(self.id))

    @property
    def steps_per_epoch(self) -> float | None:
        return self.steps / self.epochs if self.steps and self.epochs else None

    def epoch_of(self, step: int) -> str:
        """` (epoch 3)`, or nothing where that is not known."""
        per_epoch = self.steps_per_epoch
        return f" (epoch {max(1, -(-step // per_epoch)):,.0f})" if per_epoch else ""


def read(home: Home, run: RunPaths) -> Facts:
    queue, job_id = Queue(home), run.root.name
    state = queue.tickets.state(job_id) if queue.paths.root.is_dir() else None
    view = (views.job(queue, job_id, state) if state else None) or _without_ticket(run)
    progress = Progress.read(run.progress) or Progress(0)
    manifest, spec_text = durable.read_json(run.manifest) or {}, _spec_text(run)
    return Facts(
        job_id,
        view.outcome or view.state,
        view.why,
        view.started_at or _first(manifest),
        view.finished_at,
        max(view.epoch, progress.epoch),
        view.epochs or progress.epochs,
        max(view.step, progress.step),
        progress.steps,
        {**progress.metrics, **view.metrics},
        queue.attempts(job_id).entries,
        spec_text,
        _spec(spec_text),
        manifest,
    )


def _without_ticket(run: RunPaths) -> views.JobView:
    """Of a run in the foreground, or one whose ticket was removed."""
    progress, result = Progress.read(run.progress), Result.read(run.result)
    job_id = run.root.name
    common: dict[str, Any] = {
        "id": job_id,
        "name": name_of(job_id),
        "priority": 0,
        "submitted_at": "",
        "run_dir": str(run.root),
    }
    if result is not None and (progress is None or progress.attempt <= result.attempt):
        return views.JobView(**common, state="ended", **vars(result))
    progress = progress or Progress(0)
    return views.JobView(
        **common,
        state="running",
        attempt=progress.attempt,
        outcome=None,
        started_at=None,
        finished_at=None,
        epoch=progress.epoch,
        epochs=progress.epochs,
        step=progress.step,
        metrics=progress.metrics,
        why=progress.note or "it has no recorded end: it still runs, or it was killed",
    )


def _first(manifest: dict[str, Any]) -> str | None:
    entries = attempts_of(manifest)
    return str(entries[0]["started_at"]) if entries and "started_at" in entries[0] else None


def _spec_text(run: RunPaths) -> str:
    try:
        return durable.read_small(run.spec, limit=MAX_SPEC_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _spec(text: str) -> dict[str, Any]:
    try:
        value = yamltree.parse(text.encode(), "spec.yaml").plain()
    except SpecError:
        return {}
    return value if isinstance(value, dict) else {}


def environments(facts: Facts) -> list[tuple[str, list[Row]]]:
    """Attempts, in words, and where they ran; attempts in a row that ran in the same place share an entry."""
    found: list[tuple[list[str], list[Row]]] = []
    for entry in attempts_of(facts.manifest):
        rows, number = _environment(entry), words(entry.get("attempt"))
        if found and found[-1][1] == rows:
            found[-1][0].append(number)
        else:
            found.append(([number], rows))
    return [(f"attempt {n[0]}" if len(n) == 1 else f"attempts {n[0]} to {n[-1]}", rows) for n, rows in found]


def _environment(entry: dict[str, Any]) -> list[Row]:
    code = part(entry, "code")
    changes = {"True": ", with uncommitted changes", "False": ", unchanged"}.get(str(code.get("dirty")), "")
    rows: list[tuple[str, object]] = [
        ("pipeline", code.get("version")),
        ("Commit", f"{code['commit']}{changes}" if code.get("commit") else "not known: not run from a git checkout"),
        ("Python", entry.get("python")),
        ("Platform", entry.get("platform")),
        *part(entry, "packages").items(),
        ("CUDA", entry.get("cuda")),
        ("Image digest", entry.get("image_digest")),
        *((str(key).replace("_", " ").capitalize(), value) for key, value in part(entry, "computes").items()),
    ]
    return [(str(label), words(value)) for label, value in rows if value is not None]


def attempts(facts: Facts) -> list[list[str]]:
    """Number, start, end, how long, outcome, why: a row each."""
    entries = facts.entries or [
        {**entry, "outcome": facts.state, "why": facts.why, "finished_at": facts.finished_at}
        for entry in attempts_of(facts.manifest)[-1:]
    ]
    rows = []
    for number, entry in enumerate(entries, 1):
        begin, end = entry.get("started_at"), entry.get("finished_at")
        outcome, why = str(entry.get("outcome", "runs")), str(entry.get("why", ""))
        rows.append([str(number), moment(begin), moment(end), duration(begin, end), outcome, why])
    return rows


def moment(at: object) -> str:
    """`2026-11-21 02:10:47 UTC`; nothing where it is not known."""
    return re.sub(r"T([0-9:]+).*", r" \1 UTC", at) if isinstance(at, str) else ""


def duration(begin: object, end: object) -> str:
    try:
        seconds = (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(begin))).total_seconds()
    except (ValueError, TypeError):
        return ""
    return f"{seconds:.1f} s" if 0 <= seconds < 10 else in_words(seconds)


@dataclass(frozen=True)
class LogTail:
    name: str
    lines: list[str]
    is_cut: bool  # whether there is more before them


def log_tail(run: RunPaths) -> LogTail | None:
    """The last lines of the latest attempt's log; None where there is none."""
    logs = run.logs()
    if not logs:
        return None
    try:
        with logs[-1].open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            lines = file.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    shown = [line if len(line) <= MAX_LINE else line[:MAX_LINE] + " …" for line in lines[-LOG_LINES:]]
    return LogTail(logs[-1].name, shown, is_cut=size > LOG_BYTES or len(lines) > LOG_LINES)
