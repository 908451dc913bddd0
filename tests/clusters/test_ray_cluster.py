"""The Ray of the tests: it runs jobs, loses a node whose processes live on, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import RayCluster, missing_part, processes, wait_for

REQUIRED = os.environ.get("PIPELINE_REQUIRE_CLUSTERS")
pytestmark = [
    pytest.mark.clusters,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(bool(missing_part()) and not REQUIRED, reason=missing_part() or "Ray is here"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("a-folder-whose-name-is-longer-than-a-socket-of-ray-bears")
    with RayCluster(folder) as cluster:
        yield cluster
    assert with_files_in(folder) == []


def with_files_in(folder: Path) -> list[str]:
    """The names of the processes with an open file in a folder, as all of Ray's have; the cluster is not asked."""
    found = []
    for process in processes():
        with contextlib.suppress(OSError):
            links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
            if any(link.startswith(str(folder)) for link in links):
                found.append(process.name)
    return found


def submit(cluster: RayCluster, entrypoint: str, **more: Any) -> str:
    body = {"entrypoint": entrypoint, "entrypoint_num_cpus": 1, **more}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(cluster.address + "/api/jobs/", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(json.load(response)["submission_id"])


def details(cluster: RayCluster, job: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{cluster.address}/api/jobs/{job}", timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def wait_for_status(cluster: RayCluster, job: str, *wanted: str) -> dict[str, Any]:
    wait_for(lambda: details(cluster, job)["status"] in wanted, f"{job} is not {wanted}")
    return details(cluster, job)


def test_a_job_runs_on_the_node_it_asks_for_and_reports_its_exit_code(cluster: RayCluster, tmp_path: Path) -> None:
    job = submit(cluster, f"echo $RAY_CLUSTER_NODE > {tmp_path}/node; exit 7", entrypoint_resources={"node_two": 1})
    ended = wait_for_status(cluster, job, "SUCCEEDED", "FAILED")
    assert (ended["status"], ended["driver_exit_code"]) == ("FAILED", 7)
    assert (tmp_path / "node").read_text() == "two\n"


def test_a_lost_node_s_job_fails_while_its_process_lives_on(cluster: RayCluster, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    entrypoint = f"echo $$ > {pid_file}; exec sleep 600"
    job = submit(cluster, entrypoint, submission_id="left.1", entrypoint_resources={"node_one": 1})
    wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), "the job does not start")
    pid = int(pid_file.read_text())

    cluster.lose_node("one")
    assert wait_for_status(cluster, job, "FAILED")["driver_exit_code"] is None
    assert pid in [process.pid for process in processes()]

    cluster.restore_node("one")  # a new one, while the old one's process still runs
    cluster.wait_until_ready()
    assert pid in [process.pid for process in processes()]

    cluster.return_node("one")  # the old raylet finds that it was given up
    wait_for(lambda: pid not in [process.pid for process in processes()], "the old process outlives its raylet")


def test_a_new_head_knows_no_earlier_job(cluster: RayCluster, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    job = submit(cluster, f"echo $$ > {pid_file}; exec sleep 600", entrypoint_resources={"node_two": 1})
    wait_for_status(cluster, job, "RUNNING")
    cluster.kill_head()
    with pytest.raises(OSError, match="refused"):
        details(cluster, job)
    cluster.start_head()
    wait_for(lambda: _unknown(cluster, job), "the new head does not answer")


def _unknown(cluster: RayCluster, job: str) -> bool:
    try:
        details(cluster, job)
    except urllib.error.HTTPError as error:
        return error.code == 404
    except OSError:
        return False
    return False
