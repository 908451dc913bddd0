"""A real Ray on this machine: a head that runs no jobs, and nodes that do.

Everything that Ray writes lies in the folder that it is given. All addresses are in 127.0.0.0/8, each node has its own.
Each `ray start` is a session of its own (setsid), and its environment bears a token that jobs inherit. The cluster ends
only what is of these, so that another Ray on the machine goes on. A job that clears its environment escapes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAD = "head"
EXECUTABLE = Path(os.environ.get("PIPELINE_TEST_RAY") or Path(sys.executable).with_name("ray"))  # of any environment
TOKEN = "RAY_CLUSTER_OF_TESTS"  # in the environment of each process: whose it is
NODE = "RAY_CLUSTER_NODE"  # likewise: the node that started it
ANY_PORT = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
FAST = {  # a lost node is noticed in two seconds, not in half a minute
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def missing_part() -> str:
    """Why there can be no Ray here; empty where there can."""
    return (
        "" if EXECUTABLE.exists() else "there is no Ray: pip install 'ray[default]', or name one by PIPELINE_TEST_RAY"
    )


@dataclass(frozen=True)
class Process:
    """What /proc says of one living process."""

    pid: int
    session: int
    name: str
    environment: bytes

    def bears(self, key: str, value: str) -> bool:
        return f"\0{key}={value}\0".encode() in b"\0" + self.environment


def processes() -> list[Process]:
    """All living processes that this user may read, without zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            state, _, _, session = rest.split()[:4]
            if state not in "ZX":
                found.append(Process(int(folder.name), int(session), name, (folder / "environ").read_bytes()))
    return found


def send(signum: int, targets: list[Process]) -> None:
    """Sends a signal to each of the processes that still lives."""
    for process in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signum)


def free_port() -> int:
    """A port that is free on localhost now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Returns when the condition holds. Raises TimeoutError with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:g} s: {what}")
        time.sleep(0.1)


def kill_all(targets: Callable[[], list[Process]]) -> None:
    """Kills what there is of the targets until there is none, as they may start others meanwhile."""

    def none_left() -> bool:
        send(signal.SIGKILL, left := targets())
        return not left

    wait_for(none_left, "processes of Ray outlive SIGKILL")


@dataclass
class RayCluster:
    """A head and further nodes, each with the CPUs (and GPUs, if so asked) that it declares.

    A node named `one` also has the resource `node_one`, by which a job is sent to it. The head has no CPUs: a job that
    asks for at least one runs on a node, a job that asks for nothing runs on the head.
    """

    folder: Path
    nodes: Mapping[str, int] = field(default_factory=lambda: {"one": 4, "two": 4})  # name to CPUs
    num_gpus: int = 0  # that each node declares; Ray does not look whether they are there
    settings: Mapping[str, str] = field(default_factory=dict)  # of head and nodes: RAY_JOB_START_TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.token = secrets.token_hex(8)
        self._sessions: dict[str, list[int]] = {}
        self._gcs, self._dashboard, self._client = free_port(), free_port(), free_port()
        self._short: Path | None = None

    @property
    def address(self) -> str:
        """What `JobSubmissionClient` takes."""
        return f"http://127.0.0.1:{self._dashboard}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a client finds this cluster and no other."""
        return {"RAY_API_SERVER_ADDRESS": self.address, "RAY_USAGE_STATS_ENABLED": "0"}

    def __enter__(self) -> RayCluster:
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)
            self.start_head()
            for name in self.nodes:
                self.restore_node(name)
            self.wait_until_ready()
            undo.pop_all()
            return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_head(self) -> None:
        """Starts the head, at the same ports each time. A new head knows no earlier job and no earlier node."""
        (self._room() / "ray_current_cluster").unlink(missing_ok=True)  # else a living node makes Ray refuse a new head
        where = [f"--port={self._gcs}", "--node-ip-address=127.0.0.2", f"--ray-client-server-port={self._client}"]
        dashboard = ["--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard}"]
        self._start(HEAD, "--head", "--num-cpus=0", "--num-gpus=0", *where, *dashboard)

    def kill_head(self) -> None:
        """Kills the head's GCS, raylet, dashboard and agents (SIGKILL). The nodes and their jobs go on at first."""
        kill_all(lambda: self._of_node(HEAD))

    def restore_node(self, name: str) -> None:
        """Starts a node, or a new one in the place of one that was lost."""
        where = [f"--address=127.0.0.2:{self._gcs}", f"--node-ip-address=127.0.0.{3 + list(self.nodes).index(name)}"]
        what = [f"--num-cpus={self.nodes[name]}", f"--num-gpus={self.num_gpus}"]
        self._start(name, *where, *what, "--resources=" + json.dumps({f"node_{name}": 1000}))

    def lose_node(self, name: str) -> None:
        """Stops a node's Ray (SIGSTOP) until the head gives the node up; its jobs' processes go on."""
        send(signal.SIGSTOP, self._of_node(name))
        wait_for(lambda: name not in self.alive_nodes(), f"the head still believes in the node {name}")

    def return_node(self, name: str) -> None:
        """Wakes what `lose_node` stopped. The raylet learns that it was given up and leaves; its jobs are killed."""
        send(signal.SIGCONT, self._of_node(name))

    def kill_node(self, name: str) -> None:
        """Kills a node's raylet (SIGKILL). Ray's own watchers kill the jobs' processes within some seconds."""
        send(signal.SIGKILL, [process for process in self._of_node(name) if process.name == "raylet"])

    def alive_nodes(self) -> set[str]:
        """The names of the nodes that the head believes alive; "head" is one."""
        names = {f"127.0.0.{2 + index}": name for index, name in enumerate([HEAD, *self.nodes])}
        rows = self._get("/api/v0/nodes?detail=1")["data"]["result"]["result"]
        return {names[row["node_ip"]] for row in rows if row["state"] == "ALIVE"}

    def wait_until_ready(self) -> None:
        """Returns when the job server answers and all the nodes have joined."""

        def ready() -> bool:
            with contextlib.suppress(OSError, KeyError):
                self._get("/api/jobs/")
                return self.alive_nodes() >= {HEAD, *self.nodes}
            return False

        wait_for(ready, f"the Ray in {self.folder} is not ready; see ray-*.out there")

    def stop(self) -> None:
        """Kills every process of the cluster and of its jobs."""
        kill_all(self.living)
        if self._short:
            shutil.rmtree(self._short.parent, ignore_errors=True)

    def living(self) -> list[Process]:
        """The cluster's processes and those of its jobs."""
        sessions = {session for of_node in self._sessions.values() for session in of_node}
        every = processes()  # Ray's Python processes write their name over the environment that /proc shows
        renamed = [found for found in every if found.session in sessions and found.name.startswith(("ray-", "ray::"))]
        return renamed + [found for found in every if found.bears(TOKEN, self.token) and found not in renamed]

    def _start(self, name: str, *arguments: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {**FAST, **self.settings, **self.environment, TOKEN: self.token, NODE: name}
        common = ["--disable-usage-stats", "--include-log-monitor=false", "--object-store-memory=80000000", *ANY_PORT]
        command = [str(EXECUTABLE), "start", *arguments, *common, f"--temp-dir={self._room()}"]
        with (self.folder / f"ray-{name}.out").open("a") as log:
            starter = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            self._sessions.setdefault(name, []).append(starter.pid)
            if starter.wait(timeout=120):
                raise RuntimeError(f"ray start of {name} failed; see {log.name}")

    def _room(self) -> Path:
        """The folder under its own path, or by a link of a short name where Ray's sockets would not fit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(str(self.folder)) <= 30:  # a socket's path has 107 characters at most, and Ray appends up to 75
            return self.folder / "t"
        if self._short is None:  # removed by stop()
            self._short = Path(tempfile.mkdtemp(prefix="ray")) / "t"
            self._short.symlink_to(self.folder)
        return self._short

    def _of_node(self, name: str) -> list[Process]:
        return [process for process in self.living() if process.session in self._sessions.get(name, [])]

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=10) as response:
            return json.load(response)


def main() -> None:
    """Starts a cluster in a folder, prints its address, and keeps it until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if len(sys.argv) != 2 or missing_part():
        sys.exit(missing_part() or "usage: ray_cluster.py FOLDER")
    with contextlib.suppress(KeyboardInterrupt), RayCluster(Path(sys.argv[1])) as cluster:
        os.write(1, f"{cluster.address}\n".encode())
        signal.pause()


if __name__ == "__main__":
    main()
