"""What a node of a cluster sees of a home: asked by a task of the cluster, for `pipeline doctor --on`.

    python -m pipeline.worker.executors.probe FOLDER

FOLDER has a file `token` and so has the folder of datasets; what the node finds is written to `found.json` beside it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import SpecError
from pipeline.home import durable, paths
from pipeline.home.paths import Home
from pipeline.jobfile import settings
from pipeline.jobfile.resources import Resources
from pipeline.queue.checks import Check
from pipeline.worker.executors.engine import BusyError, Engine, RefusedError, Task, UnreachableError
from pipeline.worker.gpus import visible_gpus

LIMIT_S = 120.0
PACKAGES = ("pipeline", "torch", "torchvision")
NODE_VARIABLES = ("SLURMD_NODENAME", "RAY_NODE_IP_ADDRESS")


def check_cluster(home: Home, engine: Engine) -> Iterator[Check]:
    """Run a task on a node, and compare what it sees with what is here."""
    token = secrets.token_hex(8)
    folder, mark = home.runs / f".doctor-{token}", home.datasets / f".doctor-{token}"
    try:
        folder.mkdir(parents=True)
        home.datasets.mkdir(parents=True, exist_ok=True)
        for file in (folder / "token", mark):
            file.write_text(token)
        yield from _ask(home, engine, folder, token)
    except (UnreachableError, RefusedError, BusyError, SpecError) as error:
        yield Check(engine.name, "error", str(error))
    except OSError as error:
        yield Check(engine.name, "error", durable.in_words(error))
    finally:
        mark.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _ask(home: Home, engine: Engine, folder: Path, token: str) -> Iterator[Check]:
    places = {paths.RUNS: str(home.runs), paths.DATASETS: str(home.datasets)}
    command = [sys.executable, "-P", "-m", "pipeline.worker.executors.probe", str(folder)]
    task = Task(f"doctor-{token}", command, places, folder / "log", Resources().over(settings.read(home).resources))
    task.log.touch()
    task_id = engine.submit(task)
    until, seen = time.monotonic() + LIMIT_S, None
    while time.monotonic() < until:
        seen = engine.look([task.name]).get(task.name)
        if seen is not None and seen.phase == "ended":
            break
        time.sleep(0.5)
    else:
        engine.kill(task.name)
        why = seen.words if seen else ""
        yield Check(
            engine.name, "error", f"job {task_id} has not run within {LIMIT_S:g} s" + (f": {why}" if why else "")
        )
        return
    yield Check(engine.name, "ok", f"job {task_id} ran" + (f" on {seen.node}" if seen.node else ""))
    found = durable.read_json(folder / "found.json")
    if found is None:
        said = task.log.read_text(errors="replace").strip().splitlines()
        what = said[-1] if said else f"it said nothing here; status {seen.status} {seen.words}".rstrip()
        advice = "PIPELINE_RUNS must name a folder that the nodes share, with this Python on them"
        yield Check(
            "shared runs", "error", f"a node does not see {home.runs} as it is here, or cannot run: {what}; {advice}"
        )
        return
    yield Check("shared runs", "ok", str(home.runs))
    if found["datasets"] == token:
        yield Check("shared datasets", "ok", str(home.datasets))
    else:
        yield Check(
            "shared datasets", "error", f"a node sees another {home.datasets}; share one, named by {paths.DATASETS}"
        )
    here, there = versions(), found["versions"]
    differ = [f"{name} {there.get(name)}, here {here[name]}" for name in here if there.get(name) != here[name]]
    if differ:
        yield Check("versions", "warning", f"on the node: {'; '.join(differ)}")
    else:
        yield Check("versions", "ok", ", ".join(f"{name} {version}" for name, version in here.items()))
    yield Check("gpus of the node", "ok", ", ".join(found["gpus"]) or "none was given to the task")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def look_around(folder: Path) -> dict[str, Any]:
    token = (folder / "token").read_text()
    mark = Path(os.environ[paths.DATASETS]) / f".doctor-{token}"
    return {
        "datasets": mark.read_text() if mark.exists() else "",
        "versions": versions(),
        "gpus": [str(gpu) for gpu in visible_gpus()],
    }


def main() -> None:
    folder = Path(sys.argv[1])
    durable.replace_json(folder / "found.json", look_around(folder))


if __name__ == "__main__":
    main()
