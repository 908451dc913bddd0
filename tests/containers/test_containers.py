"""The containers at work: jobs that are submitted, stopped, killed, shared and resumed on a real engine, on the CPU."""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chromium import browser, chromium, is_colored, is_drawn, page, wait_for  # noqa: F401 - three are fixtures
from engine import HOME, ROOT, TAG, Compose, compose, docker, engine, images, make, out_of, poll  # noqa: F401 - fixtures
from PIL import Image
from quick import NOTHING_SHOWN, wait_until

from pipeline.board import tags

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.containers

PLAIN = [f"log.{kind}=false" for kind in NOTHING_SHOWN]
EXACT = [*PLAIN, "train.deterministic=true", "train.checkpoint_every=1s"]
EPOCHS, AMID = 150, 150  # a step amid them
LONG = [*EXACT, f"train.epochs={EPOCHS}"]  # some ten seconds and more
SHORT = [*PLAIN, "train.epochs=1"]
START = "PIPELINE_START_ENGINE"
PIDS = [
    Path("/var/run/docker.pid"),
    Path("/var/run/docker/containerd/containerd.pid"),
]  # both die


def steps_of(compose: Compose, job_id: str, tag: str) -> list[int]:
    rows = csv.DictReader(compose.cli("export", job_id).splitlines())
    return [int(row["step"]) for row in rows if row["tag"] == tag]


def attempts(compose: Compose, job_id: str) -> list[dict[str, Any]]:
    text = compose("exec", "-T", "worker", "cat", f"{HOME}/queue/jobs/{job_id}/attempts.json")
    found: list[dict[str, Any]] = json.loads(text)["entries"]
    return found


def kill_from_outside(container: str) -> None:
    """As a crash does; `docker kill` tells the engine not to start it again."""
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container)), signal.SIGKILL)


def assert_one_whole_curve(compose: Compose, job_id: str, *, epochs: int) -> None:
    assert steps_of(compose, job_id, tags.TEST_ACCURACY) == [23 * epoch for epoch in range(1, epochs + 1)]
    steps = steps_of(compose, job_id, tags.TRAIN_LOSS)
    assert len(steps) == len(set(steps))
    assert steps == sorted(steps)


# Inside


@pytest.mark.parametrize("service", ["worker", "tensorboard", "cli"])
def test_what_a_container_may_do(compose: Compose, service: str) -> None:
    script = "id -u; grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/self/status; "
    script += "touch /new 2>&1; touch /opt/venv/new 2>&1; touch /tmp/new && echo yes"
    said = compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", service, "-c", script)
    assert said.splitlines() == [
        "1000",
        *(f"{name}:\t0000000000000000" for name in ("CapPrm", "CapEff", "CapBnd")),
        "NoNewPrivs:\t1",
        "touch: cannot touch '/new': Read-only file system",
        "touch: cannot touch '/opt/venv/new': Read-only file system",
        "yes",
    ]


@pytest.mark.parametrize(
    ("service", "folder", "is_writable"),
    [
        *(("worker", f"{HOME}/{name}", True) for name in ("queue", "runs", "datasets")),
        ("worker", "/srv/data", False),
        ("tensorboard", f"{HOME}/runs", False),
        ("cli", f"{HOME}/queue", True),
        ("cli", f"{HOME}/datasets", False),
        ("cli", "/srv/jobs", False),
        ("cli", "/srv/data", False),
    ],
)
def test_which_folders_a_container_may_change(compose: Compose, service: str, folder: str, is_writable: bool) -> None:
    """Also, as each has volumes of its own: whichever container comes first."""
    touch = f"touch {folder}/.new 2>/dev/null && rm {folder}/.new && echo yes || echo no"
    said = compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", service, "-c", touch)
    assert said == ("yes" if is_writable else "no")


def test_the_limits_are_the_engines(compose: Compose) -> None:
    compose("create", "worker", "tensorboard")
    for service, memory, pids in (("worker", 16, 4096), ("tensorboard", 4, 256)):
        (container,) = compose("ps", "--all", "--quiet", service).split()
        limits = json.loads(docker("inspect", "--format", "{{json .HostConfig}}", container))
        assert (limits["Memory"], limits["PidsLimit"]) == (memory * 1024**3, pids)
        assert limits["ReadonlyRootfs"]
        assert limits["Init"]


# The story


def test_the_whole_story(compose: Compose, page: Page, tmp_path: Path) -> None:
    """Submitted before `up`, followed, looked at, stopped in mid-job, resumed, done; as if nothing had happened."""
    job_id = compose.submit("digits", *LONG)
    assert compose.status()[job_id]["state"] == "pending"
    followed = subprocess.Popen(
        ["docker", "compose", "--progress", "quiet", "run", "--rm", "-T", "cli", "logs", "--follow", job_id],
        **{"cwd": ROOT, "env": compose.env, "stdout": subprocess.PIPE, "text": True},
    )
    compose("up", "--detach", "--wait", "worker")
    compose.wait_for_step(job_id, AMID)
    compose("stop")
    stopped = compose.status()[job_id]
    assert stopped["state"] == "pending"
    assert AMID <= stopped["step"] < EPOCHS * 23
    states = [
        json.loads(docker("inspect", "--format", "{{json .State}}", c)) for c in compose("ps", "-aq", "worker").split()
    ]
    assert [(state["ExitCode"], state["OOMKilled"]) for state in states] == [(0, False)]

    compose("up", "--detach", "--wait")
    page.goto(compose.url)
    page.get_by_role("combobox", name="Filter tags").fill(f"^{tags.TEST_ACCURACY}$")
    page.keyboard.press("Escape")
    chart = page.locator("scalar-card").filter(has_text=tags.TEST_ACCURACY).locator("line-chart").first
    wait_for(chart)
    wait_until(lambda: is_drawn(chart.screenshot(), is_colored), "its curve")
    wait_for(page.get_by_text(re.compile(re.escape(job_id))).first)
    done = compose.wait_for(job_id, "done")
    assert (done["outcome"], done["attempt"], done["step"]) == ("succeeded", 2, EPOCHS * 23)
    log = followed.communicate(timeout=120)[0]
    assert f"resumed at step {stopped['step']} " in log
    assert f"succeeded: trained {EPOCHS} epochs" in log
    assert [attempt["outcome"] for attempt in attempts(compose, job_id)] == ["interrupted", "succeeded"]
    assert_one_whole_curve(compose, job_id, epochs=EPOCHS)

    alone = embedded_run(tmp_path, LONG)
    assert_same_weights(alone, compose.copy_run(job_id, tmp_path))


def embedded_run(folder: Path, changes: list[str]) -> Path:
    """The run of `jobs/digits.yaml` in an embedded home, by a worker as `make worker` starts it."""
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(folder / "embedded")]
    words = [word for change in changes for word in ("--set", change)]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    job_id = subprocess.check_output(
        [*command, "submit", "--quiet", "jobs/digits.yaml", *words], text=True, cwd=ROOT
    ).strip()
    subprocess.run([*command, "worker", "--drain"], check=True, env=environment, stdout=subprocess.DEVNULL, timeout=600)
    return folder / "embedded" / "runs" / job_id


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
    return found


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_same_job_file_gives_the_same_run_in_both_homes(compose: Compose, tmp_path: Path) -> None:
    """Weights, manifest, tags with their steps, and files; with all that is shown by default."""
    changes = ["train.deterministic=true", "train.epochs=3"]
    job_id = compose.submit("digits", *changes)
    compose.make("up")
    compose.wait_for(job_id, "done")
    report = ["exec", "-T", "worker", "sh", "-c", f"ls {HOME}/runs/{job_id} | grep -c report || true"]
    wait_until(lambda: compose(*report) == "1", "its report")
    there, here = compose.copy_run(job_id, tmp_path), embedded_run(tmp_path, changes)
    assert_same_weights(here, there)
    assert_same_manifests(here, there)

    embedded = [sys.executable, "-m", "pipeline.cli", "--home", str(here.parent.parent), "export", here.name]
    mine, theirs = out_of(embedded), compose.cli("export", job_id)
    rows = [list(csv.DictReader(text.splitlines())) for text in (mine, theirs)]
    points = [Counter((row["tag"], row["step"]) for row in table) for table in rows]
    assert points[0] == points[1]
    assert points[0][tags.TEST_ACCURACY, "69"] == 1
    files = [sorted(p.name for p in run.rglob("*") if not p.name.startswith("events")) for run in (here, there)]
    assert files[0] == files[1]


def assert_same_manifests(here: Path, there: Path) -> None:
    """But for where and when they ran."""
    mine, theirs = (json.loads((run / "manifest.json").read_text()) for run in (here, there))
    (my_attempt,), (their_attempt,) = mine.pop("attempts"), theirs.pop("attempts")
    assert {**mine, "id": None} == {**theirs, "id": None}
    assert their_attempt["image_digest"] == docker("image", "inspect", "--format", "{{.Id}}", f"pipeline-worker:{TAG}")
    assert my_attempt["image_digest"] is None
    assert their_attempt["code"]["commit"] is not None
    if my_attempt["python"].rpartition(".")[0] != their_attempt["python"].rpartition(".")[0]:
        del my_attempt["packages"]["numpy"], their_attempt["packages"]["numpy"]  # of which the lock has two
    for key in ("started_at", "python", "platform", "node", "image_digest"):
        del my_attempt[key], their_attempt[key]
    assert my_attempt == their_attempt


# Killed


def test_a_killed_worker_is_started_again_and_its_job_goes_on(compose: Compose) -> None:
    job_id = compose.submit("digits", *LONG)
    compose("up", "--detach", "worker")
    compose.wait_for_step(job_id, AMID)
    (container,) = compose.containers("worker")
    kill_from_outside(container)
    done = compose.wait_for(job_id, "done")
    assert (done["outcome"], done["step"]) == ("succeeded", EPOCHS * 23)
    assert [attempt["outcome"] for attempt in attempts(compose, job_id)] == ["lost", "succeeded"]
    assert compose.containers("worker") == [container]
    assert_one_whole_curve(compose, job_id, epochs=EPOCHS)


def test_compose_kill_loses_nothing(compose: Compose) -> None:
    running, waiting = compose.submit("digits", *LONG), compose.submit("digits", *SHORT)
    compose("up", "--detach", "worker")
    compose.wait_for_step(running, AMID)
    compose("kill")
    assert {job["state"] for job in compose.status().values()} == {"running", "pending"}
    compose("up", "--detach", "worker")
    for job_id in (running, waiting):
        assert compose.wait_for(job_id, "done")["outcome"] == "succeeded"
    assert_one_whole_curve(compose, running, epochs=EPOCHS)


@pytest.mark.skipif(START not in os.environ, reason=f"{START} names no command that starts an engine")
def test_a_killed_engine_loses_nothing(compose: Compose) -> None:
    job_id = compose.submit("digits", *LONG)
    compose("up", "--detach", "worker")
    compose.wait_for_step(job_id, AMID)
    engine = [int(path.read_text()) for path in PIDS]
    os.kill(engine[0], signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engine), "the engine to be gone, all of it")
    subprocess.run(shlex.split(os.environ[START]), check=True, timeout=300, capture_output=True)
    assert compose.status()[job_id]["step"] >= AMID
    compose("up", "--detach", "worker")  # an engine that finds a container of a killed one stops it, as if asked to
    done = compose.wait_for(job_id, "done")
    assert (done["outcome"], done["step"]) == ("succeeded", EPOCHS * 23)
    assert [attempt["outcome"] for attempt in attempts(compose, job_id)][1:] == ["succeeded"]
    assert_one_whole_curve(compose, job_id, epochs=EPOCHS)


# Shared


def test_two_workers_share_twenty_jobs(compose: Compose) -> None:
    job = ["submit", "--quiet", *["jobs/digits.yaml"] * 20, *(w for change in SHORT for w in ("--set", change))]
    ids = compose.cli(*job).split()
    assert len(set(ids)) == 20
    compose("up", "--detach", "--scale", "worker=2", "worker")
    assert len(compose.containers("worker")) == 2
    poll(lambda: all(job["state"] == "done" for job in compose.status().values()), "all to end")
    jobs = compose.status()
    assert set(jobs) == set(ids)
    assert {(job["outcome"], job["attempt"], job["step"]) for job in jobs.values()} == {("succeeded", 1, 23)}
    tried = {job_id: attempts(compose, job_id) for job_id in ids}
    assert {len(entries) for entries in tried.values()} == {1}, "none is run twice"
    workers = Counter(entries[0]["worker"].rpartition("-")[0] for entries in tried.values())
    assert sorted(workers) == sorted(container[:12] for container in compose.containers("worker"))
    assert min(workers.values()) >= 4, "each does its part"


# Told when it is over

LISTENER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(json.dumps([told["title"], told["message"]]), flush=True)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""


def test_somebody_is_told_how_a_job_in_a_container_ends(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, secret = f"{compose.project}-listener", secrets.token_hex(8)
    monkeypatch.setenv("PIPELINE_NOTIFY", f"json://{listener}:8000/{secret}")
    job_id = compose.submit("digits", *SHORT)
    aside = ["run", "--detach", "--no-deps", "--name", listener, "--entrypoint", "python", "tensorboard"]
    compose(*aside, "-u", "-c", LISTENER)
    try:
        compose("up", "--detach", "--wait", "worker")
        compose.wait_for(job_id, "done")
        (told,) = poll(lambda: docker("logs", listener).splitlines(), "the notification")
    finally:
        docker("rm", "--force", listener)
    title, body = json.loads(told)
    assert title == f"{job_id} succeeded"
    assert "test accuracy" in body
    assert f"run: {HOME}/runs/{job_id} on " in body
    said = compose("logs", "worker")
    assert f"{job_id}: succeeded" in said
    assert secret not in said
    files = f"grep -rl {secret} {HOME} || true"
    assert compose("exec", "-T", "worker", "sh", "-c", files) == ""


# What people bring


def test_ones_own_images_are_found_where_they_would_be_without_containers(compose: Compose, tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 6)):
        for index, color in enumerate(("red", "green", "blue")):
            folder = tmp_path / "my_pictures" / split / color
            folder.mkdir(parents=True)
            for number in range(count):
                shade = [0, 0, 0]
                shade[index] = 100 + 10 * number
                Image.new("RGB", (8, 8), tuple(shade)).save(folder / f"{number}.png")
    compose.data = tmp_path
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)  # the containers' user is not this one
    changes = [*PLAIN, "data.path=my_pictures", "data.image_size=8", "data.batch_size=12", "train.epochs=2"]
    changes += ["model={name: cnn_bn}"]
    job_id = compose.submit("image_folder", *changes)
    compose("up", "--detach", "worker")
    compose.wait_for_the_end(job_id)
    assert compose.status()[job_id]["why"].startswith("trained 2 epochs")


def test_a_model_of_ones_own_runs_as_it_was_when_it_was_submitted(compose: Compose, tmp_path: Path) -> None:
    """`make new`, a check without torch, two jobs, and a file that is gone before the worker is there."""
    name = f"test_{secrets.token_hex(3)}"
    compose.modules = tmp_path / "modules"
    compose.modules.mkdir()
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent, compose.modules):
        path.chmod(0o755)  # the containers' user is not this one
    job, model = ROOT / "jobs" / f"{name}.yaml", compose.modules / f"{name}.py"
    try:
        assert compose.make("new", f"MODEL={name}").splitlines() == [f"modules/{name}.py", f"jobs/{name}.yaml"]
        assert compose.cli("validate", f"jobs/{name}.yaml") == f"jobs/{name}.yaml: ok"
        right = compose.submit(name, *SHORT, "model.width=8")
        model.write_text(
            model.read_text().replace("nn.Linear(4 * 2 * width, num_classes)", "nn.Linear(4 * 2 * width, 7)")
        )
        wrong = compose.submit(name, *SHORT)
        model.write_text(model.read_text().replace("class Test", "class Other"))
        assert f"modules/{name}.py defines no class or function" in compose.cli(
            "validate", f"jobs/{name}.yaml", fails=True
        )
        model.unlink()
        compose("up", "--detach", "worker")
        for job_id in (right, wrong):
            compose.wait_for_the_end(job_id)
    finally:
        job.unlink(missing_ok=True)
    ended = compose.status()
    assert (ended[right]["state"], ended[wrong]["state"]) == ("done", "failed")
    assert re.match(rf"modules/{name}.py:\d+: \w+ gives \(2, 7\) for 2 images of 10 classes", ended[wrong]["why"])


def test_a_sweep_is_run_by_two_workers(compose: Compose) -> None:
    """Asked for without a file, and without torch where it is submitted; the best one as a job file from there, too."""
    sweep_id = compose.submit("digits", *SHORT, "data.batch_size=32,64,128,256")
    compose("up", "--detach", "--scale", "worker=2", "worker")
    end = compose.wait_for_the_end(sweep_id)
    assert end["outcome"] == "succeeded", end["why"]
    trials = {job["trial"]: job["outcome"] for job in compose.status().values() if job["trial"] is not None}
    assert trials == dict.fromkeys(range(4), "succeeded")
    best = compose.make("--silent", "best", f"JOB={sweep_id}")
    assert "name: digits_best" in best
    assert re.search("^  batch_size: (32|64|128|256)$", best, re.MULTILINE)
    assert "4 succeeded" in compose.cli("show", sweep_id)


def test_compiled_models_run_with_a_read_only_root(compose: Compose) -> None:
    """There is a compiler, headers, and a place from which its output can be loaded."""
    job_id = compose.submit("digits", *SHORT, "train.compile=true")
    compose("up", "--detach", "worker")
    compose.wait_for_the_end(job_id)
    job = compose.status()[job_id]
    assert job["outcome"] == "succeeded", compose.cli("logs", job_id)
    manifest = compose("exec", "-T", "worker", "cat", f"{HOME}/runs/{job_id}/manifest.json")
    assert json.loads(manifest)["attempts"][-1]["computes"]["compile"] is True


def test_without_a_gpu_a_plain_up_fails_at_once_and_says_why(compose: Compose) -> None:
    if subprocess.run("nvidia-smi -L || docker info | grep -i nvidia", shell=True, capture_output=True).returncode == 0:
        pytest.skip("there is a GPU")
    said = docker("compose", "up", "--detach", env=compose.env, fails=True)
    assert 'could not select device driver "nvidia"' in said
    pages = (ROOT / "README.md").read_text() + (ROOT / "docs" / "operations.md").read_text()
    assert 'could not select device driver "nvidia"' in pages


# make


def test_the_make_verbs_act_on_the_containers(compose: Compose) -> None:
    """Found by themselves, as the engine answers and the images are built."""
    env = {key: value for key, value in compose.env.items() if key != "MODE"}

    def verb(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, **options)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[0] in (
            "home: containers (MODE=docker)",
            "home: containers, without a GPU (MODE=docker)",
        )
        return done

    job_id = verb("submit", "JOB=digits", f"SET={' '.join(SHORT)}").stdout.strip()
    assert re.fullmatch("digits-[0-9a-f]{4}", job_id)
    assert job_id in verb("status").stdout
    assert f"TensorBoard: http://127.0.0.1:{compose.port}" in verb("up").stdout
    assert "succeeded: trained 1 epoch;" in verb("logs").stdout
    compose.wait_for_the_end(job_id)
    shown = verb("show").stdout
    assert "succeeded" in shown
    assert f"http://127.0.0.1:{compose.port}" in shown, "where TensorBoard is"
    assert re.search(r"ok +torch", verb("doctor").stdout)
    assert "pipeline\n" in verb("shell", input="whoami\n").stdout + "\n"
    verb("down")
    assert compose("ps", "--all", "--quiet") == ""
    assert job_id in verb("status").stdout, "the volumes stay"


@pytest.mark.parametrize("forced", [True, False], ids=["MODE", "PIPELINE_HOME"])
def test_the_embedded_home_can_be_had_all_the_same(compose: Compose, tmp_path: Path, forced: bool) -> None:
    env = {key: value for key, value in compose.env.items() if key != "MODE"} | ({"MODE": "local"} if forced else {})
    env["PIPELINE_HOME"] = str(tmp_path)
    command = ["make", "--no-print-directory", "--old-file=.venv/.installed", "status"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[0] == f"home: {tmp_path}, without containers (MODE=local)"
    assert f"no jobs in {tmp_path}" in done.stderr


WITH_GPU = "echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'"
BROKEN = "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9"


@pytest.mark.parametrize(
    ("nvidia_smi", "more", "is_added"),
    [
        (WITH_GPU, [], False),
        (BROKEN, [], True),
        (BROKEN, ["GPU=yes"], False),
        (WITH_GPU, ["GPU=no"], True),
    ],
    ids=["gpu", "driver that does not work", "GPU=yes", "GPU=no"],
)
def test_make_up_adds_the_override_where_there_is_no_gpu(
    engine: None,  # noqa: ARG001
    tmp_path: Path,
    nvidia_smi: str,
    more: list[str],
    is_added: bool,
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    commands = make("-n", "up", "MODE=docker", *more, env={**os.environ, "PATH": path, "PIPELINE_TAG": TAG})
    assert ("-f docker/compose.cpu.yaml up --detach" in commands) == is_added


def test_settings_are_found_in_the_file_that_compose_reads(engine: None, tmp_path: Path) -> None:  # noqa: ARG001
    for name in ("Makefile", "compose.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".env").write_text("PIPELINE_TAG=mine\nPIPELINE_DATA=/my/images\n")
    env = {key: value for key, value in os.environ.items() if key not in ("PIPELINE_TAG", "PIPELINE_DATA")}
    commands = make("-n", "up", "MODE=docker", cwd=tmp_path, env=env)
    assert 'mkdir -p "/my/images"' in commands
    assert "pipeline-worker:mine" in commands


def test_make_smoke(images: dict[str, str]) -> None:  # noqa: ARG001
    """From nothing to a trained model that TensorBoard serves; it leaves no container and no volume."""
    assert re.search(r"^outcome +succeeded$", make("smoke"), re.MULTILINE)
    assert docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=pipeline-smoke") == ""
    assert docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=pipeline-smoke") == ""
    assert docker("images", "--quiet", "pipeline-worker:smoke") == ""
