"""The command line as tests run it, and jobs that end as a worker ends them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.queue.job_queue import Queue

Pipeline = Callable[..., subprocess.CompletedProcess[str]]
JobFile = Callable[..., Path]


def submitted(pipeline: Pipeline, *arguments: str | Path) -> list[str]:
    done = pipeline("submit", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def end(home: Home, job_id: str, outcome: Any = "succeeded", why: str = "trained for 10 epochs") -> None:
    """End a waiting job as a worker does."""
    queue = Queue(home)
    claim = queue.claim("test")
    while claim is not None and claim.id != job_id:
        claim.lease.release()
        claim = queue.claim("test")
    assert claim is not None
    queue.end(claim, Result(1, outcome, why, 10, 10, 100, {"test/accuracy": 0.987}))
    claim.lease.release()
