"""The settings of a home: `HOME/settings.yaml`, what its jobs ask a cluster for where their files leave it open.

resources: {gpus: 1, cpus: 8, slurm: {partition: gpu, account: lab}}
"""

from __future__ import annotations

import json

from pydantic_core import ValidationError

from pipeline.errors import Problem, SpecError
from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.jobfile import yamltree
from pipeline.jobfile.fields import field
from pipeline.jobfile.origins import Origins
from pipeline.jobfile.resources import OpenResources
from pipeline.jobfile.sections import Section


class Settings(Section):
    resources: OpenResources = field({}, description="Of jobs whose files leave them open.")


def read(home: Home) -> Settings:
    """The settings; the defaults where there is no file. Raises SpecError with all that is wrong, and OSError."""
    try:
        data = durable.read_small(home.settings, limit=yamltree.MAX_BYTES)
    except FileNotFoundError:
        return Settings()
    except ValueError as error:
        raise SpecError([Problem(str(home.settings), 0, "", str(error))]) from None
    root, problems = yamltree.read(data, str(home.settings))
    if not isinstance(root.value, dict):
        raise SpecError(problems or [Problem(str(home.settings), root.line, "", "it begins with 'resources: ...'")])
    if problems:
        raise SpecError(problems)
    plain = root.plain()
    try:
        return Settings.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        from pipeline.jobfile.problems import explain_all
        from pipeline.jobfile.spec import Spec

        Spec.fill_in_types()  # values that are wrong are explained as in a job file, where they stand at the same place
        origins = Origins(str(home.settings), root)
        raise SpecError(
            explain_all(error, plain, origins, known=set(), most=yamltree.MAX_PROBLEMS, root=Settings)
        ) from None
