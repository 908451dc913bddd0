"""Modules of the user's own, as the commands meet them: where they lie, and whether their code works."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.errors import Problem
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import reading
from pipeline.jobfile.origins import Origins
from pipeline.jobfile.own_modules import Modules
from pipeline.jobfile.spec import Spec

LIMIT_S = 600.0  # that code may take to be tried


def modules_for(file: Path, home: Home) -> Modules:
    """The modules that a job file may name: the home's, or a run's own for the spec that lies there."""
    run = RunPaths(file.absolute().parent)
    is_frozen = file.name == run.spec.name and run.modules.is_dir()
    return Modules.in_folder(run.modules if is_frozen else home.modules)


def rehearse(spec: Spec, origins: Origins) -> list[Problem]:
    """What is wrong with the user's own code when it is called, in a process of its own; it may do anything.

    Nothing where torch is not installed: it is told when the job starts.
    """
    sections = {at: section for at, section in spec.named_sections() if section.entry.own is not None}
    if not sections or importlib.util.find_spec("torch") is None:
        return []
    own = next(section.entry.own for section in sections.values() if section.entry.own is not None)
    request = {"spec": spec.model_dump(mode="json"), "files": spec.own_files()}
    where = {"label": own.sources.label, "root": str(own.sources.root)}
    command = [sys.executable, "-P", "-m", "pipeline.training.rehearsal"]
    answer, status = _answer(command, json.dumps(request | where))
    try:
        answers = [(str(at), str(message)) for at, message in json.loads(answer)]
    except (ValueError, TypeError):
        at = next(iter(sections))
        what = f"the process that tried it ended with exit code {status}"
        if status is None:
            what = f"the process that tried it took longer than {LIMIT_S:g} s"
        return [reading.problem_with(at, sections[at], what, origins)]
    return [reading.problem_with(at, sections[at], message, origins) for at, message in answers]


def _answer(command: list[str], request: str) -> tuple[str, int | None]:
    """What a process prints, and its exit code, None where it took too long; what it has started is killed."""
    with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as question:
        question.write(request)
        question.seek(0)  # files, and no pipes: a child that it leaves behind would hold their ends open
        process = subprocess.Popen(command, stdin=question, stdout=answer, start_new_session=True)
        try:
            status: int | None = process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answer.seek(0)
        return answer.read(), status
