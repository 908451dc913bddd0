"""The frozen spec of a run: `runs/<id>/spec.yaml`, the validated job file with every default filled in.

This module alone writes that file and makes a spec of it. It can be submitted again as it is.
"""

from __future__ import annotations

import yaml

from pipeline.home import durable
from pipeline.home.paths import RunPaths
from pipeline.jobfile import yamltree
from pipeline.jobfile.spec import Spec


class _Dumper(yaml.SafeDumper):
    """Quotes text that a job file's reader would take for something else, as 1e5."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = yamltree.scalar(text) == text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _represent_text)


def load(run: RunPaths) -> Spec:
    return Spec.model_validate_json(durable.to_json(yaml.safe_load(run.spec.read_bytes())))


def save(run: RunPaths, spec: Spec) -> None:
    """The frozen spec with every default filled in, as YAML that could be submitted again."""
    durable.make_folder(run.root)
    text = yaml.dump(spec.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    durable.replace(run.spec, lambda file: file.write(text.encode()))
