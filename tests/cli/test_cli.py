"""The command line, as a person or a script meets it: real processes, what they print where, and their exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.app import make_app
from pipeline.cli.submission import load_all
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.jobfile.json_schema import json_schema
from pipeline.queue import checks
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

Pipeline = Callable[..., subprocess.CompletedProcess[str]]
JobFile = Callable[..., Path]

COMMANDS = {str(c.name): c.callback for c in make_app().registered_commands if c.callback}
ID = re.compile(r"tiny-\d{8}T\d{12}Z-[0-9a-f]{6}")
STATUS_FIELDS = {
    *("id", "name", "state", "priority", "attempt", "submitted_at", "started_at", "finished_at"),
    *("epoch", "epochs", "metrics", "why", "run_dir"),
}


def submitted(pipeline: Pipeline, *arguments: str | Path) -> list[str]:
    done = pipeline("submit", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def end(home: Home, job_id: str, outcome: Any = "succeeded", why: str = "trained for 10 epochs") -> None:
    """End a waiting job as a worker does."""
    queue = Queue(home)
    claim = queue.claim("test")
    while claim is not None and claim.id != job_id:
        claim.lease.release()
        claim = queue.claim("test")
    assert claim is not None
    queue.end(claim, Result(1, outcome, why, 10, 10, 100, {"test/accuracy": 0.987}))
    claim.lease.release()


# Help


def test_the_commands_are_those_of_the_contract() -> None:
    assert COMMANDS.keys() == {
        *("validate", "submit", "worker", "up", "status", "show", "logs", "cancel", "retry", "schema", "run", "doctor"),
        *("export", "compare", "report", "predict", "export-model", "down", "health"),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_all_its_options(name: str) -> None:
    assert COMMANDS[name].__doc__
    command = typer.main.get_command(make_app()).commands[name]  # type: ignore[attr-defined]
    assert [parameter.name for parameter in command.params if not parameter.help] == []

    shown = CliRunner().invoke(make_app(), [name, "--help"])
    assert shown.exit_code == 0
    assert " ".join(str(COMMANDS[name].__doc__).split()) in " ".join(shown.stdout.split())


def test_help_and_version_need_no_home(pipeline: Pipeline) -> None:
    assert pipeline("--help").stdout.startswith("Usage: ")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", pipeline("--version").stdout)


# Exit codes and streams


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Usage"),
        (("sumbit",), "No such command 'sumbit'"),
        (("submit",), "Missing argument"),
        (("submit", "nothing.yaml"), "nothing.yaml: there is no such job file"),
        (("validate", "."), "cannot be read: Is a directory"),
        (("status", "--state", "finished"), "'finished' is not one of 'pending', 'running'"),
        (("worker", "--slots", "0"), "--slots"),
        (("show", "latest"), "there are no jobs here yet"),
        (("cancel", "x"), "there are no jobs here yet"),
    ],
)
def test_bad_usage_exits_with_2_and_says_why_on_stderr(
    arguments: tuple[str, ...], complaint: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    done = pipeline(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr + (done.stdout if not arguments else "")
    assert done.stdout == "" or not arguments
    assert "Traceback" not in done.stderr


def test_a_bad_job_file_exits_with_2_and_every_problem(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    path = job_file("train: {epochs: 0, seed: x}\n")
    for command in ("submit", "run"):
        done = pipeline(command, path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            f"{path}:4: train.epochs: 0 should be at least 1",
            f"{path}:4: train.seed: 'x' should be a whole number",
        ]
    assert not home.root.exists()


def test_validate_says_ok_for_each_file(pipeline: Pipeline, job_file: JobFile) -> None:
    first, second = job_file(name="a.yaml"), job_file(name="b.yaml")
    done = pipeline("validate", first, second, "--set", "train.epochs=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{first}: ok", f"{second}: ok"]


def test_one_bad_file_keeps_all_from_being_submitted(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    good, bad, worse = job_file(name="a.yaml"), job_file("x: 1\n", name="b.yaml"), job_file("y: 1\n", name="c.yaml")
    done = pipeline("submit", good, bad, worse)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [f"{bad}:4", f"{worse}:4"]
    assert not home.root.exists()


def test_a_bad_override_is_told_once_for_all_files(pipeline: Pipeline, job_file: JobFile) -> None:
    done = pipeline("submit", job_file(name="a.yaml"), job_file(name="b.yaml"), "--set", "train.epochs=x")
    assert done.returncode == 2
    assert done.stderr == "--set train.epochs=x: train.epochs: 'x' should be a whole number\n"


def test_schema_prints_the_schema(pipeline: Pipeline) -> None:
    assert json.loads(pipeline("schema").stdout) == json_schema()


# Submitting and looking


def test_submit_prints_ids_and_nothing_else_on_stdout(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    path = job_file()
    done = pipeline("submit", path, path)
    assert done.returncode == 0
    ids = done.stdout.splitlines()
    assert len(set(ids)) == 2
    assert all(ID.fullmatch(job_id) for job_id in ids)
    assert "no worker is running" in done.stderr
    assert sorted(path.stem for path in home.queue.state("pending").iterdir()) == sorted(ids)


def test_overrides_and_priority_are_in_the_ticket(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    (job_id,) = submitted(pipeline, job_file(), "--set", "train.epochs=7", "--set", "log.every=3", "--priority", "5")
    ticket = Ticket.parse(home.queue.ticket("pending", job_id).read_bytes(), job_id)
    assert (ticket.priority, ticket.spec["train"]["epochs"], ticket.spec["log"]["every"]) == (5, 7, 3)


def test_a_priority_out_of_range_is_refused(pipeline: Pipeline, job_file: JobFile) -> None:
    done = pipeline("submit", job_file(), "--priority", "1001")
    assert done.returncode == 2
    assert "resources.priority: 1001 should be at most 1000" in done.stderr


def test_json_has_the_fields_that_programs_rely_on(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    (view,) = json.loads(pipeline("submit", job_file(), "--json").stdout)
    (waiting,) = json.loads(pipeline("status", "--json").stdout)
    assert view == waiting == json.loads(pipeline("show", "latest", "--json").stdout)
    assert waiting.keys() >= STATUS_FIELDS
    assert (waiting["state"], waiting["epochs"], waiting["attempt"]) == ("pending", 10, 0)

    end(home, view["id"])
    (ended,) = json.loads(pipeline("status", "--json").stdout)
    assert ended.keys() >= STATUS_FIELDS
    assert (ended["state"], ended["outcome"], ended["epoch"]) == ("done", "succeeded", 10)
    assert ended["metrics"] == {"test/accuracy": 0.987}
    assert ended["run_dir"] == str(home.runs / view["id"])
    assert ended["submitted_at"] <= ended["started_at"] <= ended["finished_at"]


def test_status_of_an_empty_home(pipeline: Pipeline, home: Home) -> None:
    done = pipeline("status")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"no jobs in {home.root}" in done.stderr
    assert json.loads(pipeline("status", "--json").stdout) == []
    assert not home.root.exists()


def test_status_shows_a_job_a_line_and_can_choose_a_state(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    first, second, third = submitted(pipeline, job_file(), job_file(), job_file())
    end(home, first, "failed", "the loss is nan\nat step 3")
    end(home, second, "cancelled", "cancelled")
    lines = pipeline("status").stdout.splitlines()
    assert lines[0].split() == ["ID", "STATE", "EPOCH", "ACCURACY", "WHY"]
    assert [line.split()[:2] for line in lines[1:]] == [[first, "failed"], [second, "cancelled"], [third, "pending"]]
    assert re.search(r" 98\.70 % +the loss is nan at step 3$", lines[1])
    assert [job["id"] for job in json.loads(pipeline("status", "--json", "--state", "failed").stdout)] == [first]


def test_status_shows_the_latest_ends_and_all_on_demand(home: Home, pipeline: Pipeline, job_file: JobFile) -> None:
    queue = Queue(home)
    spec = load_all([job_file()], [])[0]
    queue.submit_all([spec] * 25)
    while (claim := queue.claim("test")) is not None:
        queue.end(claim, Result(1, "succeeded", "trained", 10, 10, 100))
        claim.lease.release()
    lines = pipeline("status").stdout.splitlines()
    assert lines[0] == "... and 5 that ended earlier (--all shows them)"
    assert len(lines) == 2 + 20
    assert len(pipeline("status", "--all").stdout.splitlines()) == 1 + 25


def test_show_tells_where_the_run_is_and_how_to_look_at_it(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    (job_id,) = submitted(pipeline, job_file())
    done = pipeline("show", "latest")
    assert (done.returncode, done.stderr) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert facts["job"] == job_id
    assert facts["run"] == str(home.runs / job_id)
    assert f"--home {home.root} up" in facts["TensorBoard"]

    in_a_container = {**os.environ, "PIPELINE_TENSORBOARD_URL": "http://localhost:7007"}
    shown = pipeline("show", "latest", env=in_a_container).stdout
    assert shown.splitlines()[-1].split(maxsplit=1) == ["TensorBoard", "make up, then open http://localhost:7007"]


def test_submit_warns_of_a_folder_of_images_that_is_nowhere(
    pipeline: Pipeline, job_file: JobFile, home: Home, tmp_path: Path
) -> None:
    """It may still come; where it is expected first is the home."""
    path = job_file(text="name: tiny\nmodel: {name: net}\ndata: {name: image_folder, path: my pets}\n")
    own, further = home.datasets / "my pets", tmp_path / "further"
    further.mkdir()

    def warnings(**environment: str) -> list[str]:
        done = pipeline("submit", path, env={**os.environ, **environment})
        assert done.returncode == 0
        return [line for line in done.stderr.splitlines() if line.startswith("warning: ")]

    missing = [f"warning: tiny: there is no folder {own} (yet)"]
    assert warnings() == warnings(PIPELINE_DATA="") == warnings(PIPELINE_DATA=str(further)) == missing
    (further / "my pets").mkdir()
    assert warnings() == missing
    assert warnings(PIPELINE_DATA=str(further)) == []
    own.mkdir(parents=True)
    assert warnings() == []


# Ids


def test_an_id_may_be_shortened_as_long_as_it_is_clear(pipeline: Pipeline, job_file: JobFile) -> None:
    text = "model: {name: net}\ndata: {name: mnist}\n"
    files = [job_file(name=f"{name}.yaml", text=f"name: {name}\n{text}") for name in ("other", "tiny", "tiny_too")]
    other, tiny, tiny_too = submitted(pipeline, *files)
    shown = {prefix: json.loads(pipeline("show", prefix, "--json").stdout)["id"] for prefix in ("o", "tiny-", "latest")}
    assert shown == {"o": other, "tiny-": tiny, "latest": tiny_too}

    for wrong, complaint in (("tiny", "2 ids begin so"), ("x", f"the latest is {tiny_too}")):
        done = pipeline("show", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr


def test_cancel_and_retry_say_what_they_did(pipeline: Pipeline, job_file: JobFile) -> None:
    first, second = submitted(pipeline, job_file(), job_file())
    done = pipeline("cancel", first, second)
    assert (done.returncode, done.stdout) == (0, f"{first}: cancelled\n{second}: cancelled\n")
    again = pipeline("cancel", first)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"{first}: has ended already (cancelled)" in again.stderr
    assert pipeline("retry", first).stdout == f"{first}: queued again\n"
    assert pipeline("retry", first).returncode == 1


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("succeeded", 0), ("failed", 3), ("invalid", 3), ("cancelled", 4), ("timed_out", 5), ("lost", 6)],
)
def test_submit_wait_exits_as_the_job_ended(outcome: str, code: int, job_file: JobFile, home: Home) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "submit", str(job_file()), "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        job_id = waiting.stdout.readline().strip()
        end(home, job_id, outcome, "so it went")
        _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == code
    assert f"{job_id}: {outcome}: so it went" in said


# Logs


def test_logs_of_all_attempts_in_order(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    (job_id,) = submitted(pipeline, job_file())
    nothing = pipeline("logs", "latest")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert f"{job_id}: there is no log: it is pending" in nothing.stderr

    run = home.run(job_id)
    run.root.mkdir(parents=True)
    for attempt in range(1, 12):
        run.log(attempt).write_bytes(b"attempt %d \xff\n" % attempt)
    done = pipeline("logs", job_id)
    assert done.stdout.splitlines() == [f"attempt {attempt} \ufffd" for attempt in range(1, 12)]
    end(home, job_id)
    assert pipeline("logs", "--follow", job_id).stdout == done.stdout


# Damage and hostile places


def test_a_foreign_file_goes_to_quarantine_and_is_told_of(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    (job_id,) = submitted(pipeline, job_file())
    home.queue.state("pending").joinpath("notes.txt").write_text("hello")
    torn = home.queue.ticket("pending", "torn-20260101T000000000000Z-abcdef")
    torn.write_text('{"id": "torn')
    done = pipeline("status")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ID", job_id]
    assert "notes.txt: its name is not that of a ticket" in done.stderr
    assert f"{torn.stem}.json: it cannot be read" in done.stderr
    assert pipeline("show", torn.stem).returncode == 2


def test_a_torn_ticket_that_is_the_latest_does_not_hang(pipeline: Pipeline, home: Home) -> None:
    Queue(home).create()
    home.queue.ticket("pending", "torn-20260101T000000000000Z-abcdef").write_text("{")
    for command in ("show", "logs", "cancel"):
        done = pipeline(command, "latest")
        assert done.returncode in (1, 2), command
        assert "Traceback" not in done.stderr


def test_a_job_without_a_recorded_end_is_shown_as_such(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    (job_id,) = submitted(pipeline, job_file())
    home.queue.ticket("pending", job_id).rename(home.queue.ticket("failed", job_id))
    assert "has no recorded end" in pipeline("status").stdout
    assert pipeline("show", job_id).returncode == 0


@pytest.mark.parametrize("name", ["-a 'quoted' \"blank\"", "new\nline $(touch x)", "ünïcödé %41"])
def test_any_folder_can_be_a_home(name: str, pipeline: Pipeline, job_file: JobFile, tmp_path: Path) -> None:
    home = Home(tmp_path / name)
    (job_id,) = pipeline("submit", job_file(), home=home).stdout.splitlines()
    (view,) = json.loads(pipeline("status", "--json", home=home).stdout)
    assert (view["id"], view["run_dir"]) == (job_id, str(home.runs / job_id))
    assert pipeline("show", "latest", home=home).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [("submit", "job.yaml"), ("status",), ("logs", "x"), ("worker", "--drain"), ("up", "--drain"), ("run", "job.yaml")],
    ids=lambda arguments: arguments[0],
)
def test_a_home_below_a_file_is_refused(
    arguments: tuple[str, ...], pipeline: Pipeline, job_file: JobFile, tmp_path: Path
) -> None:
    job_file()
    done = pipeline(*arguments, home=Home(tmp_path / "job.yaml" / "home"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: {tmp_path}/job.yaml/home: cannot be a home: {tmp_path}/job.yaml is not a folder\n")


def test_the_home_is_the_option_then_the_environment_then_var(tmp_path: Path, job_file: JobFile) -> None:
    def run_dir(*arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *arguments, "submit", str(job_file()), "--json"],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return str(Path(json.loads(done.stdout)[0]["run_dir"]).parent.parent)

    assert run_dir() == str(tmp_path / "var")
    assert run_dir(PIPELINE_HOME=str(tmp_path / "b")) == str(tmp_path / "b")
    assert run_dir("--home", str(tmp_path / "c"), PIPELINE_HOME=str(tmp_path / "b")) == str(tmp_path / "c")


def test_a_reader_that_leaves_early_is_no_error(job_file: JobFile, home: Home) -> None:
    Queue(home).submit_all(load_all([job_file()], []) * 300)  # more than a pipe holds
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "status", "--json"]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert b"Traceback" not in said
    assert b"Exception" not in said
    assert process.returncode == 1


def test_a_full_disk_that_is_printed_to_is_told_in_a_line(pipeline: Pipeline, job_file: JobFile) -> None:
    job_id = submitted(pipeline, job_file())[0]
    for command in (("status",), ("status", "--json"), ("show", job_id), ("schema",), ("validate", job_file())):
        with Path("/dev/full").open("w") as full:
            done = pipeline(*command, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


def test_doctor_tells_a_good_home_from_a_bad_one(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    verdicts = {check.name: check.verdict for check in checks.check_home(home)}
    assert verdicts["home"] == "ok"
    assert verdicts.keys() == {"home", "filesystem", "free disk", "workers"}

    (tmp_path / "file").touch()
    bad = pipeline("doctor", "--json", home=Home(tmp_path / "file" / "x"))
    assert bad.returncode == 1
    found = {check["name"]: check for check in json.loads(bad.stdout)}
    assert found["home"]["verdict"] == "error"
    assert found["home"]["text"].endswith("choose another with --home or PIPELINE_HOME")
    assert {"python", "torch", "processors"} <= found.keys()


@pytest.mark.parametrize(("kind", "verdict"), [("ext4", "ok"), ("nfs4", "error"), ("overlay", "warning")])
def test_doctor_judges_the_filesystem_where_the_queue_lies(
    kind: str, verdict: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the queue is a volume of its own, in a home of another kind."""
    other = "nfs4" if verdict == "ok" else "ext4"
    monkeypatch.setattr(checks, "filesystem_of", lambda path: kind if path == home.queue.root else other)
    assert {check.name: check.verdict for check in checks.check_home(home)}["filesystem"] == verdict


def test_doctor_measures_the_disk_that_runs_are_written_to(home: Home, small_disk: Path) -> None:
    home.root.mkdir()
    home.runs.symlink_to(small_disk)
    (disk,) = (check for check in checks.check_home(home) if check.name == "free disk")
    assert (disk.verdict, disk.text) == ("warning", "0.0 GiB")


# Speed, by what is not imported


@pytest.mark.parametrize(
    "arguments",
    [
        *(("validate", "job.yaml"), ("submit", "job.yaml"), ("status",), ("show", "latest"), ("logs", "latest")),
        *(("cancel", "latest"), ("retry", "latest"), ("schema",), ("down",), ("health",)),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_answers_at_once_imports_nothing_heavy(
    arguments: tuple[str, ...], job_file: JobFile, home: Home, tmp_path: Path
) -> None:
    Queue(home).submit_all(load_all([job_file()], []))
    code = """if True:
        import atexit, sys
        from pipeline.cli import main
        heavy = {"torch", "torchvision", "numpy", "sklearn", "matplotlib", "tensorboard", "PIL", "pydantic", "rich"}
        atexit.register(lambda: print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr))
        main.main()
    """
    command = [sys.executable, "-c", code, "--home", str(home.root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert "heavy: []" in done.stderr
    assert done.returncode == (1 if arguments[0] in ("retry", "health") else 0)
