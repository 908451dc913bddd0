"""Ray, by the HTTP interface of its jobs: docs.ray.io, "Ray Jobs REST API"; written for 2.60.

Its Python client does the same, takes 80 MB more in the worker, and waits without end where nobody answers. A task is a
Ray job whose submission id is its name. Ray never starts one again by itself.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.home.records import Outcome
from pipeline.worker.executors.engine import BusyError, RefusedError, Seen, Task, UnreachableError

ADDRESS = "http://127.0.0.1:8265"
VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
LIMIT_S = 10.0  # for an answer
STOP_WAIT_S = 20  # between SIGTERM and SIGKILL, where somebody stops a job; Ray's default, 3, is short for a checkpoint
RESOURCES = {"CPU": "entrypoint_num_cpus", "GPU": "entrypoint_num_gpus", "memory": "entrypoint_memory"}
ERRORS: Mapping[str, tuple[Outcome, str]] = {
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": ("interrupted", "waited longer than RAY_JOB_START_TIMEOUT_SECONDS allows"),
    "JOB_SUPERVISOR_ACTOR_START_FAILURE": ("lost", "could not be started"),
}


class Ray:
    """address: of the dashboard; auto: as Ray's own variables say, else this machine. Raises UsageError."""

    name = "ray"

    def __init__(self, address: str = "auto") -> None:
        if address == "auto":
            found = (os.environ.get(variable, "") for variable in VARIABLES)
            address = next((value for value in found if value.startswith("http")), ADDRESS)
        if not re.fullmatch(r"https?://[^/\s]+/*", address):
            raise UsageError(f"--address {address}: is not of a dashboard, as {ADDRESS}; `ray start` prints it")
        self.address = self.cluster = address.rstrip("/")
        self._taken_back: set[str] = set()  # while they waited

    def submit(self, task: Task) -> str:
        """Ray takes one job of a name; of a second one it says that it is there already."""
        try:
            self._call("POST", "/api/jobs/", request(task))
        except RefusedError:
            if self._look_at(task.name) is None:
                raise
        except BusyError:  # it may be there all the same
            if self._look_at(task.name) is None:
                raise
        return task.name

    def _look_at(self, name: str) -> Any:
        """What it says of a job; None where it has none of that name."""
        return next((job for job in self._jobs() if job.get("submission_id") == name), None)

    def _jobs(self) -> list[dict[str, Any]]:
        try:
            jobs = self._call("GET", "/api/jobs/")
        except (RefusedError, BusyError) as error:
            raise UnreachableError(f"{self.address}: {error}") from None
        if not isinstance(jobs, list):
            raise UnreachableError(f"{self.address}: it does not answer as Ray's dashboard does")
        return jobs

    def look(self, names: Sequence[str]) -> dict[str, Seen]:
        wanted, nodes = set(names), None
        found: dict[str, Seen] = {}
        for job in self._jobs():
            name = job.get("submission_id")
            if name not in wanted:
                continue
            found[name] = seen(job)
            if found[name].phase == "waits":
                if name in self._taken_back:
                    found[name] = Seen(name, "ended", "was taken back", status=1, outcome="cancelled")
                    continue
                nodes = self._nodes() if nodes is None else nodes
                found[name] = Seen(name, "waits", why_it_waits(job, nodes))
        return found

    def _nodes(self) -> list[dict[str, float]]:
        """What each living node has in all."""
        try:
            answer = self._call("GET", "/api/v0/nodes?detail=1")
            nodes = answer["data"]["result"]["result"]
            return [node["resources_total"] for node in nodes if node.get("state") == "ALIVE"]
        except (RefusedError, BusyError, UnreachableError, LookupError, TypeError):
            return []  # it is for people alone

    def ask_to_stop(self, name: str) -> None:
        """Not by Ray, which signals the processes that read images too: the file of the run says it."""

    def kill(self, name: str) -> None:
        """What waits Ray keeps, and starts for a moment once there is room; it sees the file of the run, and leaves."""
        try:
            job = self._look_at(name)
            if job is not None:
                if job.get("status") == "PENDING":
                    self._taken_back.add(name)
                self._call("POST", f"/api/jobs/{urllib.parse.quote(name)}/stop")
        except (RefusedError, BusyError):
            return

    def _call(self, method: str, path: str, value: Any = None) -> Any:
        """What it answers, from JSON. Raises RefusedError of what is the task's fault, BusyError of what is Ray's."""
        body = None if value is None else json.dumps(value).encode()
        asked = urllib.request.Request(
            self.address + path, data=body, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=LIMIT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            lines = error.read().decode("utf-8", "replace").strip().splitlines()
            said = lines[-1] if lines else f"{error.code} {error.reason}"
            if error.code == 500:
                raise BusyError(said) from None
            if error.code != 400:  # a proxy's word, or another server's
                raise UnreachableError(f"{self.address}: {error.code} {said}") from None
            raise RefusedError(said) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UnreachableError(f"{self.address}: {reason}") from None


def request(task: Task) -> dict[str, Any]:
    """One CPU at least: a job that asks for nothing runs on the head."""
    resources = task.resources
    cpus = resources.cpus or 1
    environment = {"OMP_NUM_THREADS": str(cpus), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **task.environment}
    found: dict[str, Any] = {
        "entrypoint": f"exec {shlex.join(task.command)} >> {shlex.quote(str(task.log))} 2>&1",
        "submission_id": task.name,
        "runtime_env": {"env_vars": environment},
        "entrypoint_num_cpus": cpus,
    }
    if resources.num_gpus:
        found["entrypoint_num_gpus"] = resources.num_gpus
    if resources.memory is not None:
        found["entrypoint_memory"] = resources.memory
    asked = {kind: found[field] for kind, field in RESOURCES.items() if field in found}
    return found | {"metadata": {kind: str(amount) for kind, amount in asked.items()}}


def why_it_waits(job: Mapping[str, Any], nodes: Sequence[Mapping[str, float]]) -> str:
    """Ray itself says the same of what has no room now and of what never will, and not what was asked for."""
    asked = job.get("metadata") or {}
    for kind in RESOURCES:
        most = max((node.get(kind, 0.0) for node in nodes), default=None)
        if most is not None and (amount := float(asked.get(kind, 0))) > most:
            return f"no node has {amount:,.0f} {kind}, the largest has {most:,.0f}"
    return "no node has room for it now"


def seen(job: Mapping[str, Any]) -> Seen:
    """From one of Ray's JobDetails."""
    name, state = job["submission_id"], job.get("status")
    words = " ".join(str(job.get("message") or "").split())
    node = urllib.parse.urlsplit(job.get("driver_agent_http_address") or "").hostname or ""
    if state == "PENDING":
        return Seen(name, "waits", words)
    if state == "RUNNING":
        return Seen(name, "runs", node=node)
    if state == "STOPPED":
        return Seen(name, "ended", "was stopped there", node, status=1, outcome="cancelled")
    code = job.get("driver_exit_code")
    if state == "SUCCEEDED" or code is not None:
        return Seen(name, "ended", node=node, status=code or 0)
    outcome, what = ERRORS.get(str(job.get("error_type")), ("lost", "its node or its supervisor died"))
    return Seen(name, "ended", f"{what}: {words}", node, status=1, outcome=outcome)
