"""Where a home's TensorBoard is, in words: what to open, or what to type first."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from pipeline.home.paths import Home

TENSORBOARD_URL = "PIPELINE_TENSORBOARD_URL"  # environment variable: where a container serves it


def command_to_look(home: Home) -> str:
    """What to type, here and now, to see a home's runs in TensorBoard."""
    if url := os.environ.get(TENSORBOARD_URL):
        return f"make up, then open {url}"
    program = Path(sys.argv[0])
    words = [str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)]
    words += [] if home == Home.find() else ["--home", str(home.root)]
    return f"{shlex.join([*words, 'up'])}, then open http://localhost:6006"
