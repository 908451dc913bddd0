"""cancel and retry say what they did."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline, submitted
from quick import quick_spec

from pipeline.cli.control import do_each
from pipeline.errors import QueueError
from pipeline.home.paths import Home
from pipeline.queue import repair
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Tickets


def test_cancel_and_retry_say_what_they_did(pipeline: Pipeline, job_file: JobFile) -> None:
    first, second = submitted(pipeline, job_file(), job_file())
    done = pipeline("cancel", first, second)
    assert (done.returncode, done.stdout) == (0, f"{first}: cancelled\n{second}: cancelled\n")
    again = pipeline("cancel", first)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"{first}: has ended already (cancelled)" in again.stderr
    assert pipeline("retry", first).stdout == f"{first}: queued again\n"
    assert pipeline("retry", first).returncode == 1


def test_a_refused_retry_does_not_keep_the_others_from_being_queued_again(
    pipeline: Pipeline, job_file: JobFile
) -> None:
    first, waiting, last = submitted(pipeline, job_file(), job_file(), job_file())
    pipeline("cancel", first, last)
    done = pipeline("retry", first, waiting, last)
    assert (done.returncode, done.stdout) == (1, f"{first}: queued again\n{last}: queued again\n")
    assert f"{waiting}: is pending; only a failed or cancelled job can be retried" in done.stderr


def test_where_an_id_is_none_nothing_is_done_to_the_others(pipeline: Pipeline, job_file: JobFile, home: Home) -> None:
    """As nothing is submitted where one job file is wrong."""
    first, last = submitted(pipeline, job_file(), job_file())
    done = pipeline("cancel", first, "nosuchid", last, "")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: nosuchid: no job's id begins so; the latest is {last}"
    assert lines[1].startswith("the id is empty")
    assert lines[2] == "so nothing was done"
    assert sorted(Queue(home).tickets.ids("pending")) == sorted([first, last])
    assert pipeline("cancel", first, first).stdout == f"{first}: cancelled\n"


def test_what_the_disk_refuses_of_one_job_does_not_keep_the_others_from_being_cancelled(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Queue(home)
    first, bad, unseen, last = queue.submit_all([quick_spec()] * 4)
    state, find = Tickets.state, Tickets.find

    def refuse(self: Tickets, job_id: str) -> str | None:
        if job_id == bad:
            raise OSError(errno.EIO, "Input/output error", "bad")
        return state(self, job_id)

    def find_or_refuse(self: Tickets, prefix: str) -> str:
        if prefix == unseen:
            raise OSError(errno.EIO, "Input/output error", "unseen")
        return bad if prefix == bad else find(self, prefix)

    monkeypatch.setattr(Tickets, "state", refuse)
    monkeypatch.setattr(Tickets, "find", find_or_refuse)
    with pytest.raises(QueueError) as raised:
        do_each(queue, [first, bad, unseen, last], lambda job_id: repair.cancel(queue, job_id))
    assert capsys.readouterr().out == f"{first}: cancelled\n{last}: cancelled\n"
    unseen_line, bad_line = str(raised.value).splitlines()
    assert bad_line.startswith(f"{bad}: cannot be cancelled now: ")
    assert unseen_line.startswith(f"{unseen}: cannot be looked for now: ")


def test_a_full_stdout_does_not_keep_jobs_from_being_cancelled(pipeline: Pipeline, job_file: JobFile) -> None:
    first, last = submitted(pipeline, job_file(), job_file())
    with Path("/dev/full").open("w") as full:
        streams = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        done = pipeline("cancel", first, last, **streams)
    assert done.returncode == 0
    why = "stdout does not take it (No space left on device), but this was done:"
    assert done.stderr.splitlines() == [why, f"{first}: cancelled", f"{last}: cancelled"]
