"""A real Slurm with two nodes on this one machine: for the tests, and to try it by hand.

The daemons are those of Debian's `slurm-wlm` and `munge`, started by hand: no systemd, no accounting database, no
cgroups. Everything lies in one folder (configuration, state, logs, spools), but for munge's socket, whose path must be
short. The nodes declare more CPUs than the machine has, and nothing binds or limits a job to what it asked for.

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
from pathlib import Path
from types import TracebackType

NODES = ("n1", "n2")
CPUS_PER_NODE = 4
MEMORY_PER_NODE_MB = 8000
KILL_WAIT_S = 5
NODE_TIMEOUT_S = 10
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")

CONFIGURATION = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={sockets}/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={sockets}/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=10000,batch_sched_delay=0,bf_interval=1
PriorityType=priority/multifactor
PreemptType=preempt/partition_prio
PreemptMode={preempt_mode}
MinJobAge={min_job_age_s}
KillWait={kill_wait_s}
SlurmctldTimeout=10
SlurmdTimeout={node_timeout_s}
InactiveLimit=0
MessageTimeout=10
CompleteWait=0
ReturnToService=2
MaxJobCount=1000
NodeName=DEFAULT CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
{nodes}
PartitionName=DEFAULT Nodes=ALL State=UP MaxTime=INFINITE DefMemPerCPU=100 OverTimeLimit=0
PartitionName=main Default=YES PriorityTier=1 GraceTime={grace_s}
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""


def why_no_slurm() -> str | None:
    """Why no Slurm can be started here, for a test's skip; None if one can."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=search_path())]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return None


def search_path() -> str:
    """PATH with the folders of daemons, which an ordinary user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class SlurmCluster:
    """Two nodes, `n1` and `n2`; partitions `main` (the default) and `urgent`, which takes CPUs from `main`.

    A client needs `environment` and nothing else. As a context manager it is ready on entry, and leaves no process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        preempt_mode: str = "CANCEL",
        grace_s: int = 3,
        min_job_age_s: int = 300,
        node_timeout_s: int = NODE_TIMEOUT_S,
        settings: str = "",
    ) -> None:
        """`preempt_mode`: CANCEL or REQUEUE; `grace_s`: from SIGTERM to SIGKILL at preemption; `settings`: more lines."""
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = f"test{secrets.token_hex(4)}"
        self.sockets = Path(tempfile.mkdtemp(prefix="slurm-"))  # a socket's path has at most 107 bytes
        self.sockets.chmod(0o755)
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": search_path()}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._configure(preempt_mode, grace_s, min_job_age_s, node_timeout_s, settings)

    def _configure(self, preempt_mode: str, grace_s: int, min_job_age_s: int, node_timeout_s: int, more: str) -> None:
        controller_port, *node_ports = free_ports(1 + len(NODES))
        (self.folder / "state").mkdir(exist_ok=True)
        host = socket.gethostname().partition(".")[0]
        configuration = CONFIGURATION.format(
            name=self.name,
            host=host,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=self.folder,
            sockets=self.sockets,
            controller_port=controller_port,
            nodes="\n".join(
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
                for name, port in zip(NODES, node_ports, strict=True)
            ),
            cpus=CPUS_PER_NODE,
            memory_mb=MEMORY_PER_NODE_MB,
            kill_wait_s=KILL_WAIT_S,
            node_timeout_s=node_timeout_s,
            min_job_age_s=min_job_age_s,
            preempt_mode=preempt_mode,
            grace_s=grace_s,
        )
        (self.folder / "slurm.conf").write_text(configuration + more)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))

    def __enter__(self) -> SlurmCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        files = {
            "key-file": self.folder / "munge.key",
            "socket": self.sockets / "munge.socket",
            "pid-file": self.sockets / "munged.pid",
            "log-file": self.sockets / "munged.log",
            "seed-file": self.sockets / "munged.seed",
        }
        options = [f"--{option}={path}" for option, path in files.items()]
        self._start_daemon("munged", "munged", "--foreground", "--force", "--num-threads=2", *options)
        wait_until(files["socket"].exists, "munged's socket", self.sockets / "munged.log")
        self.start_controller()
        for name in NODES:
            self.restore_node(name)
        self.wait_until_ready()

    def _start_daemon(self, name: str, *command: str) -> None:
        """In a session of its own, for Ctrl-C at a terminal is for us; its output lies beside its log."""
        with (self.folder / f"{name}.output").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._full_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _full_environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def call(self, *command: str, timeout_s: float = 30) -> str:
        """What a client command prints; raises CalledProcessError, with its stderr, if it fails."""
        done = subprocess.run(
            command, env=self._full_environment(), capture_output=True, text=True, check=True, timeout=timeout_s
        )
        return done.stdout.strip()

    def wait_until_ready(self) -> None:
        """Until the controller answers and each node that was not lost takes jobs."""
        for name in NODES:
            if name in self._daemons:
                log = self.folder / f"{name}.log"
                wait_until(lambda name=name: self.state_of_node(name) in ("idle", "mixed", "allocated"), name, log)

    def state_of_node(self, name: str) -> str:
        """`idle`, `mixed`, `allocated`, `down` and others, with `*` if it does not answer; empty if no controller does."""
        with contextlib.suppress(subprocess.SubprocessError):
            return self.call("sinfo", "--noheader", f"--nodes={name}", "--partition=main", "--format=%T")
        return ""

    def start_controller(self) -> None:
        self._start_daemon("slurmctld", "slurmctld", "-D")

    def kill_controller(self) -> None:
        self._kill("slurmctld")

    def lose_node(self, name: str) -> None:
        """Kills the node's slurmd, and nothing starts it again; what runs on the node lives on."""
        self._kill(name)

    def restore_node(self, name: str) -> None:
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
                if job or ((entry / "exe").readlink().name == "slurmstepd" and self._has_open(entry)):
                    found.append(int(entry.name))
        return found

    def _has_open(self, process: Path) -> bool:
        """Whether it writes a node's log; a slurmstepd's command line and environment do not say whose it is."""
        logs = {self.folder / f"{name}.log" for name in NODES}
        return any(descriptor.readlink() in logs for descriptor in (process / "fd").iterdir())

    def stop(self) -> None:
        """Kills everything: the daemons first, so that nothing starts anew."""
        for name in list(self._daemons):
            if name != "munged":
                self._kill(name)
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        if "munged" in self._daemons:
            self._kill("munged")
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
        sys.stdout.write(
            f"export SLURM_CONF={cluster.environment['SLURM_CONF']}\n"
            "# Paste that line into another terminal, then: sinfo; sbatch --wrap 'hostname; sleep 60'; squeue; scancel ID\n"
            f"# Logs and state are in {cluster.folder}; Ctrl-C here stops the cluster and its jobs.\n"
        )
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
