"""What Slurm and Ray are asked, and how what they say is read; without either."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.errors import SpecError, UsageError
from pipeline.home.paths import Home
from pipeline.jobfile import settings
from pipeline.jobfile.resources import Resources
from pipeline.worker.executors import engines, ray, slurm
from pipeline.worker.executors.engine import BusyError, RefusedError, Seen, Task, UnreachableError


def task(**resources: Any) -> Task:
    environment = {"PIPELINE_RUNS": "/shared/runs", "PIPELINE_DATASETS": "/shared/my data", "GOMP_SPINCOUNT": "5000"}
    command = ["/shared/.venv/bin/python", "-P", "-m", "pipeline.training.attempt", "/home/me", "job", "2"]
    log = Path("/shared/runs/job/attempt-2.log")
    return Task("job.2", command, environment, log, Resources.model_validate(resources))


# Slurm


def test_sbatch_gets_what_the_job_file_says() -> None:
    more = {"partition": "gpu,long", "account": "lab", "qos": "high", "constraint": "a100|h100", "time": 5400}
    given = [*slurm.sbatch(task(gpus=1, cpus=8, memory=16 * 2**30, priority=30, slurm=more))]
    assert given[0] == "sbatch"
    assert {
        *("--parsable", "--no-requeue", "--open-mode=append", "--job-name=job.2", "--chdir=/shared/runs/job"),
        *("--output=/shared/runs/job/attempt-2.log", "--signal=B:TERM@60", "--gres=gpu:1", "--cpus-per-task=8"),
        *("--mem=16384M", "--partition=gpu,long", "--account=lab", "--qos=high", "--constraint=a100|h100"),
        *("--time=90", "--nice=970", "--nodes=1", "--ntasks=1"),
    } == {*given[1:]}


def test_sbatch_leaves_open_what_the_job_file_does() -> None:
    given = [*slurm.sbatch(task())]
    options = (
        "--gres",
        "--cpus",
        "--mem",
        "--time",
        "--partition",
        "--account",
        "--qos",
        "--constraint",
        "--container",
    )
    assert [option for option in given if option.startswith(options)] == []
    assert "--gres=gpu:1" in [*slurm.sbatch(task(device="cuda"))]
    assert "--nice=0" in [*slurm.sbatch(task(priority=1000))]
    assert "--nice=2000" in [*slurm.sbatch(task(priority=-1000))]


def test_the_script_becomes_the_attempt() -> None:
    assert slurm.script(task()).splitlines() == [
        "#!/bin/sh",
        "export PIPELINE_RUNS=/shared/runs",
        "export PIPELINE_DATASETS='/shared/my data'",
        "export GOMP_SPINCOUNT=5000",
        "exec /shared/.venv/bin/python -P -m pipeline.training.attempt /home/me job 2",
    ]


def test_an_image_is_started_by_apptainer_or_pyxis() -> None:
    last = slurm.script(task(gpus=1, slurm={"container": "/shared/pipeline.sif"})).splitlines()[-1]
    inside = "python3 -P -m pipeline.training.attempt /home/me job 2"
    assert last == f"exec apptainer exec --nv --bind '/shared/runs,/shared/my data' /shared/pipeline.sif {inside}"
    by_pyxis = task(slurm={"container": "lab/pipeline:1", "container_runtime": "pyxis"})
    assert slurm.script(by_pyxis).splitlines()[-1] == f"exec {inside}"
    mounts = "/shared/runs:/shared/runs,/shared/my data:/shared/my data"
    assert [*slurm.sbatch(by_pyxis)][-2:] == ["--container-image=lab/pipeline:1", f"--container-mounts={mounts}"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("PENDING", "Resources", "n/a", "0:00", "0"), Seen("7", "waits", "Resources")),
        (("PENDING", "None", "", "0:00", "0"), Seen("7", "waits")),
        (("RUNNING", "None", "n1", "1-02:03:04", "0"), Seen("7", "runs", "running", "n1", 93784.0)),
        (("COMPLETING", "None", "n1", "0:07", "15"), Seen("7", "runs", "completing", "n1", 7.0)),
        (("COMPLETED", "None", "n1", "0:09", "0"), Seen("7", "ended", "", "n1", 9.0, 0)),
        (("FAILED", "NonZeroExitCode", "n1", "0:09", "768"), Seen("7", "ended", "", "n1", 9.0, 3)),
        (("FAILED", "JobLaunchFailure", "n1", "0:09", "9"), Seen("7", "ended", " (JobLaunchFailure)", "n1", 9.0, -9)),
        (("FAILED", "JobLaunchFailure", "n1", "0:00", "53"), Seen("7", "ended", slurm.UNSEEN, "n1", 0.0, 1, "lost")),
        (("FAILED", "NonZeroExitCode", "n1", "0:09", "4294967294"), Seen("7", "ended", "", "n1", 9.0, -126)),
        (
            ("TIMEOUT", "TimeLimit", "n1", "1:00", "15"),
            Seen("7", "ended", "reached its time limit", "n1", 60.0, -15, "interrupted"),
        ),
        (
            ("NODE_FAIL", "NodeDown", "n1", "1:00", "0"),
            Seen("7", "ended", "its node failed (NodeDown)", "n1", 60.0, 0, "lost"),
        ),
        (
            ("CANCELLED", "None", "n/a", "INVALID", "0"),
            Seen("7", "ended", "was cancelled there", "", 0.0, 0, "cancelled"),
        ),
    ],
    ids=str,
)
def test_what_squeue_says_is_read(fields: tuple[str, ...], expected: Seen) -> None:
    assert slurm.seen("7", *fields) == expected


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands in the place of Slurm's; a test writes them."""
    for name in ("sbatch", "squeue", "scancel"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        (
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            RefusedError,
            "Invalid partition name specified",
        ),
        ("sbatch: error: Unable to contact slurm controller (connect failure)", UnreachableError, "Unable to contact"),
        ("sbatch: error: Batch job submission failed: Socket timed out", UnreachableError, "Socket timed out"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", BusyError, "QOSMaxSubmitJobPerUserLimit"),
        (
            "sbatch: error: Batch job submission failed: Protocol authentication error",
            UnreachableError,
            "authentication",
        ),
        ("sbatch: error: Required partition not available (inactive or drain)", BusyError, "inactive or drain"),
        ("sbatch: error: something that no version has said so far", BusyError, "no version"),
        (
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
            RefusedError,
            "not",
        ),
    ],
)
def test_what_sbatch_complains_of_is_told_apart(
    said: str, error: type[Exception], message: str, commands: Path
) -> None:
    (commands / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    with pytest.raises(error, match=message):
        slurm.Slurm().submit(task())


def test_of_several_jobs_of_a_name_the_one_that_lives_counts(commands: Path) -> None:
    lines = [
        "1|job.2|FAILED|BadConstraints|n/a|0:00|1|",
        "2|job.2|RUNNING|None|n1|0:01|0|",
        "3|job.2|FAILED|x|n/a|0:00|1|",
    ]
    lines.insert(0, "CLUSTER: lab")
    (commands / "squeue").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    assert slurm.Slurm().look(["job.2"])["job.2"].id == "2"


def test_without_slurms_commands_a_person_is_told_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no sbatch, squeue, scancel; run the worker on a login node"):
        engines.make("slurm", "auto")


# Ray


def test_ray_gets_what_the_job_file_says() -> None:
    request = ray.request(task(gpus=1, cpus=8, memory=16 * 2**30))
    assert request["submission_id"] == "job.2"
    assert request["entrypoint"] == (
        "exec /shared/.venv/bin/python -P -m pipeline.training.attempt /home/me job 2 "
        ">> /shared/runs/job/attempt-2.log 2>&1"
    )
    amounts = [request[f"entrypoint_{kind}"] for kind in ("num_cpus", "num_gpus", "memory")]
    assert amounts == [8, 1, 16 * 2**30]
    environment = request["runtime_env"]["env_vars"]
    assert (environment["OMP_NUM_THREADS"], environment["PIPELINE_RUNS"]) == ("8", "/shared/runs")
    assert "CUDA_VISIBLE_DEVICES" not in environment, "which would overrule Ray"
    assert ray.request(task())["entrypoint_num_cpus"] == 1, "else it runs on the head"


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"status": "PENDING", "message": "not\nyet"}, Seen("a", "waits", "not yet")),
        (
            {"status": "RUNNING", "driver_agent_http_address": "http://10.0.0.3:52365"},
            Seen("a", "runs", node="10.0.0.3"),
        ),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, Seen("a", "ended")),
        ({"status": "FAILED", "driver_exit_code": 75}, Seen("a", "ended", status=75)),
        ({"status": "STOPPED"}, Seen("a", "ended", "was stopped there", status=1, outcome="cancelled")),
        (
            {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED", "message": "gone"},
            Seen("a", "ended", "its node or its supervisor died: gone", status=1, outcome="lost"),
        ),
        (
            {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "message": "900 s"},
            Seen(
                *("a", "ended", "waited longer than RAY_JOB_START_TIMEOUT_SECONDS allows: 900 s"),
                status=1,
                outcome="interrupted",
            ),
        ),
    ],
    ids=str,
)
def test_what_ray_says_is_read(job: dict[str, Any], expected: Seen) -> None:
    assert ray.seen({"submission_id": "a", **job}) == expected


def test_ray_says_of_what_it_will_never_have_room_for_that_there_is_none_now() -> None:
    nodes = [{"CPU": 4.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 1.0, "memory": 1e9}]
    asked = {"metadata": ray.request(task(cpus=64))["metadata"]}
    assert ray.why_it_waits(asked, nodes) == "no node has 64 CPU, the largest has 8"
    asked = {"metadata": ray.request(task(gpus=1))["metadata"]}
    assert ray.why_it_waits(asked, nodes[:1]) == "no node has 1 GPU, the largest has 0"
    assert ray.why_it_waits(asked, nodes) == "no node has room for it now"
    assert ray.why_it_waits({"metadata": None}, []) == "no node has room for it now"


class Server(http.server.BaseHTTPRequestHandler):
    """Ray's dashboard, as a test has it answer."""

    answers: ClassVar[dict[str, tuple[int, str]]] = {}  # by method and path

    def answer(self) -> None:
        code, text = self.answers.get(f"{self.command} {self.path}", (404, "Job does not exist"))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer  # noqa: N815 - the names that the library looks for

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def dashboard() -> Iterator[ray.Ray]:
    Server.answers = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ray.Ray(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_job_that_ray_has_already_is_not_submitted_twice(dashboard: ray.Ray) -> None:
    Server.answers["GET /api/jobs/"] = (200, "[]")
    Server.answers["POST /api/jobs/"] = (500, "Traceback\nValueError: Job with submission_id job.2 already exists.")
    with pytest.raises(BusyError, match="already exists"):
        dashboard.submit(task())
    Server.answers["GET /api/jobs/"] = (200, json.dumps([{"submission_id": "job.2", "status": "RUNNING"}]))
    assert dashboard.submit(task()) == "job.2"


def test_what_ray_refuses_is_told_and_what_it_cannot_now_is_not(dashboard: ray.Ray) -> None:
    Server.answers["GET /api/jobs/"] = (200, "[]")
    for code, error in ((400, RefusedError), (500, BusyError), (503, UnreachableError), (404, UnreachableError)):
        Server.answers["POST /api/jobs/"] = (code, "the reason")
        with pytest.raises(error, match="the reason"):
            dashboard.submit(task())


def test_a_ray_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9: .*Connection refused"):
        ray.Ray("http://127.0.0.1:9/").look(["a"])


def test_a_job_that_was_taken_back_while_it_waited_has_ended(dashboard: ray.Ray) -> None:
    waits = {"submission_id": "job.2", "status": "PENDING", "message": "no room", "entrypoint_num_cpus": 1}
    Server.answers["GET /api/jobs/"] = (200, json.dumps([waits]))
    Server.answers["POST /api/jobs/job.2/stop"] = (200, '{"stopped": true}')
    assert dashboard.look(["job.2"])["job.2"].phase == "waits"
    dashboard.kill("job.2")
    assert dashboard.look(["job.2"])["job.2"].outcome == "cancelled"


def test_the_address_is_of_a_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ray.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert ray.Ray().address == ray.ADDRESS
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # of the cluster's own protocol
    assert ray.Ray().address == ray.ADDRESS
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert ray.Ray().address == "http://head:8265"
    with pytest.raises(UsageError, match="--address head:6379: is not of a dashboard"):
        ray.Ray("head:6379")


# A home's settings


def test_a_homes_settings_fill_in_what_a_job_leaves_open(home: Home) -> None:
    home.root.mkdir()
    home.settings.write_text("resources: {gpus: 1, cpus: 8, memory: 16GB, slurm: {partition: gpu, account: lab}}\n")
    defaults = settings.read(home).resources
    filled = Resources.model_validate({"cpus": 2, "slurm": {"partition": "long"}}).over(defaults)
    assert (filled.gpus, filled.cpus, filled.memory) == (1, 2, 16_000_000_000)
    assert (filled.slurm.partition, filled.slurm.account) == ("long", "lab")
    assert Resources.model_validate({"device": "cpu"}).over(defaults).num_gpus == 0


def test_memory_may_be_said_as_docker_and_slurm_do() -> None:
    for text, amount in (("16g", 16 * 2**30), ("512m", 512 * 2**20), ("1.5t", 3 * 2**39), ("16GB", 16 * 10**9)):
        assert Resources.model_validate({"memory": text}).memory == amount


def test_without_settings_all_is_left_to_the_cluster(home: Home) -> None:
    filled = Resources.model_validate({}).over(settings.read(home).resources)
    assert filled.model_dump() == Resources.model_validate({}).model_dump()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "resources: {slurm: {partiton: gpu}}",
            "settings.yaml:1: resources.slurm.partiton: .*did you mean 'partition'",
        ),
        ("resources: {gpus: 2}", "settings.yaml:1: resources.gpus: "),
        ("epochs: 3", r"settings.yaml:1: epochs: there is no such field \(known: resources\)"),
        ("cpus: 3", "settings.yaml:1: cpus: there is no such field; did you mean 'resources.cpus'"),
        (
            "resources: {retries: 3}",
            r"resources.retries: there is no such field \(known: cpus, gpus, memory, slurm, timeout\)",
        ),
        ("resources: {timeout: soon}", "settings.yaml:1: resources.timeout: 'soon' is not a duration"),
        ("- a", "begins with 'resources: ...'"),
    ],
)
def test_wrong_settings_are_told_by_line(text: str, message: str, home: Home) -> None:
    home.root.mkdir()
    home.settings.write_text(text)
    with pytest.raises(SpecError, match=message):
        settings.read(home)
