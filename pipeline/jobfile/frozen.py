"""The frozen spec of a run: `runs/<id>/spec.yaml`, the validated job file with every default filled in.

Beside it lie the user's own modules that it names, `modules/`. This is the one reader and writer of these files. The
spec can be submitted again as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import SpecError
from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.jobfile import own_modules, yamltree
from pipeline.jobfile.own_modules import Modules
from pipeline.jobfile.spec import Spec

MAX_BYTES = 256 * 1024


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which the dumper does not write: a few lines of them may stand for all of the memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias stands in it")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that a job file's reader would take for something else, as 1e5."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = yamltree.scalar(text) == text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _represent_text)


def load(run: RunPaths) -> Spec:
    """The spec, with the run's modules. Raises OSError where it cannot be read, and what PyYAML and Pydantic raise."""
    with os.fdopen(durable.open_plain(run.spec), "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"{run.spec}: it is too long")
    with own_modules.using(modules(run)):
        return Spec.model_validate_json(durable.to_json(upgraded(yaml.load(text, Loader=_Loader))))


def upgraded(fields: Any) -> Any:
    """What an older version has frozen, as this one takes it: beside widths there was a depth, not looked at."""
    model = fields.get("model") if isinstance(fields, dict) else None
    if not isinstance(model, dict) or model.get("name") != "vgg" or model.get("widths") is None:
        return fields
    return {**fields, "model": {**model, "depth": None}}


def modules(run: RunPaths) -> Modules:
    """The user's own modules, as they were frozen with the job."""
    return Modules(run.modules.name, run.modules)


def save(run: RunPaths, spec: Spec) -> None:
    """The frozen spec with every default filled in, as YAML that could be submitted again."""
    durable.make_folder(run.root)
    _save(run, spec.model_dump(mode="json"), spec.own_files())


def save_sweep(run: RunPaths, written: dict[str, Any], modules: Mapping[str, str]) -> None:
    """The job file of a sweep, as it was written, and the user's own files that its trials need."""
    durable.make_folder(run.root)
    _save(run, written, modules)


def _save(run: RunPaths, fields: dict[str, Any], modules: Mapping[str, str]) -> None:
    for name, content in modules.items():
        _save_module(run.modules / name, content.encode())
    durable.replace(run.spec, lambda file: file.write(to_yaml(fields).encode()))


def to_yaml(fields: dict[str, Any]) -> str:
    """The fields of a job file as one that could be submitted."""
    text: str = yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _save_module(path: Path, content: bytes) -> None:
    durable.make_folder(path.parent)
    durable.replace(path, lambda file: file.write(content))


def read_text(run: RunPaths) -> str:
    """Returns the file as it stands. Raises OSError where it cannot be read, ValueError where it is none of ours."""
    return durable.read_small(run.spec, limit=MAX_BYTES).decode("utf-8", "replace")


def read_tree(run: RunPaths) -> dict[str, Any]:
    """Returns the fields, not validated, so that runs of other versions of the program can be looked at.

    Raises OSError as `read_text` does, and ValueError too where it is no mapping.
    """
    try:
        tree = yamltree.parse(read_text(run).encode(), run.spec.name).plain()
    except SpecError as error:
        raise ValueError(str(error)) from None
    if not isinstance(tree, dict):
        raise ValueError("it is no job file")  # noqa: TRY004 - of the file, not of the program
    return tree


def read_whole_tree(run: RunPaths) -> dict[str, Any]:
    """As `read_tree`; what an older version knew no fields for is at its default, where this one takes the file."""
    tree = read_tree(run)
    try:
        return load(run).model_dump(mode="json")
    except (ValueError, TypeError, yaml.YAMLError, RecursionError):  # what pydantic raises is a ValueError
        return tree
