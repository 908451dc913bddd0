"""The scalars of runs as each reader has them: TensorBoard's two loaders, and `pipeline export`."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quick import wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.data.server_ingester import ExistingServerDataIngester, get_server_binary
from tensorboard.util.grpc_util import ChannelCredsType

from attack import invariants
from pipeline.board import tags
from pipeline.home.paths import Home

Curves = dict[str, dict[int, float]]  # tag: step: value

MEASURED = {tags.IMAGES_PER_SECOND, tags.DEVICE_MEMORY}  # of these only the steps are the same each time
LOAD_S = 30.0
logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of each restart


def differences(home: Home, job_ids: list[str], reference: Curves) -> list[str]:
    """What each of the three readers has otherwise than the reference."""
    readers = {"TensorBoard (Rust)": served(home, job_ids, reference)}
    for job_id in job_ids:
        readers[f"TensorBoard (Python) of {job_id}"] = {job_id: accumulated(home, job_id)}
        readers[f"export of {job_id}"] = {job_id: exported(home, job_id)}
    return [
        f"{reader}: {job_id}: {what}"
        for reader, runs in readers.items()
        for job_id, curves in runs.items()
        if (what := difference(curves, reference))
    ]


def difference(curves: Curves, reference: Curves) -> str:
    """The first one, in words; empty where there is none."""
    if lost := reference.keys() - curves.keys():
        return f"there is no {sorted(lost)[0]}"
    for tag, points in reference.items():
        if curves[tag].keys() != points.keys():
            return f"{tag} has the steps {_short(curves[tag])} and should have {_short(points)}"
        wrong = [step for step in points if abs(curves[tag][step] - points[step]) > 1e-6 * abs(points[step])]
        if tag not in MEASURED and wrong:
            return f"{tag} is {curves[tag][wrong[0]]} at step {wrong[0]}, not {points[wrong[0]]}"
    return ""


def _short(points: dict[int, float]) -> str:
    return f"{len(points)}, {[*points][:3]} to {[*points][-3:]}"


def accumulated(home: Home, job_id: str) -> Curves:
    """By TensorBoard's reader in Python."""
    reader = EventAccumulator(str(home.run(job_id).root), size_guidance={"scalars": 0})
    reader.Reload()
    found: Curves = {}
    for tag in reader.Tags()["scalars"]:
        events = reader.Scalars(tag)
        found[tag] = {event.step: event.value for event in events}
        if len(found[tag]) != len(events):
            found[tag][-1] = len(events)  # a step stands there twice
    return found


def exported(home: Home, job_id: str) -> Curves:
    code, text = invariants.command(home, "export", job_id)
    found: Curves = defaultdict(dict)
    for row in csv.DictReader(io.StringIO(text)) if code == 0 else ():
        found[row["tag"]][int(row["step"])] = float(row["value"])
    return found


def served(home: Home, job_ids: list[str], reference: Curves) -> dict[str, Curves]:
    """By TensorBoard's data server in Rust, asked until it has read all there is, or no more comes."""
    with data_server(home) as provider:
        deadline = time.monotonic() + LOAD_S
        while True:
            found = {job_id: _ask(provider, job_id) for job_id in job_ids}
            is_all = not any(difference(curves, reference) for curves in found.values())
            if is_all or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


@contextlib.contextmanager
def data_server(home: Home) -> Iterator[Any]:
    """As TensorBoard starts it, with every point kept."""
    with tempfile.TemporaryDirectory() as folder:
        port, options = Path(folder) / "port", ("--reload=once", "--samples-per-plugin=scalars=all", "--port=0")
        command = [get_server_binary().path, f"--logdir={home.runs}", *options, f"--port-file={port}"]
        with subprocess.Popen(command) as process:
            try:
                wait_until(lambda: port.exists() and port.read_text().endswith("\n"), "TensorBoard's data server")
                server = ExistingServerDataIngester(
                    f"localhost:{port.read_text().strip()}", channel_creds_type=ChannelCredsType.LOCAL
                )
                yield server.data_provider
            finally:
                process.kill()


def _ask(provider: Any, job_id: str) -> Curves:
    answer = provider.read_scalars(RequestContext(), experiment_id="", plugin_name="scalars", downsample=100_000)
    return {tag: {p.step: p.value for p in points} for tag, points in answer.get(job_id, {}).items()}
