"""Temporary files in a run of attempts that were killed while they wrote."""

from __future__ import annotations

import contextlib

from pipeline.home.paths import RunPaths

PATTERNS = (".*.tmp", "progress.tmp", "checkpoints/.*", "projector/.*.tmp", "profile/.*")
NOT_OURS = ".report.html."  # another process may be writing the report


def remove_temporaries(run: RunPaths) -> None:
    """Removes what killed attempts were writing into the run. Only the holder of the job's lease may call this.

    What the disk does not let go stays: nobody takes it for anything else.
    """
    for pattern in PATTERNS:
        for path in run.root.glob(pattern):
            with contextlib.suppress(OSError):  # a folder
                if not path.name.startswith(NOT_OURS):
                    path.unlink()  # a pipe too: whoever writes to that name would wait for a reader
