"""A real Slurm with two nodes on this one machine: for the tests, and to try it by hand.

The daemons are those of Debian's `slurm-wlm` and `munge`, started by hand: no systemd, no accounting database.
Configuration, state and logs lie in one folder; sockets lie in a short one under /tmp, for their paths are limited.
The nodes declare more CPUs than the machine has, and nothing binds or limits a job to what it asked for.

    python tests/clusters/slurm_cluster.py FOLDER        # runs until Ctrl-C
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

NODES = ("n1", "n2")
SAVE_WAIT_S = 12  # Slurm writes a change within 5 s, and later on a busy machine
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")

USAGE = """\
export SLURM_CONF={folder}/slurm.conf
# Paste that line into another terminal. Then: sinfo; sbatch --wrap 'sleep 60'; squeue; scancel ID
# Logs and state are in {folder}; Ctrl-C here stops the cluster and its jobs.
"""
TEMPLATE = Path(__file__).with_name("slurm.conf.template")


def why_no_slurm() -> str | None:
    """Why no Slurm can be started here, for a test's skip; None if one can."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=search_path())]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return None


def search_path() -> str:
    """PATH with the folders of daemons, which an ordinary user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@dataclass
class SlurmCluster:
    """Nodes `n1` and `n2` of 4 CPUs and 8000 MB; partitions `main`, the default, and `urgent`, which preempts `main`.

    A client needs `environment` and nothing else. As a context manager it is ready on entry, and leaves no process.

    A preempted job gets SIGTERM after `grace_s`, and SIGKILL 5 s later. Slurm looks every 30 s whether a
    grace time is over (unless it is 0), a time limit is reached, or a `--signal` is due.
    """

    folder: Path  # without blanks, which slurm.conf does not take
    _: KW_ONLY
    preempt_mode: Literal["CANCEL", "REQUEUE"] = "CANCEL"
    grace_s: int = 0
    min_job_age_s: int = 300  # how long an ended job can be asked for
    node_timeout_s: int = 10
    gpus: int = 0  # pretended ones, per node
    settings: str = ""  # more lines of slurm.conf

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.name = f"test{secrets.token_hex(4)}"
        self.sockets = Path(tempfile.mkdtemp(prefix="slurm-"))  # a socket's path has at most 107 bytes
        self.sockets.chmod(0o755)
        self.freezer = Path("/sys/fs/cgroup/freezer") / self.name
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": search_path()}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def configure(self) -> None:
        """Writes the files that the daemons read."""
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        controller_port, *node_ports = free_ports(1 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        node = "NodeName={} NodeHostname={} NodeAddr=127.0.0.1 Port={}"
        filled = TEMPLATE.read_text().format(
            cluster=self,
            host=host,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            controller_port=controller_port,
            nodes="\n".join(node.format(name, host, port) for name, port in zip(NODES, node_ports, strict=True)),
            proctrack=self._proctrack(),
        )
        (self.folder / "slurm.conf").write_text(filled + self.settings)
        (self.folder / "gres.conf").write_text(f"Name=gpu File=/dev/tty[0-{self.gpus - 1}]\n" if self.gpus else "")
        (self.folder / "munge.key").touch(mode=0o600)
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))

    def _proctrack(self) -> str:
        """How Slurm finds a job's processes: by a freezer of our own in cgroup v1, if root may, as clusters do.

        Otherwise by parents: a process whose parent has ended is missed, and outlives its job.
        """
        try:
            self.freezer.mkdir()
        except OSError:
            return "proctrack/linuxproc"
        (self.sockets / "cgroup").mkdir()
        (self.sockets / "cgroup/freezer").symlink_to(self.freezer)
        mount = self.sockets / "cgroup"
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={mount}\n")
        return "proctrack/cgroup"

    def __enter__(self) -> SlurmCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.configure()
        munge = self.sockets / "munge"
        options = [f"--{kind}-file={munge}.{kind}" for kind in ("pid", "log", "seed")]
        options += [f"--key-file={self.folder}/munge.key", f"--socket={munge}.socket", "--num-threads=2"]
        self._start_daemon("munged", "munged", "--foreground", "--force", *options)
        wait_until(munge.with_suffix(".socket").exists, "munged's socket", self.folder / "munged.output")
        self.start_controller()
        for name in NODES:
            self.restore_node(name)
        self.wait_until_ready()

    def _start_daemon(self, name: str, *command: str) -> None:
        """In a session of its own, for Ctrl-C at a terminal is for us; its messages lie in `NAME.output`."""
        full = os.environ | self.environment
        with (self.folder / f"{name}.output").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                command, cwd=self.folder, env=full, stdout=output, stderr=output, start_new_session=True
            )

    def call(self, *command: str) -> str:
        """What a client command prints; raises CalledProcessError, with its stderr, if it fails."""
        full = os.environ | self.environment
        return subprocess.run(command, env=full, capture_output=True, text=True, check=True).stdout.strip()

    def wait_until_ready(self) -> None:
        """Until the controller answers and each node that was not lost takes jobs."""
        for name in NODES:
            if name in self._daemons:
                wait_until(partial(self._takes_jobs, name), f"ready node {name}", self.folder / f"{name}.log")

    def _takes_jobs(self, name: str) -> bool:
        return self.state_of_node(name) in ("idle", "mixed", "allocated")

    def state_of_node(self, name: str) -> str:
        """`idle`, `mixed`, `allocated`, `down` and so on; with `*` if it is silent; empty if the controller is."""
        with contextlib.suppress(subprocess.SubprocessError):
            return self.call("sinfo", "--noheader", f"--nodes={name}", "--partition=main", "--format=%T")
        return ""

    def start_controller(self) -> None:
        self._start_daemon("slurmctld", "slurmctld", "-D")

    def kill_controller(self) -> None:
        """Kills it (SIGKILL). What it has not saved is forgotten: its successor kills those jobs or queues them again.

        It gives their numbers to other jobs, too. `wait_until_saved` before it avoids all this.
        """
        self._kill("slurmctld")

    def wait_until_saved(self) -> None:
        """Until the controller's file of jobs holds all that has happened."""
        file, called = self.folder / "state/job_state", time.time()
        late = called + 6  # what is written before may have been put together before the call, on a busy machine
        while time.time() < called + SAVE_WAIT_S and not (file.exists() and file.stat().st_mtime > late):
            time.sleep(0.05)

    def lose_node(self, name: str, *, declare: bool = False) -> None:
        """Kills the node's slurmd, and nothing starts it again; what runs on the node lives on.

        The controller takes the node for down after about 30 s, though `node_timeout_s` is 3; with `declare`, at once.
        """
        self._kill(name)
        if declare:
            self.call("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=lost")

    def restore_node(self, name: str) -> None:
        """Starts its slurmd again, which kills what still runs of jobs that the controller has given up."""
        self._start_daemon(name, "slurmd", "-D", "-N", name)

    def _kill(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def processes(self) -> list[int]:
        """Jobs' processes and their slurmstepds, lost nodes' too; not the daemons."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                job = f"SLURM_CLUSTER_NAME={self.name}".encode() in (entry / "environ").read_bytes().split(b"\0")
                if job or self._is_step_daemon(entry):
                    found.append(int(entry.name))
        return found

    def _is_step_daemon(self, process: Path) -> bool:
        """Its command line and environment do not say whose it is; the log that it has open does."""
        logs = {self.folder / f"{name}.log" for name in NODES}
        is_one = (process / "exe").readlink().name.startswith("slurmstepd")  # Debian's ends in -wlm
        return is_one and any(descriptor.readlink() in logs for descriptor in (process / "fd").iterdir())

    def stop(self) -> None:
        """Kills everything: the daemons first, so that nothing starts anew."""
        for name in reversed(self._daemons.copy()):
            self._kill(name)
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        for folder, _, _ in os.walk(self.freezer, topdown=False):
            Path(folder).rmdir()
        shutil.rmtree(self.sockets, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(condition: Callable[[], bool], what: str, log: Path, *, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} after {timeout_s} s; see {log}")
        time.sleep(0.05)


def main() -> None:
    if reason := why_no_slurm():
        sys.exit(reason)
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with SlurmCluster(Path(sys.argv[1])) as cluster:
        sys.stdout.write(USAGE.format(folder=cluster.folder))
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
