"""The Slurm of the tests is a real one: it runs jobs, loses its controller and its nodes, and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import NODES, SlurmCluster, wait_until, why_no_slurm

pytestmark = [
    pytest.mark.clusters,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(why_no_slurm() is not None, reason=why_no_slurm() or ""),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster
    assert cluster.processes() == []


def submit(cluster: SlurmCluster, node: str, script: str) -> str:
    """The id of a job that is never run again."""
    options = ["--parsable", "--no-requeue", f"--nodelist={node}", f"--output={cluster.folder}/%j.out"]
    return cluster.call("sbatch", *options, "--wrap", script)


def state(cluster: SlurmCluster, job: str) -> str:
    return cluster.call("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


def output(cluster: SlurmCluster, job: str) -> str:
    file = cluster.folder / f"{job}.out"
    return file.read_text() if file.exists() else ""


def start_sleeper(cluster: SlurmCluster, node: str) -> tuple[str, Path]:
    """A job that runs until it is killed, and the folder in /proc of its process."""
    job = submit(cluster, node, "echo $$; exec sleep 600")
    wait_until(lambda: output(cluster, job).endswith("\n"), f"start of {job}", cluster.folder / "slurmctld.log")
    return job, Path("/proc") / output(cluster, job).strip()


def lives(process: Path) -> bool:
    """Whether it runs; one that has ended may stay in /proc, without a command line, until process 1 sees it."""
    command = process / "cmdline"
    return command.exists() and command.read_bytes() != b""


def wait_for_state(cluster: SlurmCluster, job: str, expected: str) -> None:
    wait_until(lambda: state(cluster, job) == expected, f"{expected} of {job}", cluster.folder / "slurmctld.log")


def test_each_node_runs_a_job(cluster: SlurmCluster) -> None:
    jobs = {node: submit(cluster, node, "echo $SLURMD_NODENAME") for node in NODES}
    for node, job in jobs.items():
        wait_for_state(cluster, job, "COMPLETED")
        assert output(cluster, job) == f"{node}\n"


def test_a_job_outlives_the_controller(cluster: SlurmCluster) -> None:
    job, process = start_sleeper(cluster, "n1")
    cluster.wait_until_saved()
    cluster.kill_controller()
    assert lives(process)
    cluster.start_controller()
    cluster.wait_until_ready()
    assert state(cluster, job) == "RUNNING"
    assert lives(process)
    cluster.call("scancel", job)
    wait_for_state(cluster, job, "CANCELLED")
    assert not lives(process)


def test_a_process_outlives_its_lost_node_until_the_node_is_back(cluster: SlurmCluster) -> None:
    job, process = start_sleeper(cluster, "n2")
    cluster.lose_node("n2", declare=True)
    wait_for_state(cluster, job, "NODE_FAIL")
    assert lives(process)
    cluster.restore_node("n2")
    cluster.wait_until_ready()
    wait_until(lambda: not lives(process), "end of the process", cluster.folder / "n2.log")


def test_an_urgent_job_takes_the_place_of_another(cluster: SlurmCluster) -> None:
    job, process = start_sleeper(cluster, "n1")
    urgent = cluster.call("sbatch", "--parsable", "--partition=urgent", "--nodelist=n1", "-c4", "--wrap", "exit 3")
    wait_for_state(cluster, job, "PREEMPTED")
    wait_for_state(cluster, urgent, "FAILED")
    assert "ExitCode=3:0" in cluster.call("scontrol", "show", "job", urgent)
    assert not lives(process)


def test_a_cluster_leaves_no_process_though_a_node_is_lost(tmp_path: Path) -> None:
    with SlurmCluster(tmp_path) as cluster:
        _, process = start_sleeper(cluster, "n1")
        cluster.lose_node("n1")
    assert not lives(process)
    assert cluster.processes() == []
    assert not cluster.sockets.exists()
