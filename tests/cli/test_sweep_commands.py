"""Sweeps on the command line: submitted like any job, listed with their trials, the best one as a job file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline, submitted
from sweeps_by_hand import TEXT, Told, make_sweep

from pipeline.home.paths import Home
from pipeline.home.sweep_record import CANCELLED
from pipeline.jobfile import reading
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

SGD, ADAMW = ({"train.optimizer.lr": 0.1, "train.optimizer.name": name} for name in ("sgd", "adamw"))
SIX = [
    Told(SGD, accuracies=[0.5, 0.7]),
    Told(ADAMW, accuracies=[0.9, 0.8]),
    Told(SGD, "pruned", accuracies=[0.3]),
    Told(ADAMW, "failed", accuracies=[]),
    Told(SGD, "running", accuracies=[0.3]),
    Told(ADAMW, "pending", accuracies=[]),
]


def test_a_sweep_is_submitted_like_any_job(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    done = pipeline("submit", job_file(text=TEXT))
    sweep_id = done.stdout.strip()
    assert f"{sweep_id}: a sweep of 6 jobs" in done.stderr
    ticket = Queue(home).tickets.read("pending", sweep_id)
    assert isinstance(ticket, Ticket)
    first = {"optimizer": {"lr": 1e-4, "name": "sgd"}}
    assert ticket.spec["train"] == {"epochs": 4, **first}, (
        "as it was written, with the first values of what is searched"
    )
    assert ticket.validated() == reading.parse(TEXT.encode(), "")
    (row,) = json.loads(pipeline("status", "--json").stdout)
    assert (row["sweep"], row["trial"], row["epochs"]) == (sweep_id, None, 0)
    shown = pipeline("show", "latest").stdout
    assert "waits for a worker" in shown
    assert "epoch" not in shown


def test_several_values_make_a_sweep(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    text = "name: plain\nmodel: {name: cnn_bn}\ndata: {name: digits}\n"
    (sweep_id,) = submitted(
        pipeline, job_file(text=text), "--set", "train.epochs=1,2", "--set", "data.batch_size=32,64"
    )
    ticket = Queue(home).tickets.read("pending", sweep_id)
    assert isinstance(ticket, Ticket)
    assert ticket.spec["search"] == {"sampler": "grid", "space": {"train.epochs": [1, 2], "data.batch_size": [32, 64]}}
    spec = ticket.validated()
    assert (spec.train.epochs, spec.data.batch_size) == (1, 32), "what is frozen is a job file by itself"


def test_nothing_is_queued_where_one_value_is_wrong(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    done = pipeline("submit", job_file(text=TEXT.replace("[sgd, adamw]", "[sgd, adamx]")))
    assert done.returncode == 2
    assert "job.yaml:9: train.optimizer.name: 'adamx' is not an optimizer; did you mean 'adam'?" in done.stderr
    assert not home.queue.root.exists()


def test_status_has_the_trials_below_their_sweep(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    sweep_id, jobs = make_sweep(home, SIX)
    (plain,) = submitted(pipeline, job_file())
    lines = pipeline("status").stdout.splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [
        [sweep_id, "running"],
        [jobs[4], "running"],
        [jobs[5], "pending"],
        [plain, "pending"],
    ]
    assert [line.startswith("  ") for line in lines] == [False, True, True, False]
    lines = pipeline("status", "--all").stdout.splitlines()[1:]
    states = ["done", "done", "pruned", "failed", "running", "pending"]
    assert [line.split()[:2] for line in lines[1:7]] == [list(pair) for pair in zip(jobs, states, strict=True)]
    lines = pipeline("status", "--state", "pending").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [jobs[5], plain], "without their sweep, which does not wait"


def test_show_says_the_best_so_far_and_what_is_left(pipeline: Pipeline, home: Home) -> None:
    sweep_id, jobs = make_sweep(home, SIX)
    lines = pipeline("show", "hunt").stdout.splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines[:7])
    assert facts["sweep"] == sweep_id
    assert facts["trials"] == "4 of 6 have ended: 2 succeeded, 1 pruned, 1 failed, 1 running, 1 pending"
    assert facts["left"] == "2"
    assert facts["best"] == "trial 1, test/accuracy 0.9 in epoch 1"
    assert any(line.split()[:3] == ["1", "succeeded", "1"] and jobs[1] in line for line in lines)
    (header,) = (line for line in lines if line.startswith("TRIAL"))
    assert "test/accuracy" in header, "there are no images held out as val"
    told = json.loads(pipeline("show", "hunt", "--json").stdout)
    assert (told["best"], told["num_trials"]) == ([1], 6)
    assert [trial["outcome"] for trial in told["trials"]] == [trial.outcome for trial in SIX]
    assert json.loads(pipeline("show", "hunt-3", "--json").stdout)["id"] == jobs[3]


def test_show_names_the_report_of_a_sweep_once_it_is_there(pipeline: Pipeline, home: Home) -> None:
    sweep_id, _ = make_sweep(home, SIX)
    report = home.run(sweep_id).report
    assert str(report) not in pipeline("show", "hunt").stdout
    report.write_text("a page")
    assert ["report", str(report)] in [line.split() for line in pipeline("show", "hunt").stdout.splitlines()]


def test_the_best_trial_is_a_job_file(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    sweep_id, _ = make_sweep(home, SIX)
    done = pipeline("best", "hunt")
    assert done.returncode == 0, done.stderr
    assert "4 of 6 trials have ended; another may still be better" in done.stderr
    assert f"# Trial 1 of {sweep_id}: test/accuracy 0.9 in epoch 1." in done.stdout
    file = tmp_path / "best.yaml"
    file.write_text(done.stdout)
    spec = reading.load(file)
    assert (spec.name, spec.search, spec.train.epochs) == ("hunt_best", None, 4)
    assert spec.train.optimizer.options()["lr"] == 0.1
    assert spec.train.optimizer.name == "adamw"
    assert pipeline("submit", file).returncode == 0


def test_another_trial_as_a_job_file(pipeline: Pipeline, home: Home) -> None:
    make_sweep(home, SIX)
    assert "name: hunt_0\n" in pipeline("best", "hunt", "--trial", "0").stdout
    done = pipeline("best", "hunt", "--trial", "6")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no trial 6; it has 6 trials, from 0" in done.stderr


def test_of_several_objectives_the_others_are_named(pipeline: Pipeline, home: Home) -> None:
    told = [
        Told(SGD, accuracies=[0.5], more={"train/images_per_second": 9.0}),
        Told(ADAMW, accuracies=[0.9], more={"train/images_per_second": 1.0}),
        Told(ADAMW, accuracies=[0.4], more={"train/images_per_second": 0.5}),
    ]
    make_sweep(home, told, maximize=["val/accuracy", "train/images_per_second"])
    done = pipeline("best", "hunt")
    assert "# Trial 1 of " in done.stdout
    assert done.stderr.splitlines()[1].endswith("which --trial gives: 0")


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ([], "no trial has succeeded yet with a figure of val/accuracy (none was started)"),
        ([Told(SGD, "failed", accuracies=[])], "with a figure of val/accuracy (1 failed)"),
        ([Told(SGD, accuracies=[])], "with a figure of val/accuracy (1 succeeded)"),
    ],
)
def test_where_there_is_no_best_it_says_why(pipeline: Pipeline, home: Home, told: list[Told], complaint: str) -> None:
    make_sweep(home, told)
    done = pipeline("best", "hunt")
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_a_job_that_is_no_sweep_has_no_best(pipeline: Pipeline, job_file: JobFile) -> None:
    submitted(pipeline, job_file())
    done = pipeline("best", "latest")
    assert done.returncode == 2
    assert "is no sweep; a sweep's job file has a search section" in done.stderr
    submitted(pipeline, job_file(text=TEXT))
    assert "has not started yet" in pipeline("best", "hunt").stderr


def test_where_the_record_is_damaged_that_is_said(pipeline: Pipeline, home: Home) -> None:
    sweep_id, _ = make_sweep(home, SIX)
    home.run(sweep_id).trials.write_text("{")
    assert "trials.json: cannot be read" in pipeline("best", "hunt").stderr


def test_of_a_trial_its_sweep_is_named(pipeline: Pipeline, home: Home) -> None:
    sweep_id, _ = make_sweep(home, SIX)
    done = pipeline("best", "hunt-3")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is a trial of {sweep_id}; give that, and its number by --trial 3" in done.stderr


def test_cancel_takes_the_trials_with_it(pipeline: Pipeline, home: Home) -> None:
    sweep_id, jobs = make_sweep(home, SIX)
    done = pipeline("cancel", "hunt")
    assert done.returncode == 0, done.stderr
    assert "and 2 trials of it" in done.stdout
    queue = Queue(home)
    end = queue.records.sound_end(jobs[5])
    assert end is not None
    assert (end.outcome, CANCELLED in end.why) == ("cancelled", True)
    assert [queue.tickets.state(job) for job in jobs] == ["done", "done", "done", "failed", "cancelled", "cancelled"]
    request = queue.stop_request(sweep_id)
    assert request is not None, "the process that runs it is asked to leave"
    assert request.outcome == "cancelled"


def test_cancel_finds_the_trials_of_a_damaged_record_by_their_tickets(pipeline: Pipeline, home: Home) -> None:
    sweep_id, jobs = make_sweep(home, SIX)
    run = home.run(sweep_id)
    run.trials.write_text("{")
    run.study.touch()
    assert "and 2 trials of it" in pipeline("cancel", sweep_id).stdout
    assert [Queue(home).tickets.state(job) for job in jobs[3:]] == ["failed", "cancelled", "cancelled"]


def test_a_sweep_is_not_trained_in_the_foreground(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    done = pipeline("run", job_file(text=TEXT))
    assert done.returncode == 2
    assert "is a sweep, of 6 jobs; submit it" in done.stderr
    assert not home.runs.exists()
