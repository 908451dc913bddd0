"""Where a home's TensorBoard is, in words: what to open, or what to type first."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from pipeline.home import board_addresses
from pipeline.home.paths import Home

SERVED_AT = (
    "PIPELINE_TENSORBOARD_AT"  # environment variable: where it answers now, as whoever starts the containers knows
)
SERVED_ONCE_UP = "PIPELINE_TENSORBOARD_URL"  # environment variable: where a container serves it once that is up


def way_to_tensorboard(home: Home) -> str:
    """The addresses where TensorBoard answers for a home, else what to type, here and now, to see its runs there."""
    if found := [url for url in [os.environ.get(SERVED_AT)] if url] or board_addresses.answering(home.queue):
        return ", ".join(found)
    if url := os.environ.get(SERVED_ONCE_UP):
        return f"make up, then open {url}"
    program = Path(sys.argv[0])
    words = [str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)]
    words += [] if home == Home.find() else ["--home", str(home.root)]
    return f"{shlex.join([*words, 'up'])}, then open http://localhost:6006"
