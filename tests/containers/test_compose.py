"""What Compose makes of our files: every promise about limits, rights, volumes and health. No engine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.queue.live_workers import STILL_S
from pipeline.stop import GRACE_S
from pipeline.worker.afterwards import STOP_LIMIT_S

ROOT = Path(__file__).parents[2]
LOCKS = ("worker", "tensorboard")
SERVICES = ("worker", "tensorboard", "cli")
GPU = {"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}


@cache
def config(*files: str, **environment: str) -> dict[str, Any]:
    """With all profiles, as Compose sees it."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        if os.environ.get("PIPELINE_REQUIRE_ENGINE"):
            pytest.fail("PIPELINE_REQUIRE_ENGINE is set, and there is no Docker Compose")
        pytest.skip("there is no Docker Compose")
    given = [word for file in ("compose.yaml", *files) for word in ("-f", file)]
    command = ["docker", "compose", *given, "--profile", "cli", "config", "--format", "json"]
    ours = re.compile("PIPELINE_|TENSORBOARD_|WORKER_|COMPOSE_")
    clean = {key: value for key, value in os.environ.items() if not ours.match(key)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**clean, **environment}, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = config()["services"][request.param]
    return found


def of(name: str, *files: str, **environment: str) -> dict[str, Any]:
    found: dict[str, Any] = config(*files, **environment)["services"][name]
    return found


def seconds(duration: str) -> float:
    """Of 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


# Every container


def test_these_are_all_services() -> None:
    assert set(config()["services"]) == set(SERVICES)


def test_the_root_is_read_only_with_a_small_tmp(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert re.search(r"size=\d", service["tmpfs"][0])


def test_no_capability_and_no_way_to_more_rights(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.keys() & {"privileged", "cap_add", "devices", "user", "pid", "ipc", "userns_mode"} == set()


def test_processes_and_memory_are_limited(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert 0 < limits["pids"] <= 4096
    assert 0 < int(limits["memory"]) <= 16 * 1024**3


def test_there_is_an_init_that_passes_signals_on(service: dict[str, Any]) -> None:
    assert service["init"] is True


def test_logs_are_rotated(service: dict[str, Any]) -> None:
    assert service["logging"]["driver"] == "json-file"
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_nobody_has_the_engines_socket(service: dict[str, Any]) -> None:
    assert [
        v["source"] for v in service["volumes"] if "docker.sock" in v["source"] or v["source"].startswith("/var")
    ] == []


def test_what_is_the_users_is_mounted_read_only_and_never_made_by_the_engine(service: dict[str, Any]) -> None:
    for volume in service["volumes"]:
        if volume["type"] == "bind":
            assert volume["read_only"] is True
            assert not volume["bind"].get("create_host_path")
        else:
            assert volume["type"] == "volume"


def test_the_long_lived_ones_start_again(service: dict[str, Any]) -> None:
    assert service["restart"] == ("no" if service.get("profiles") == ["cli"] else "unless-stopped")


def test_the_images_are_built_here(service: dict[str, Any]) -> None:
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["image"].startswith("pipeline-")


@pytest.mark.parametrize("name", ["worker", "tensorboard"])
def test_health_is_checked_in_a_way_that_old_engines_know(name: str) -> None:
    check = of(name)["healthcheck"]
    assert check["test"][0] == "CMD"
    assert "start_interval" not in check
    assert seconds(check["interval"]) <= 30


# The worker


def test_the_gpu_is_reserved_where_a_missing_one_is_an_error() -> None:
    assert of("worker")["deploy"]["resources"]["reservations"]["devices"] == [GPU]
    assert [name for name in SERVICES if "gpus" in of(name)] == []
    assert [name for name in SERVICES if "reservations" in of(name)["deploy"]["resources"]] == ["worker"]


def test_the_override_for_the_cpu_takes_the_gpu_away_and_nothing_else() -> None:
    with_gpu, without = json.loads(json.dumps(config())), config("docker/compose.cpu.yaml")
    del with_gpu["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert without["services"]["worker"]["deploy"]["resources"].get("reservations", {}) in ({}, {"devices": []})
    without = json.loads(json.dumps(without))
    without["services"]["worker"]["deploy"]["resources"]["reservations"] = {}
    assert without == with_gpu


def test_a_worker_that_is_stopped_has_time_for_its_checkpoints() -> None:
    assert seconds(of("worker")["stop_grace_period"]) > GRACE_S + STOP_LIMIT_S


def test_the_workers_health_is_its_lease_and_its_heartbeat() -> None:
    check = of("worker")["healthcheck"]
    assert check["test"] == ["CMD", "pipeline", "health"]
    assert seconds(check["timeout"]) > STILL_S


def test_data_loaders_have_shared_memory() -> None:
    assert int(of("worker")["shm_size"]) >= 1024**3


def test_compiled_kernels_can_be_loaded_from_tmp() -> None:
    assert "exec" in of("worker")["tmpfs"][0].partition(":")[2].split(",")


def test_the_worker_mounts_the_whole_home() -> None:
    named = {v["source"]: v["target"] for v in of("worker")["volumes"] if v["type"] == "volume"}
    assert named == {name: f"/var/lib/pipeline/{name}" for name in ("queue", "runs", "datasets")}
    assert set(config()["volumes"]) == set(named)


def test_the_worker_alone_is_told_whom_to_tell() -> None:
    address = "mailto://me:$ecret@example.com"
    assert of("worker")["environment"]["PIPELINE_NOTIFY"] == ""
    told = {name: of(name, PIPELINE_NOTIFY=address) for name in SERVICES}
    assert [name for name, service in told.items() if "ecret" in json.dumps(service)] == ["worker"]
    assert told["worker"]["environment"]["PIPELINE_NOTIFY"].replace("$$", "$") == address
    assert "network_mode" not in told["worker"]
    assert told["worker"]["networks"] == {"default": None}
    assert not config()["networks"]["default"].get("internal")


# TensorBoard


def test_tensorboard_sees_the_runs_and_can_change_nothing() -> None:
    (volume,) = of("tensorboard")["volumes"]
    assert (volume["source"], volume["target"], volume["read_only"]) == ("runs", "/var/lib/pipeline/runs", True)
    assert volume["target"] in of("tensorboard")["command"]


def test_tensorboard_is_published_to_this_machine_alone_unless_the_user_says_otherwise() -> None:
    assert published(of("tensorboard")) == [("127.0.0.1", "6006", 6006)]
    wide = of("tensorboard", TENSORBOARD_HOST="0.0.0.0", TENSORBOARD_PORT="7007")
    assert published(wide) == [("0.0.0.0", "7007", 6006)]
    assert [name for name in SERVICES if of(name).get("ports")] == ["tensorboard"]


def published(service: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(port["host_ip"], port["published"], port["target"]) for port in service["ports"]]


def test_tensorboard_feels_live_and_is_asked_what_it_answers() -> None:
    command = of("tensorboard")["command"]
    assert int(command[command.index("--reload_interval") + 1]) <= 5
    assert "/data/environment" in "".join(of("tensorboard")["healthcheck"]["test"])


def test_tensorboard_starts_when_a_worker_is_there() -> None:
    assert of("tensorboard")["depends_on"]["worker"]["condition"] == "service_healthy"


# The command line


def test_the_command_line_has_no_network_and_starts_on_demand_only() -> None:
    assert of("cli")["network_mode"] == "none"
    assert of("cli")["profiles"] == ["cli"]
    assert of("cli")["image"] == of("tensorboard")["image"]


def test_job_files_and_ones_own_data_are_there() -> None:
    binds = {v["target"]: Path(v["source"]) for v in of("cli")["volumes"] if v["type"] == "bind"}
    folders = {"/srv/jobs": "jobs", "/srv/modules": "modules", "/srv/data": "var/datasets"}
    assert binds == {target: ROOT / folder for target, folder in folders.items()}
    assert of("cli")["environment"]["PIPELINE_MODULES"] == "/srv/modules"
    worker = {v["target"]: v["source"] for v in of("worker", PIPELINE_DATA="/my/images")["volumes"]}
    assert (worker["/srv/jobs"], worker["/srv/data"]) == (str(ROOT / "jobs"), "/my/images")


# What the images are built from


@pytest.mark.parametrize(
    ("label", "is_changed", "is_told"),
    [
        ("{head}", False, False),
        ("4f1c2a", False, True),
        ("{head}", True, True),
        ("{head}-dirty", True, False),
        ("", False, False),
    ],
    ids=["of this commit", "of another", "of this commit, changed since", "of changed code", "by Compose alone"],
)
def test_make_up_says_when_the_images_are_not_of_the_code_that_is_here(
    tmp_path: Path, label: str, is_changed: bool, is_told: bool
) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()

    checkout, bin_folder = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "pipeline").mkdir(parents=True)
    (checkout / "pipeline" / "code.py").write_text("")
    (checkout / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    if is_changed:
        (checkout / "pipeline" / "code.py").write_text("changed")

    bin_folder.mkdir()
    answer = f'case "$*" in *revision*) echo "{label.format(head=git("rev-parse", "HEAD"))}";; esac'
    (bin_folder / "docker").write_text(f"#!/bin/sh\n{answer}\n")
    (bin_folder / "docker").chmod(0o755)
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    command = ["make", "--no-print-directory", "up", "MODE=docker", "GPU=no"]
    said = subprocess.run(command, cwd=checkout, env=env, check=True, capture_output=True, text=True).stderr
    assert ("make build brings them up to date" in said) == is_told


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_versions_of_the_projects_with_hashes_and_no_address(name: str) -> None:
    def pins(path: Path) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+==[^ ;]+)", path.read_text(), re.MULTILINE))

    lock = ROOT / "docker" / f"{name}.lock"
    assert pins(lock) <= pins(ROOT / "requirements.lock")
    entries = re.split(r"^(?=[a-z])", lock.read_text(), flags=re.MULTILINE)
    assert [entry.split()[0] for entry in entries if entry.strip() and "--hash=sha256:" not in entry] == []
    assert "://" not in lock.read_text()


def test_torch_is_in_the_workers_image_alone() -> None:
    torch = re.compile(r"^(torch|torchvision|triton|nvidia-[a-z0-9-]+|scikit-learn)==", re.MULTILINE)
    assert set(torch.findall((ROOT / "docker" / "worker.lock").read_text())) >= {
        "torch",
        "torchvision",
        "nvidia-cublas",
    }
    assert torch.findall((ROOT / "docker" / "tensorboard.lock").read_text()) == []


@pytest.mark.parametrize("name", LOCKS)
def test_the_label_has_the_programs_version(name: str) -> None:
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
    assert re.findall(r"^ARG VERSION=(.+)$", text, re.MULTILINE) == [pipeline.__version__]


@pytest.mark.parametrize("name", LOCKS)
def test_base_image_python_and_user_are_build_arguments(name: str) -> None:
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
    assert {"PYTHON", "DEBIAN", "BASE", "UID", "VERSION", "REVISION"} <= set(
        re.findall(r"^ARG (\w+)", text, re.MULTILINE)
    )
    assert text.index("--require-hashes") < text.index("target=/src"), "dependencies before source"
