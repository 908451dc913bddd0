"""Modules of the user's own, as the commands meet them: where they lie, and whether their code works."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from pipeline.errors import Problem
from pipeline.home.paths import Home, RunPaths
from pipeline.jobfile import reading
from pipeline.jobfile.origins import Origins
from pipeline.jobfile.spec import Spec


def folder_for(file: Path, home: Home) -> Path:
    """The folder of modules that a job file may name: the home's, or a run's own for the spec that lies there."""
    run = RunPaths(file.absolute().parent)
    return run.modules if file.name == run.spec.name and run.modules.is_dir() else home.modules


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
    done = subprocess.run(command, input=json.dumps(request | where), stdout=subprocess.PIPE, text=True, check=False)
    try:
        answers = [(str(at), str(message)) for at, message in json.loads(done.stdout)]
    except (ValueError, TypeError):
        at = next(iter(sections))
        what = f"the process that tried it ended with exit code {done.returncode}"
        return [reading.problem_with(at, sections[at], what, origins)]
    return [reading.problem_with(at, sections[at], message, origins) for at, message in answers]
