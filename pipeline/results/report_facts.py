"""What a run's small files say in words: outcome, conditions, environment, attempts, the end of the log.

Any of them may be missing, damaged or edited by hand: what is not there is left out, and nothing here raises for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.board.conditions import Row, as_words, attempts_of, object_at
from pipeline.home import durable
from pipeline.home.ids import name_of
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import frozen
from pipeline.results import run_state
from pipeline.results.run_state import RunState
from pipeline.wording import in_words

LOG_LINES = 40
LOG_BYTES = 64 * 1024
MAX_LINE = 500


@dataclass(frozen=True)
class RunFacts(RunState):
    """What is known of a job and its run, as the files hold it."""

    id: str
    spec_text: str
    spec: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.spec.get("name") or name_of(self.id))

    @property
    def steps_per_epoch(self) -> float | None:
        epochs = run_state.exact_epochs(object_at(self.spec, "train").get("epochs"), self.epochs)
        return self.steps / epochs if self.steps and epochs else None

    def epoch_of(self, step: int) -> str:
        """Returns ` (epoch 3)`, or nothing where that is not known."""
        per_epoch = self.steps_per_epoch
        return f" (epoch {max(1, -(-step // per_epoch)):,.0f})" if per_epoch else ""


def read(home: Home, run: RunPaths) -> RunFacts:
    """Reads all that is known of a run but its curves and its evaluation. Raises OSError."""
    state, manifest, spec_text = run_state.read(home, run), durable.read_json(run.manifest) or {}, _spec_text(run)
    known = {**vars(state), "started_at": state.started_at or _first_start(manifest)}
    return RunFacts(**known, id=run.root.name, spec_text=spec_text, spec=_spec(run), manifest=manifest)


def _first_start(manifest: dict[str, Any]) -> str | None:
    entries = attempts_of(manifest)
    return str(entries[0]["started_at"]) if entries and "started_at" in entries[0] else None


def _spec_text(run: RunPaths) -> str:
    try:
        return frozen.read_text(run)
    except (OSError, ValueError):
        return ""


def _spec(run: RunPaths) -> dict[str, Any]:
    try:
        return frozen.read_tree(run)
    except (OSError, ValueError):
        return {}


def environments(facts: RunFacts) -> list[tuple[str, list[Row]]]:
    """Returns attempts, in words, and where they ran; attempts in a row that ran in the same place share an entry."""
    found: list[tuple[list[str], list[Row]]] = []
    for entry in attempts_of(facts.manifest):
        rows, number = _environment(entry), as_words(entry.get("attempt"))
        if found and found[-1][1] == rows:
            found[-1][0].append(number)
        else:
            found.append(([number], rows))
    return [(f"attempt {n[0]}" if len(n) == 1 else f"attempts {n[0]} to {n[-1]}", rows) for n, rows in found]


def _environment(entry: dict[str, Any]) -> list[Row]:
    code = object_at(entry, "code")
    changes = {"True": ", with uncommitted changes", "False": ", unchanged"}.get(str(code.get("dirty")), "")
    rows: list[tuple[str, object]] = [
        ("pipeline", code.get("version")),
        ("Commit", f"{code['commit']}{changes}" if code.get("commit") else "not known: not run from a git checkout"),
        ("Python", entry.get("python")),
        ("Platform", entry.get("platform")),
        *object_at(entry, "packages").items(),
        ("CUDA", entry.get("cuda")),
        ("Image digest", entry.get("image_digest")),
        *((str(key).replace("_", " ").capitalize(), value) for key, value in object_at(entry, "computes").items()),
    ]
    return [(str(label), as_words(value)) for label, value in rows if value is not None]


def attempts(facts: RunFacts) -> list[list[str]]:
    """Returns a row for each attempt: number, start, end, how long, outcome, why."""
    entries: Sequence[Mapping[str, Any]] = facts.entries or [
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
    """Returns a time as `2026-11-21 02:10:47 UTC`; nothing where it is not known."""
    return re.sub(r"T([0-9:]+).*", r" \1 UTC", at) if isinstance(at, str) else ""


def duration(begin: object, end: object) -> str:
    """Returns the time between two moments in words; nothing where one is not known."""
    try:
        seconds = (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(begin))).total_seconds()
    except (ValueError, TypeError):
        return ""
    return f"{seconds:.1f} s" if 0 <= seconds < 10 else in_words(seconds)


@dataclass(frozen=True)
class LogTail:
    """The end of a log."""

    name: str
    lines: list[str]
    is_cut: bool  # whether there is more before them


def log_tail(run: RunPaths) -> LogTail | None:
    """Returns the last lines of the latest attempt's log; None where there is none."""
    logs = run.logs()
    if not logs:
        return None
    try:
        with os.fdopen(durable.open_plain(logs[-1]), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            lines = file.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    shown = [line if len(line) <= MAX_LINE else line[:MAX_LINE] + " …" for line in lines[-LOG_LINES:]]
    return LogTail(logs[-1].name, shown, is_cut=size > LOG_BYTES or len(lines) > LOG_LINES)
