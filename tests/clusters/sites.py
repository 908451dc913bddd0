"""The three places that attempts run at, as the tests of all of them see them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ray_cluster import RayCluster, missing_part
from slurm_cluster import SlurmCluster, why_no_slurm
from worker_processes import training_process

from pipeline.home.paths import Home

REQUIRED = "PIPELINE_REQUIRE_CLUSTERS"  # environment variable: no test of a cluster may be skipped


@dataclass
class Site:
    """This machine, without a cluster."""

    name: str = "local"
    arguments: list[str] = field(default_factory=list)  # of a worker
    environment: dict[str, str] = field(default_factory=dict)

    def interrupt(self, home: Home, job_id: str) -> None:
        """Have whoever gives the place take it back for a while: the attempt is told to save itself."""
        raise NotImplementedError


@dataclass
class ClusterSite(Site):
    """What can be done to both clusters."""

    jobs_outlive_daemon: bool = True

    def without_daemon(self) -> AbstractContextManager[None]:
        """Kills the engine's daemon; at the end there is another one that takes jobs."""
        raise NotImplementedError

    def interrupt(self, home: Home, job_id: str) -> None:
        os.kill(training_process(home, job_id), signal.SIGTERM)

    def lose_node(self, where: str) -> Callable[[], None]:
        """Have the cluster give up the node of an attempt, whose process lives on. Returns what brings it back."""
        raise NotImplementedError

    def stop_outside(self, task: str) -> None:
        """Stop a job's first attempt as a person does who knows the cluster alone."""
        raise NotImplementedError


@dataclass
class SlurmSite(ClusterSite):
    cluster: SlurmCluster = field(kw_only=True)

    @contextlib.contextmanager
    def without_daemon(self) -> Iterator[None]:
        self.cluster.wait_until_saved()
        self.cluster.kill_controller()
        try:
            yield
        finally:
            self.cluster.start_controller()
            self.cluster.wait_until_ready()

    def lose_node(self, where: str) -> Callable[[], None]:
        self.cluster.lose_node(where, declare=True)

        def restore() -> None:
            self.cluster.restore_node(where)
            self.cluster.wait_until_ready()

        return restore

    def stop_outside(self, task: str) -> None:
        self.cluster.call("scancel", f"--name={task}")


@dataclass
class RaySite(ClusterSite):
    cluster: RayCluster = field(kw_only=True)
    jobs_outlive_daemon: bool = False

    @contextlib.contextmanager
    def without_daemon(self) -> Iterator[None]:
        """A new head takes none of the nodes of the old one."""
        self.cluster.kill_head()
        try:
            yield
        finally:
            for name in self.cluster.nodes:
                self.cluster.kill_node(name)
            self.cluster.start_head()
            for name in self.cluster.nodes:
                self.cluster.restore_node(name)
            self.cluster.wait_until_ready()

    def lose_node(self, where: str) -> Callable[[], None]:
        name = [*self.cluster.nodes][int(where.rpartition(".")[2]) - 3]
        self.cluster.lose_node(name)

        def restore() -> None:
            self.cluster.kill_node(name)
            self.cluster.return_node(name)
            self.cluster.restore_node(name)
            self.cluster.wait_until_ready()

        return restore

    def stop_outside(self, task: str) -> None:
        url = f"{self.cluster.address}/api/jobs/{task}/stop"
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30).close()


def skip_or_fail(reason: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and {reason}")
    pytest.skip(reason)


def local_site() -> Iterator[Site]:
    yield Site()


def slurm_site(folder: Path) -> Iterator[Site]:
    if reason := why_no_slurm():
        skip_or_fail(reason)
    with SlurmCluster(folder) as cluster:
        arguments = ["--on", "slurm", "--slots", "8"]
        yield SlurmSite("slurm", arguments, cluster.environment, cluster=cluster)


def ray_site(folder: Path) -> Iterator[Site]:
    if reason := missing_part():
        skip_or_fail(reason)
    with RayCluster(folder) as cluster:
        yield RaySite("ray", ["--on", "ray", "--slots", "8"], cluster.environment, cluster=cluster)


@dataclass
class Workers:
    """Worker processes of a home; those that are left are killed at the end, and their attempts."""

    home: Home
    site: Site
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str, code: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """code: runs before the command does."""
        text = f"{code}\nfrom pipeline.cli import main; main.main()"
        command = [
            sys.executable,
            "-c",
            text,
            "--home",
            str(self.home.root),
            "worker",
            *self.site.arguments,
            *arguments,
        ]
        with self.output(len(self.started)).open("wb") as output:
            self.started.append(
                subprocess.Popen(
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.site.environment, **environment},
                )
            )
        return self.started[-1]

    def output(self, number: int = -1) -> Path:
        return self.folder / f"worker-{number % len(self.started) if number < 0 else number}.txt"

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        subprocess.run(["pkill", "-KILL", "-f", f"pipeline.training.attempt {self.home.root} "], check=False)
