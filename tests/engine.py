"""The project's containers on a real engine, each test with volumes of its own.

Skipped with a reason where no engine answers; with PIPELINE_REQUIRE_ENGINE that is a failure. The images have a tag of
their own, so that those of the person who runs the tests stay as they are.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from quick import wait_until

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
TAG = "test"
PORT = 6006
FILES = ["-f", "compose.yaml", "-f", "docker/compose.cpu.yaml"]
HOME = "/var/lib/pipeline"


def missing_part() -> str:
    """Why there can be no containers here; empty where there can."""
    if shutil.which("docker") is None:
        return "there is no docker"
    for command, what in ((["info"], "no Docker engine answers"), (["compose", "version"], "Compose v2 is missing")):
        if subprocess.run(["docker", *command], capture_output=True, timeout=60).returncode:
            return what
    return ""


@pytest.fixture(scope="session")
def engine() -> None:
    if not (missing := missing_part()):
        return
    if os.environ.get("PIPELINE_REQUIRE_ENGINE"):
        pytest.fail(f"PIPELINE_REQUIRE_ENGINE is set, and {missing}")
    pytest.skip(missing)


@pytest.fixture(scope="session")
def images(engine: None) -> Iterator[dict[str, str]]:  # noqa: ARG001
    """Both images, built with `make build`: their names."""
    make("build")
    yield {name: f"pipeline-{name}:{TAG}" for name in ("worker", "tensorboard")}
    subprocess.run(["docker", "image", "rm", f"pipeline-worker:{TAG}", f"pipeline-tensorboard:{TAG}"], check=False)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PIPELINE_TAG": TAG, **more}


def make(*arguments: str, **options: Any) -> str:
    """What a target prints. Raises AssertionError with all of it where it fails."""
    options = {"env": environment(), **options}
    return out_of(["make", "--no-print-directory", *arguments], **options)


def docker(*arguments: str, **options: Any) -> str:
    return out_of(["docker", *arguments], **options)


def out_of(command: list[str], *, fails: bool = False, **options: Any) -> str:
    """Its standard output; where it is to fail, its standard error."""
    done = subprocess.run(command, **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 1500, **options})
    assert bool(done.returncode) == fails, f"{command} left with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return (done.stderr if fails else done.stdout).strip()


def free_port() -> int:
    """The one that everything is documented with; another where a TensorBoard of the person's is there."""
    for port in (PORT, 0):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(server.getsockname()[1])
    raise AssertionError("no port is free")


def poll(condition: Callable[[], T], what: str) -> T:
    """As `wait_until`, where each look is a container that takes time from the job."""
    return wait_until(lambda: time.sleep(1) or condition(), what, deadline_s=400)


@dataclass
class Compose:
    """A Compose project with volumes of its own."""

    project: str = field(default_factory=lambda: f"pipeline-test-{secrets.token_hex(3)}")
    port: int = field(default_factory=free_port)
    data: Path | None = None
    modules: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        more = {"COMPOSE_PROJECT_NAME": self.project, "TENSORBOARD_PORT": str(self.port), "MODE": "docker", "GPU": "no"}
        mine = {"PIPELINE_DATA": self.data, "PIPELINE_MODULES": self.modules}
        return environment(**more, **{name: str(path) for name, path in mine.items() if path is not None})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __call__(self, *arguments: str, **options: Any) -> str:
        return docker("compose", *FILES, "--progress", "quiet", *arguments, env=self.env, **options)

    def make(self, *arguments: str, **options: Any) -> str:
        return make(*arguments, env=self.env, **options)

    def cli(self, *arguments: str, **options: Any) -> str:
        return self("run", "--rm", "-T", "cli", *arguments, **options)

    def submit(self, job: str, *changes: str) -> str:
        return self.cli("submit", "--quiet", f"jobs/{job}.yaml", *(w for c in changes for w in ("--set", c)))

    def status(self) -> dict[str, dict[str, Any]]:
        """By id."""
        return {job["id"]: job for job in json.loads(self.cli("status", "--json"))}

    def wait_for(self, job_id: str, state: str) -> dict[str, Any]:
        return poll(lambda: (job := self.status()[job_id])["state"] == state and job, f"{job_id}: {state}")

    def wait_for_step(self, job_id: str, step: int) -> None:
        poll(lambda: self.status()[job_id]["step"] >= step, f"step {step} of {job_id}")

    def wait_for_the_end(self, job_id: str) -> dict[str, Any]:
        return poll(lambda: (job := self.status()[job_id])["outcome"] and job, f"the end of {job_id}")

    def containers(self, service: str) -> list[str]:
        return self("ps", "--quiet", service).split()

    def copy_run(self, job_id: str, folder: Path) -> Path:
        """As docs/operations.md tells people to."""
        self("cp", f"worker:{HOME}/runs/{job_id}", str(folder))
        return folder / job_id


@pytest.fixture
def compose(images: dict[str, str]) -> Iterator[Compose]:  # noqa: ARG001
    compose = Compose()
    yield compose
    compose("kill")
    compose("--profile", "cli", "down", "--volumes", "--remove-orphans")
