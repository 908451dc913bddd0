"""Slurm, by its own commands. See `man sbatch` and `man squeue`; written for 22.05 and later.

A task is a batch script that becomes the attempt by `exec`, so that signals to the script reach it. Slurm is told never
to start one again by itself: what goes on after a lost node or a preemption is the queue's to say.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.home.paths import NOTIFY
from pipeline.home.records import Outcome
from pipeline.jobfile.resources import Resources
from pipeline.stop import GRACE_S
from pipeline.worker.executors.engine import BusyError, RefusedError, Seen, Task, UnreachableError

LIMIT_S = 60.0  # for one command
SAVE_S = int(2 * GRACE_S)  # before its time limit, a job is told to save itself
FIELDS = ("jobid", "name", "state", "reason", "batchhost", "timeused", "exit_code")  # of `squeue -O`
AT_ONCE = 500  # names in a command line
NOBODY = "-"  # a name that no task has
NICE = 1_000  # of priority 0: nobody but an operator may set a nice value below 0, so a higher priority is less of it

WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
ENDS: Mapping[str, tuple[Outcome | None, str]] = {
    "COMPLETED": (None, ""),
    "FAILED": (None, ""),
    "CANCELLED": ("cancelled", "was cancelled there"),
    "TIMEOUT": ("interrupted", "reached its time limit"),
    "PREEMPTED": ("interrupted", "was preempted by another job"),
    "NODE_FAIL": ("lost", "its node failed"),
    "BOOT_FAIL": ("lost", "its node failed to start"),
    "OUT_OF_MEMORY": ("failed", "took more memory than it asked for; raise resources.memory"),
    "DEADLINE": ("interrupted", "reached its deadline"),
    "REVOKED": ("lost", "was revoked"),
}
"""How a job has ended by its state; None: by its exit status."""
NO_ANSWER = (
    *("Unable to contact", "Unable to establish", "Connection refused", "timed out", "Zero Bytes were transmitted"),
    *("uthentication", "ommunication", "DNS SRV", "configuration source", "munge"),
)
NEVER = (
    *(
        "Invalid",
        "invalid",
        "configuration is not available",
        "not satisfied",
        "can not be satisfied",
        "unrecognized option",
        "denied",
    ),
    *("not permitted", "exceeds", "PerJobLimit", "WallDuration"),
)
"""What sbatch says of a job that it will never take. What else it may say is said of now, and tried again."""
NO_OUTPUT = 53  # raw exit code of a job whose `--output` could not be opened
UNSEEN = "could not be started: the node may not see the run's folder; `pipeline doctor --on slurm` looks"


class Slurm:
    """Raises UsageError where Slurm's commands are not here."""

    name = "slurm"

    def __init__(self) -> None:
        missing = [command for command in ("sbatch", "squeue", "scancel") if shutil.which(command) is None]
        if missing:
            commands = ", ".join(missing)
            raise UsageError(
                f"--on slurm: this machine has no {commands}; run the worker on a login node of the cluster"
            )
        self.cluster = cluster_name()

    def submit(self, task: Task) -> str:
        return _run([*sbatch(task)], text=script(task)).partition(";")[0].strip()

    def look(self, names: Sequence[str]) -> dict[str, Seen]:
        """One call for all of them, also for none. Of several of a name, the first that lives, else the latest."""
        form = ",".join(f"{field}:|" for field in FIELDS)
        found: dict[str, Seen] = {}
        for start in range(0, len(names) or 1, AT_ONCE):
            wanted = ",".join(names[start : start + AT_ONCE]) or NOBODY
            text = _run(["squeue", "--noheader", "--states=all", f"--name={wanted}", f"--Format={form}"])
            for line in text.splitlines():
                job_id, name, *rest = [*line.split("|"), ""][: len(FIELDS) + 1]
                if len(rest) < len(FIELDS) - 1:  # a line of another kind
                    continue
                if name not in found or found[name].phase == "ended":
                    found[name] = seen(job_id, *rest[:-1])
        return found

    def ask_to_stop(self, name: str) -> None:
        _order(["scancel", "--batch", "--signal=TERM", f"--name={name}"])

    def kill(self, name: str) -> None:
        _order(["scancel", "--full", "--signal=KILL", f"--name={name}"])
        _order(["scancel", f"--name={name}"])  # what waits, and what no node answers for


def seen(job_id: str, state: str, reason: str, host: str, time_used: str, exit_code: str) -> Seen:
    """From a line of `squeue`."""
    node = "" if host in ("n/a", "") else host
    if state in WAITS:
        return Seen(job_id, "waits", "" if reason == "None" else reason)
    if state not in ENDS:
        return Seen(job_id, "runs", state.lower(), node, seconds(time_used))
    outcome, words = ENDS[state]
    raw = int(exit_code) if exit_code.isdigit() else 256
    status = -(raw & 127) if raw & 127 else (raw >> 8) & 255  # as wait() has it
    if state == "FAILED" and raw == NO_OUTPUT:
        return Seen(job_id, "ended", UNSEEN, node, 0.0, 1, "lost")
    detail = "" if reason in ("None", "NonZeroExitCode", "TimeLimit", "Prolog") else f" ({reason})"
    if state == "FAILED" and status == 0:
        outcome, words = "failed", "failed"
    return Seen(job_id, "ended", words + detail, node, seconds(time_used), status, outcome)


def seconds(time_used: str) -> float:
    """From `2-03:04:05` or `4:05`; 0 of what is none."""
    if not re.fullmatch(r"(\d+-)?(\d+:)*\d+", time_used):
        return 0.0
    days, _, clock = time_used.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return 86_400.0 * int(days or 0) + total


def sbatch(task: Task) -> Iterator[str]:
    """The command that submits a task; its script is read from standard input."""
    resources, slurm = task.resources, task.resources.slurm
    yield from ("sbatch", "--parsable", "--no-requeue", "--nodes=1", "--ntasks=1", "--open-mode=append")
    log = str(task.log).replace("%", "%%")
    yield from (f"--job-name={task.name}", f"--output={log}", f"--chdir={task.log.parent}")
    yield f"--signal=B:TERM@{SAVE_S}"
    yield f"--nice={NICE - min(resources.priority, NICE)}"
    if resources.cpus is not None:
        yield f"--cpus-per-task={resources.cpus}"
    if resources.memory is not None:
        yield f"--mem={-(-resources.memory // 2**20)}M"
    if resources.num_gpus:
        yield f"--gres=gpu:{resources.num_gpus}"
    if slurm.time is not None:
        yield f"--time={-(-slurm.time // 60)}"  # in minutes, as Slurm counts them
    for option in ("partition", "account", "qos", "constraint"):
        if (value := getattr(slurm, option)) is not None:
            yield f"--{option}={value}"
    if slurm.container is not None and slurm.container_runtime == "pyxis":
        yield f"--container-image={slurm.container}"
        yield "--container-mounts=" + ",".join(f"{path}:{path}" for path in shared(task))


def script(task: Task) -> str:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in task.environment.items()]
    return "\n".join(("#!/bin/sh", *exports, f"exec {shlex.join(command(task, task.resources))}", ""))


def command(task: Task, resources: Resources) -> list[str]:
    """The attempt's, by the Python of an image where it runs in one."""
    image, runtime = resources.slurm.container, resources.slurm.container_runtime
    if image is None:
        return [*task.command]
    inside = ["python3", *task.command[1:]]
    if runtime == "pyxis":
        return inside
    gpu = ["--nv"] if resources.num_gpus else []
    return ["apptainer", "exec", *gpu, "--bind", ",".join(shared(task)), image, *inside]


def shared(task: Task) -> list[str]:
    """The folders that an attempt needs."""
    return [value for name, value in task.environment.items() if name.startswith("PIPELINE_")]


def cluster_name() -> str:
    """From the configuration, where it is a file; else nothing, and then there is one cluster."""
    try:
        text = Path(os.environ.get("SLURM_CONF") or "/etc/slurm/slurm.conf").read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r"^ClusterName=(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else ""


def _order(arguments: Sequence[str]) -> None:
    """For a job that may have ended meanwhile, which is no error; what was not done is asked for again."""
    with contextlib.suppress(RefusedError, BusyError):
        _run(arguments)


def _run(arguments: Sequence[str], text: str = "") -> str:
    """What a command prints. Raises RefusedError, BusyError and UnreachableError, with what it says of its failure."""
    others = ("SQUEUE_", "SCANCEL_", NOTIFY)  # a person's own filters and formats; sbatch would hand the last on
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    try:
        done = subprocess.run(
            arguments,
            input=text,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            errors="replace",
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{arguments[0]} has not answered within {LIMIT_S:g} s") from None
    except OSError as error:
        raise UnreachableError(f"{arguments[0]}: {error.strerror}") from None
    if done.returncode == 0:
        return done.stdout
    lines = [line.partition("error: ")[2] or line for line in done.stderr.strip().splitlines()]
    said = (lines or [f"exit code {done.returncode}"])[-1].removeprefix("Batch job submission failed: ")
    if arguments[0] == "squeue" or any(words in done.stderr for words in NO_ANSWER):
        raise UnreachableError(f"{arguments[0]}: {said}")
    if arguments[0] == "sbatch" and not any(words in done.stderr for words in NEVER):
        raise BusyError(next((line for line in lines if "Limit" in line), said))
    raise RefusedError(said)
