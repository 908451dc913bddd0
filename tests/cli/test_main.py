"""The command line as a whole: help, exit codes, streams, homes, and what it does not load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from cli_runs import JobFile, Pipeline, submitted
from typer.testing import CliRunner

from pipeline.cli.app import make_app
from pipeline.cli.submission import load_all
from pipeline.home.paths import Home
from pipeline.queue.job_queue import Queue

COMMANDS = {str(c.name): c.callback for c in make_app().registered_commands if c.callback}


def test_the_commands_are_those_of_the_contract() -> None:
    assert COMMANDS.keys() == {
        *("validate", "submit", "worker", "up", "status", "show", "logs", "cancel", "retry", "schema", "run", "doctor"),
        *("export", "compare", "report", "predict", "export-model", "down", "health", "new", "preview", "best"),
        *("rm", "prune", "pause", "resume"),
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


def test_a_folder_or_a_job_may_have_the_name_of_a_command(
    job_file: JobFile, pipeline: Pipeline, tmp_path: Path
) -> None:
    """Only the commands that are among the words are loaded; more than one may be."""
    job_file(name="show", text=job_file().read_text().replace("tiny", "cancel"))
    done = pipeline("submit", "show", home=Home(Path("status")), cwd=tmp_path)
    assert done.stdout.startswith("cancel-")
    assert pipeline("show", "cancel", home=Home(Path("status")), cwd=tmp_path).stdout.startswith("job ")
    wrong = pipeline("sumbit", "show", cwd=tmp_path)
    assert (wrong.returncode, "No such command 'sumbit'" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Usage"),
        (("sumbit",), "No such command 'sumbit'"),
        (("submit",), "Missing argument"),
        (("submit", "nothing.yaml"), "nothing.yaml: there is no such job file"),
        (("validate", "."), "cannot be read: Is a directory"),
        (("validate", ""), "a path is empty; for the current folder, write ."),
        (("--home", "", "status"), "a path is empty"),
        (("export", "latest", "--out", ""), "a path is empty"),
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
    Queue(home).submit_all(load_all([job_file()], [], home) * 300)  # more than a pipe holds
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


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_leads_nowhere(closed: str, pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    """As of a service that is started without."""
    job_id = submitted(pipeline, job_file())[0]
    for words in ("status", "status --json", f"show {job_id}", f"submit {job_file()}", f"cancel {job_id}"):
        script = f"exec {sys.executable} -m pipeline.cli --home {home.root} {words} {closed}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), words
    assert len(Queue(home).tickets.ids("pending")) == 1


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
    Queue(home).submit_all(load_all([job_file()], [], home))
    code = """if True:
        import atexit, sys
        from pipeline.cli import main
        heavy = {"torch", "torchvision", "numpy", "matplotlib", "tensorboard", "PIL", "pydantic", "rich"}
        atexit.register(lambda: print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr))
        main.main()
    """
    command = [sys.executable, "-c", code, "--home", str(home.root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert "heavy: []" in done.stderr
    assert done.returncode == (1 if arguments[0] in ("retry", "health") else 0)
