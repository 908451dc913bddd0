"""What an engine adds to a short job's time, and 200 short jobs through each: this machine, Slurm, Ray.

    python benchmarks/clusters.py [--jobs 200] [--slots 8] [--only local,slurm,ray] [--json]

The clusters are those of the tests: two nodes on this one machine (tests/clusters). A job computes nothing: its attempt
is a Python process that leaves its result at once. Ray is found by PIPELINE_TEST_RAY, Slurm where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from throughput import describe

from pipeline.home.paths import Home
from pipeline.jobfile.spec import Spec
from pipeline.queue.job_queue import Queue

TESTS = Path(__file__).resolve().parent.parent / "tests"
ALONE = 7  # jobs, one after the other
STAND_IN = """
from pipeline.worker.executors import local
local.ATTEMPT = "stand_in_attempt"
from pipeline.cli import main
main.main()
"""
JOB = {"name": "short", "model": {"name": "net"}, "data": {"name": "mnist"}, "resources": {"device": "cpu"}}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=200, help="through each (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=8, help="of the worker (default: %(default)s)")
    parser.add_argument("--only", default="local,slurm,ray", help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = describe(len(os.sched_getaffinity(0)))
    for name in arguments.only.split(","):
        if reason := why_not(name):
            print(f"{name}: left out: {reason}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder, site(name, Path(folder)) as (options, environment):
            options = [*options, "--slots", str(arguments.slots)]
            alone = [seconds_of(1, options, environment) for _ in range(ALONE)]
            many = seconds_of(arguments.jobs, options, environment)
        found[name] = {
            "one job, median": round(statistics.median(alone), 2),
            "one job, all": [round(seconds, 2) for seconds in alone],
            f"{arguments.jobs} jobs": round(many, 1),
        }
        if not arguments.json:
            print(f"{name}: one job {found[name]['one job, median']} s, {arguments.jobs} jobs {many:.1f} s", flush=True)
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(f"{k:8} {v}" for k, v in found.items()))
    return 0


def why_not(name: str) -> str | None:
    sys.path.insert(0, str(TESTS / "clusters"))
    from ray_cluster import missing_part
    from slurm_cluster import why_no_slurm

    return {"slurm": why_no_slurm, "ray": missing_part}.get(name, str)()


@contextlib.contextmanager
def site(name: str, folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """What a worker is started with, and in."""
    if name == "slurm":
        from slurm_cluster import SlurmCluster

        with SlurmCluster(folder / "slurm") as slurm:
            yield ["--on", "slurm"], slurm.environment
    elif name == "ray":
        from ray_cluster import RayCluster

        with RayCluster(folder / "ray") as ray:
            yield ["--on", "ray"], ray.environment
    else:
        yield [], {}


def seconds_of(num_jobs: int, options: list[str], environment: dict[str, str]) -> float:
    """From the submission, to a worker that has nothing to do, until the last end is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        queue = Queue(Home(Path(folder)))
        queue.create()
        path = os.pathsep.join([str(TESTS / "clusters"), str(TESTS.parent)])
        worker = subprocess.Popen(
            [sys.executable, "-c", STAND_IN, "--home", folder, "worker", *options],
            env={**os.environ, **environment, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not queue.live_workers():
                time.sleep(0.05)
            time.sleep(1)
            began = time.perf_counter()
            queue.submit_all([Spec.model_validate_json(json.dumps(JOB))] * num_jobs)
            while len(queue.tickets.ids("done")) < num_jobs:
                time.sleep(0.02)
            return time.perf_counter() - began
        finally:
            worker.terminate()
            worker.wait()


if __name__ == "__main__":
    sys.exit(main())
