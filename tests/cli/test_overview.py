"""status, show and logs: what a person and a program read, also of what is damaged."""

from __future__ import annotations

import json
import re

from cli_runs import JobFile, Pipeline, end, submitted

from pipeline.cli.submission import load_all
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.queue.job_queue import Queue

STATUS_FIELDS = {
    *("id", "name", "state", "priority", "attempt", "submitted_at", "started_at", "finished_at"),
    *("epoch", "epochs", "metrics", "why", "run_dir"),
}


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
    spec = load_all([job_file()], [], home)[0]
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


def test_an_id_may_be_shortened_as_long_as_it_is_clear(pipeline: Pipeline, job_file: JobFile) -> None:
    text = "model: {name: net}\ndata: {name: mnist}\n"
    files = [job_file(name=f"{name}.yaml", text=f"name: {name}\n{text}") for name in ("other", "tiny", "tiny_too")]
    other, tiny, tiny_too = submitted(pipeline, *files)
    prefixes = ("o", "tiny-", "tiny", "latest")
    shown = {prefix: json.loads(pipeline("show", prefix, "--json").stdout)["id"] for prefix in prefixes}
    assert shown == {"o": other, "tiny-": tiny, "tiny": tiny, "latest": tiny_too}, "a whole name is meant as one"

    (again,) = submitted(pipeline, files[1])
    for wrong, complaint in (("tin", "3 ids begin so"), ("tiny", "2 ids begin so"), ("x", f"the latest is {again}")):
        done = pipeline("show", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr


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
