"""From a job file and `--set` overrides to a Spec, or to every problem at once, each with its line and a remedy.

A job file is never changed. What is read here is what `spec.py` declares; nothing is known twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic_core import ValidationError

from pipeline import wording
from pipeline.errors import Problem, SpecError, UsageError
from pipeline.jobfile import yamltree
from pipeline.jobfile.origins import Origins
from pipeline.jobfile.spec import Spec


def load(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """The spec in `path` with `key=value` overrides applied. Raises SpecError, or UsageError where there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(yamltree.MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such job file{_beside(path)}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(data, str(path), overrides)


def parse(data: bytes, source: str, overrides: Sequence[str] = ()) -> Spec:
    """As `load`, from the file's bytes; `source` is the name that messages give it."""
    root, problems = yamltree.read(data, source)
    if not isinstance(root.value, dict):
        raise SpecError(
            problems or [Problem(source, root.line, "", "a job file is a mapping that begins with 'name: ...'")]
        )
    origins = Origins(source, root)
    for override in overrides:
        origins.override(override)
    return _validate(origins, problems)


def _validate(origins: Origins, refused: list[Problem]) -> Spec:
    """The spec. `refused` are the file's problems as YAML; what else is wrong on their lines is no news."""
    plain = origins.root.plain()
    problems = list(refused)
    try:
        spec = Spec.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        from pipeline.jobfile.problems import explain_all

        known = {problem.line for problem in refused}
        problems += explain_all(error, plain, origins, known=known, most=yamltree.MAX_PROBLEMS + 1)
    if not problems:
        return spec
    problems.sort(key=lambda problem: (problem.source != origins.source, problem.line))
    if len(problems) > yamltree.MAX_PROBLEMS:
        problems[yamltree.MAX_PROBLEMS :] = [yamltree.and_more(origins.source)]
    raise SpecError(problems)


def _beside(path: Path) -> str:
    """The job files that lie where the missing one was looked for."""
    there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return wording.nearest(path.name, there) if there else ""
