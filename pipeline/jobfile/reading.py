"""From a job file and `--set` overrides to a Spec, or to every problem at once, each with its line and a remedy.

A job file is never changed. What is read here is what `spec.py` declares; nothing is known twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic_core import ValidationError

from pipeline import wording
from pipeline.errors import OwnCodeError, Problem, SpecError, UsageError
from pipeline.home import durable
from pipeline.jobfile import sweep, yamltree
from pipeline.jobfile.origins import Origins
from pipeline.jobfile.own_modules import NONE, Modules, using
from pipeline.jobfile.sections import NamedSection
from pipeline.jobfile.spec import Spec, split

MAX_OWN_BYTES = 640_000  # of the modules that are frozen with a job; a ticket has 1 MiB


def load(path: Path, overrides: Sequence[str] = (), *, modules: Modules = NONE) -> Spec:
    """The spec in `path` with `key=value` overrides applied. Raises SpecError, or UsageError where there is no file.

    modules: the user's own, that it may name.
    """
    return load_with_origins(path, overrides, modules=modules)[0]


def load_with_origins(path: Path, overrides: Sequence[str], *, modules: Modules) -> tuple[Spec, Origins]:
    """As `load`, and where each field was given."""
    try:
        with path.open("rb") as file:
            data = file.read(yamltree.MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such job file{_beside(path)}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    with using(modules):
        return parse_with_origins(data, str(path), overrides)


def parse(data: bytes, source: str, overrides: Sequence[str] = ()) -> Spec:
    """As `load`, from the file's bytes; `source` is the name that messages give it."""
    return parse_with_origins(data, source, overrides)[0]


def parse_with_origins(data: bytes, source: str, overrides: Sequence[str] = ()) -> tuple[Spec, Origins]:
    """As `parse`, and where each field was given."""
    root, problems = yamltree.read(data, source)
    if not isinstance(root.value, dict):
        raise SpecError(
            problems or [Problem(source, root.line, "", "a job file is a mapping that begins with 'name: ...'")]
        )
    origins = Origins(source, root)
    for override in overrides:
        source = f"--set {wording.cut(override)}"
        if several := sweep.lists_in(override, source):
            sweep.add_grid(origins, override.partition("=")[0].strip(), several, source)
        else:
            origins.override(override)
            sweep.settle(origins, override)
    if lists := [override for override in overrides if sweep.may_be_list(override)]:
        _search_lists(origins, lists)
    sweep.put_first_values(origins)
    origins.written = root.plain()
    spec = _validate(origins, problems)
    if problems := [*_problems_with_own_code(spec, origins), *(_problems_with_values(origins) if spec.search else ())]:
        raise SpecError(problems)
    return spec, origins


def _search_lists(origins: Origins, overrides: Sequence[str]) -> None:
    """Search the fields that are given several values, as `0.1,0.05`, which none of them can be as it stands."""
    try:
        _validate(origins, [])
    except SpecError as error:
        for override in overrides:
            key, _, values = override.partition("=")
            if any(problem.field == key.strip() and not sweep.wants_list(problem) for problem in error.problems):
                source = f"--set {wording.cut(override)}"
                nodes = yamltree.parse(f"[{values}]".encode("utf-8", "surrogatepass"), source).value
                sweep.add_grid(origins, key.strip(), nodes, source)


def _problems_with_values(origins: Origins) -> Iterator[Problem]:
    """What keeps further values of a sweep from being tried: each is put into the file in its turn."""
    for key, value in sweep.other_values(origins):
        undo = None
        try:
            undo = sweep.trying(origins, key, value)
            spec = _validate(origins, [])
            origins.files |= spec.own_files()
        except SpecError as error:
            yield sweep.blamed(error, origins, key, value)
        except OwnCodeError as error:
            yield sweep.blamed(SpecError([Problem(origins.source, 0, key, str(error))]), origins, key, value)
        finally:
            if undo is not None:
                undo()


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


def _problems_with_own_code(spec: Spec, origins: Origins) -> Iterator[Problem]:
    """What keeps code of the user's own from being frozen with the job."""
    files: dict[str, str] = {}
    for at, section in spec.named_sections():
        if section.entry.own is not None:
            try:
                files |= section.entry.own.files()
            except OwnCodeError as error:
                yield problem_with(at, section, str(error), origins)
            else:
                size = len(durable.to_json(files))
                if size > MAX_OWN_BYTES:
                    what = f"with all that it imports it has {size:,} bytes; a job has at most {MAX_OWN_BYTES:,}"
                    yield problem_with(at, section, what, origins)


def problem_with(at: str, section: NamedSection, what: str, origins: Origins) -> Problem:
    """A problem with the code that a section names."""
    path = (*split(at), "name")
    source, line = origins.find(path)
    return Problem(source, line, ".".join(map(str, path)), f"{section.name!r} does not work: {what}")


def _beside(path: Path) -> str:
    """The job files that lie where the missing one was looked for."""
    there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return wording.nearest(path.name, there) if there else ""
