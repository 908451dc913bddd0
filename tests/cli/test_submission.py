"""validate, submit and schema: what they print where, what is in the ticket, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline, end, submitted

from pipeline.home import sequence
from pipeline.home.ids import ID
from pipeline.home.paths import Home
from pipeline.jobfile.json_schema import json_schema
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket


def test_a_bad_job_file_exits_with_2_and_every_problem(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    path = job_file("train: {epochs: 0, seed: x}\n")
    for command in ("submit", "run"):
        done = pipeline(command, path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            f"{path}:4: train.epochs: 0 should be at least 0.001",
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
    assert done.stderr == "--set train.epochs=x: train.epochs: 'x' should be a number\n"


def test_schema_prints_the_schema(pipeline: Pipeline) -> None:
    assert json.loads(pipeline("schema").stdout) == json_schema()


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


@pytest.mark.parametrize("path", ["~nobody-here/pets", "x" * 300])
def test_submit_warns_of_a_folder_that_cannot_be(path: str, pipeline: Pipeline, job_file: JobFile) -> None:
    done = pipeline(
        "submit", job_file(text=f"name: a\nmodel: {{name: net}}\ndata: {{name: image_folder, path: {path}}}\n")
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert done.stderr.startswith("warning: a: ")
    assert "Traceback" not in done.stderr


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


FAILS_AFTER = """
import errno, os, sys
def refuse(event, arguments):
    if event in {events} and str(arguments[0]).endswith({what!r}):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))
sys.addaudithook(refuse)
from pipeline.cli import main
main.main()
"""


@pytest.mark.parametrize("arguments", [[], ["--json"]])
@pytest.mark.parametrize("what", ["/leases", "/pending", ".json"])
def test_a_job_that_is_in_the_queue_is_told_whatever_fails_after_that(
    what: str, arguments: list[str], job_file: JobFile, home: Home
) -> None:
    """A script that submits again where it failed would have it twice."""
    Queue(home).create()
    sequence.new_ids(home, ["earlier"])  # so that the number of the next job is known
    code = FAILS_AFTER.format(what=what, events=("open",) if what == ".json" else ("os.listdir", "os.scandir"))
    command = [sys.executable, "-c", code, "--home", home.root, "submit", job_file()]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
    [job_id] = Queue(home).tickets.ids("pending")
    told = [job["id"] for job in json.loads(done.stdout)] if arguments else done.stdout.splitlines()
    assert (done.returncode, told) == (0, [job_id]), done.stderr


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_where_stdout_takes_no_ids_they_are_told_on_stderr(
    arguments: list[str], pipeline: Pipeline, job_file: JobFile, home: Home
) -> None:
    with Path("/dev/full").open("w") as full:
        streams = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        done = pipeline("submit", "--quiet", job_file(), *arguments, **streams)
    [job_id] = Queue(home).tickets.ids("pending")
    assert done.returncode == 0
    assert done.stderr == f"stdout does not take it (No space left on device), but this is in the queue: {job_id}\n"


REFUSED_FOR_A_WHILE = """
import errno, os, sys, time
from pathlib import Path
from pipeline.cli import main
real = os.stat
def stat(path, **options):
    if str(path).endswith(".json") and time.monotonic() < until:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
    return real(path, **options)
until = time.monotonic() + 2.0
os.stat = stat
main.main()
"""


def test_a_wait_goes_on_where_the_disk_refuses_a_look_for_a_while(job_file: JobFile, home: Home) -> None:
    command = [sys.executable, "-c", REFUSED_FOR_A_WHILE, "--home", str(home.root), "submit", str(job_file()), "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        job_id = waiting.stdout.readline().strip()
        end(home, job_id, "failed", "so it went")
        _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 3
    assert said.count("cannot be looked at now, and is waited for: Input/output error") == 1
    assert f"{job_id}: failed: so it went" in said
