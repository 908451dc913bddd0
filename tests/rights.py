"""Commands as a user runs them who may not read everything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import pytest


def without_root_s(command: Sequence[str]) -> list[str]:
    """The command without root's right to read every file. Skips the test where root cannot give that up."""
    if os.geteuid() != 0:
        return [*command]
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv to give up root's rights with")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
