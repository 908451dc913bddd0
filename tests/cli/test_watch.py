"""`status --watch`: what a person sees on a terminal while jobs come and go, and what a pipe gets."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runs import JobFile, Pipeline, end, submitted
from quick import wait_until
from terminals import ANSI, Screen

from pipeline.cli.submission import load_all
from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Progress
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
GPU = {"executor": "local", "handle": {"lease": "x", "gpu": "GPU-5d1c2a60-0c4f", "gpu_name": "0 NVIDIA H200"}}


def command(home: Home, *words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "status", "--watch", *words]


def watched(home: Home, *words: str, columns: int = 140, rows: int = 24, **environment: str) -> Screen:
    return Screen(command(home, *words), columns=columns, rows=rows, **environment)


@pytest.fixture
def running(home: Home, pipeline: Pipeline, job_file: JobFile) -> Iterator[Claim]:
    """A job that runs on a GPU, as far as its records say."""
    submitted(pipeline, job_file())
    claim = Queue(home).claim("host-1a2b", executor=lambda _: GPU)
    assert claim is not None
    home.run(claim.id).root.mkdir(parents=True)
    tell(home, claim, epoch=3, step=30)
    yield claim
    claim.lease.release()


def tell(home: Home, claim: Claim, **changes: int) -> None:
    """Write the progress of a job as its attempt does."""
    figures = {"epochs": 10, "steps": 100, **changes}
    progress = Progress(1, metrics={"test/accuracy": 0.875}, time_left_s=75.0, **figures)  # type: ignore[arg-type]
    durable.replace_json(home.run(claim.id).progress, progress.to_json())


def row(screen: Screen, begin: str) -> str:
    """The line that begins so; empty where there is none."""
    return next((line for line in screen.frame if line.startswith(begin)), "")


def test_a_job_that_runs_has_a_bar_its_time_left_its_gpu_and_its_worker(home: Home, running: Claim) -> None:
    with watched(home) as screen:
        screen.read(lambda screen: running.id in row(screen, running.id), "its row")
        header = screen.frame[1].split()
        assert header == ["ID", "STATE", "PROGRESS", "EPOCH", "ACCURACY", "LEFT", "GPU", "WORKER"]
        told = re.split(r" {2,}", row(screen, running.id).strip())
        assert told[:2] == [running.id, "running"]
        assert re.fullmatch(r"━+╸?─+", told[2])
        assert told[2].count("━") / len(told[2]) == pytest.approx(0.3, abs=0.1)
        assert told[3:] == ["30 %", "3/10", "87.50 %", "75 s", "0 H200", "host-1a2b"]
        tell(home, running, epoch=9, step=95)
        screen.read(lambda screen: "9/10" in row(screen, running.id), "its next epoch")
        assert "95 %" in row(screen, running.id)


def test_room_that_a_column_has_left_goes_to_the_bar(home: Home, running: Claim) -> None:
    for columns in range(70, 120, 7):
        with watched(home, columns=columns) as screen:
            screen.read(lambda screen: len(screen.frame) > 2, "its row")
            bar = re.search(r"[━╸─]+", screen.frame[2])
            assert bar is not None
            free = columns - len(screen.frame[2].rstrip())
            is_whole = running.id in screen.frame[2]
            assert len(bar[0]) == 20 or free == 0
            assert is_whole or free == 0


def test_jobs_that_come_move_and_go_are_followed(home: Home, pipeline: Pipeline, job_file: JobFile) -> None:
    with watched(home) as screen:
        screen.read(lambda screen: f"no jobs in {home.root}" in "".join(screen.frame), "an empty home")
        (first,) = submitted(pipeline, job_file())
        screen.read(lambda screen: "pending" in row(screen, first), "the job that waits")
        assert "no worker is running" in screen.frame[1]
        end(home, first, "failed", "the loss is nan\nat step 3")
        screen.read(lambda screen: "failed" in row(screen, first), "its end")
        assert row(screen, first).rstrip().endswith("98.70 %   the loss is nan at step 3")
        assert screen.frame[0].startswith("0 running  0 waiting  1 ended (1 failed)  no worker")
        for path in sorted(home.queue.root.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        screen.read(lambda screen: f"no jobs in {home.root}" in "".join(screen.frame), "an empty home again")


def test_a_job_that_was_seen_to_end_is_first_of_those_that_ended(
    home: Home, pipeline: Pipeline, job_file: JobFile
) -> None:
    (first,) = submitted(pipeline, job_file())
    (second,) = submitted(pipeline, job_file(), "--priority", "1")
    end(home, second)
    with watched(home) as screen:
        screen.read(lambda screen: row(screen, second), "the one that has ended")
        end(home, first)
        screen.read(lambda screen: "done" in row(screen, first), "the end of the other")
        assert [line.split()[0] for line in screen.frame[2:4]] == [first, second]


def test_ctrl_c_leaves_the_last_table_and_the_terminal_as_it_was(home: Home, running: Claim) -> None:
    with watched(home) as screen:
        screen.read(lambda screen: row(screen, running.id), "its row")
        assert not screen.has_its_settings()
        screen.press(b"\x03")
        assert screen.end() == 0
        assert screen.has_its_settings()
        assert "Traceback" not in screen.output
        assert [line.rstrip() for line in screen.left] == [line.rstrip() for line in screen.frame]
        assert screen.output.rindex("\x1b[?25h") > screen.output.rindex("\x1b[?25l"), "the cursor is back"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(home: Home, number: signal.Signals, code: int) -> None:
    with watched(home) as screen:
        screen.read(lambda screen: screen.frame, "a table")
        screen.process.send_signal(number)
        assert screen.end() == code
        assert screen.has_its_settings()
        assert "\x1b[?1049l" in screen.output


def test_q_ends_it_and_other_keys_are_not_written_onto_the_table(home: Home) -> None:
    with watched(home) as screen:
        screen.read(lambda screen: screen.frame, "a table")
        drawn = screen.num_frames
        screen.press(b"hello")
        screen.read(lambda screen: screen.num_frames > drawn, "another table")
        assert "hello" not in screen.output
        screen.press(b"q")
        assert screen.end() == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_ctrl_z_gives_the_terminal_to_the_shell_until_it_goes_on(home: Home) -> None:
    with Screen(["bash", "--norc", "-i"]) as shell:
        shell.press(f"{shlex.join(command(home))}\n".encode())
        shell.read(lambda shell: shell.frame, "a table")
        shell.press(b"\x1a")
        shell.read(lambda shell: "Stopped" in shell.output, "the shell")
        shell.press(b"stty -a; echo $((40 + 2))\n")
        shell.read(lambda shell: re.search(r"^42\r$", shell.output, re.MULTILINE), "its answer")
        assert re.search(r"[; ]echo echoe", shell.output), "keys are seen"
        drawn = shell.num_frames
        shell.press(b"fg\n")
        shell.read(lambda shell: shell.num_frames > drawn, "another table")
        shell.press(b"q")
        shell.read(lambda shell: shell.output.count("\x1b[?1049l") == 2, "its end")
        shell.press(b"exit\n")
        assert shell.end() == 0


@pytest.mark.parametrize(("columns", "rows"), [(30, 6), (50, 10), (80, 24)])
def test_a_terminal_of_another_size_gets_a_table_that_fits(
    home: Home, pipeline: Pipeline, job_file: JobFile, running: Claim, columns: int, rows: int
) -> None:
    submitted(pipeline, *[job_file()] * 9)
    with watched(home, columns=140, rows=40) as screen:
        screen.read(lambda screen: len(screen.frame) > 10, "all jobs")
        screen.resize(columns, rows)
        screen.read(lambda screen: max(map(len, screen.frame)) <= columns and len(screen.frame) < rows, "a smaller one")
        assert running.id.partition("-")[0] in screen.frame[3], "what runs comes first"
    with watched(home, columns=columns, rows=rows) as screen:
        screen.read(lambda screen: len(screen.frame) > 1, "the same from the start")
        assert max(map(len, screen.frame)) <= columns
        assert len(screen.frame) < rows


def test_more_jobs_than_lines_are_counted(home: Home, job_file: JobFile, running: Claim) -> None:
    queue = Queue(home)
    waiting = queue.submit_all([load_all([job_file()], [], home)[0]] * 30)
    ended = [str(job) for job in waiting[:8]]
    for job_id in ended:
        end(home, job_id)
    with watched(home, rows=16) as screen:
        screen.read(lambda screen: len(screen.frame) > 4, "the jobs")
        assert len(screen.frame) <= 15
        states = [line.split()[1] for line in screen.frame if line.startswith("tiny")]
        assert states == ["running", *["done"] * 4, *["pending"] * 4]
        shown = [line.split()[0] for line in screen.frame if line.startswith("tiny")]
        assert shown[0] == running.id
        assert screen.frame[-1].strip() == "... and 4 more that ended and 18 more that wait"


def test_more_running_jobs_than_lines_are_counted_and_the_oldest_are_shown(home: Home, job_file: JobFile) -> None:
    queue = Queue(home)
    ids = queue.submit_all([load_all([job_file()], [], home)[0]] * 12)
    claims = [queue.claim("host-1a2b") for _ in range(11)]
    with watched(home, rows=10) as screen:
        screen.read(lambda screen: len(screen.frame) > 4, "the jobs")
        assert [line.split()[0] for line in screen.frame if line.startswith("tiny")] == ids[:5]
        assert "... and 6 more that run" in "".join(screen.frame)
        assert len(screen.frame) < 10
        screen.resize(140, 16)
        screen.read(lambda screen: ids[11] in "".join(screen.frame), "room for the one that waits, too")
        assert "... and 5 more that run" in "".join(screen.frame)
    for claim in claims:
        assert isinstance(claim, Claim)
        claim.lease.release()


def test_why_a_job_failed_is_told_whole_where_lines_are_free(home: Home, pipeline: Pipeline, job_file: JobFile) -> None:
    why = "the loss is nan at step 3; " + "a smaller learning rate helps; " * 4 + "so it ends"
    first, second = submitted(pipeline, job_file(), job_file())
    end(home, first, "failed", why)
    end(home, second, "succeeded", "trained; " * 100)
    with watched(home, columns=90, rows=12) as screen:
        screen.read(lambda screen: len(screen.frame) > 2, "the jobs")
        told = " ".join(line[line.index("% ") + 1 :] if "% " in line else line for line in screen.frame)
        assert why in " ".join(told.split())
        assert "trained;…" in " ".join(told.split()), "what is left of the lines is too little for this one"
        screen.resize(90, 5)
        screen.read(lambda screen: len(screen.frame) < 5, "a table of fewer lines")
        assert "so it ends" not in "".join(screen.frame)


def test_a_state_may_be_chosen(home: Home, pipeline: Pipeline, job_file: JobFile, running: Claim) -> None:
    (waiting,) = submitted(pipeline, job_file())
    with watched(home, "--state", "pending") as screen:
        screen.read(lambda screen: row(screen, waiting), "the job that waits")
        assert not row(screen, running.id)


def test_a_record_that_cannot_be_read_is_told_in_its_row(home: Home, running: Claim) -> None:
    progress = home.run(running.id).progress
    progress.unlink()
    progress.mkdir()
    with watched(home) as screen:
        screen.read(lambda screen: row(screen, running.id), "its row")
        assert "running" in row(screen, running.id)
    attempts = home.queue.attempts(running.id)
    attempts.write_text("{torn")
    with watched(home) as screen:
        screen.read(lambda screen: row(screen, running.id), "its row")


def test_a_sweep_has_its_trials_as_a_bar_and_those_that_run_below_it(
    home: Home, pipeline: Pipeline, job_file: JobFile
) -> None:
    (sweep,) = submitted(pipeline, job_file("search: {trials: 4, space: {train.epochs: [1, 2]}}\n"))
    queue = Queue(home)
    spec = load_all([job_file()], [], home)[0]
    trial, other = queue.submit_all([dataclasses.replace(Ticket.new(spec), sweep=sweep, trial=0), spec])
    claims = [queue.claim("host-1a2b") for _ in range(3)]
    home.run(sweep).root.mkdir(parents=True)
    figures = Progress(1, epoch=1, epochs=4, note="1 of 4 trials (1 succeeded)")
    durable.replace_json(home.run(sweep).progress, figures.to_json())
    with watched(home, columns=160) as screen:
        screen.read(lambda screen: row(screen, sweep), "its row")
        told = re.split(r" {2,}", row(screen, sweep).strip())
        assert told[3:5] == ["25 %", "1/4 trials"]
        assert told[-1] == "(1 succeeded)"
        assert [line.split()[0] for line in screen.frame[2:5]] == [sweep, trial, other]
        assert screen.frame[3].startswith(f"  {trial}")
    for claim in claims:
        assert isinstance(claim, Claim)
        claim.lease.release()


def test_what_is_wrong_with_a_job_that_runs_is_told_however_narrow_the_terminal_is(home: Home, running: Claim) -> None:
    home.queue.lease(running.id).unlink()  # as if nobody had it
    with watched(home, columns=60) as screen:
        screen.read(lambda screen: len(screen.frame) > 3, "its row and a line below")
        assert screen.frame[2].startswith("tiny")
        assert screen.frame[3].strip() == "its worker died; the next worker goes on with it"
        screen.resize(160, 24)
        screen.read(lambda screen: "its worker died" in row(screen, running.id), "the same beside the rest")


def test_no_color_is_heeded_and_colours_are_there_else(home: Home, running: Claim) -> None:
    for environment, has_colours in (({}, True), ({"NO_COLOR": "1"}, False)):
        with watched(home, **environment) as screen:
            screen.read(lambda screen: row(screen, running.id), "its row")
            assert bool(COLOUR.search(screen.output)) == has_colours


def test_a_terminal_that_can_do_nothing_gets_lines(home: Home, pipeline: Pipeline, job_file: JobFile) -> None:
    (job_id,) = submitted(pipeline, job_file())
    with watched(home, TERM="dumb") as screen:
        screen.read(lambda screen: job_id in screen.output, "the job")
        end(home, job_id)
        screen.read(lambda screen: re.search(rf"{job_id} +done", screen.output), "its end")
        assert ANSI.search(screen.output) is None
        screen.press(b"\x03")
        assert screen.end() == 0


# A pipe


def test_a_pipe_gets_the_table_again_only_when_it_has_changed(
    home: Home, pipeline: Pipeline, job_file: JobFile, running: Claim, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file, subprocess.Popen(command(home), stdout=file, stderr=subprocess.PIPE) as process:
        wait_until(lambda: running.id in output.read_text(), "the first table")
        tell(home, running, epoch=3, step=31)  # a step is no news
        (second,) = submitted(pipeline, job_file())
        wait_until(lambda: second in output.read_text(), "the second table")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    text = output.read_text()
    assert ANSI.search(text) is None
    first, again = text.rstrip("\n").split("\n\n")
    assert first.splitlines()[0] == "1 running  0 waiting  0 ended  no worker"
    assert first.splitlines()[1].split() == ["ID", "STATE", "EPOCH", "ACCURACY", "WORKER", "GPU", "WHY"]
    assert re.split(r" {2,}", first.splitlines()[2]) == [
        *(running.id, "running", "3/10", "87.50 %", "host-1a2b", "0 NVIDIA H200", "training")
    ]
    assert len(again.splitlines()) == 5, "counts, no worker for what waits, header, two jobs"


def test_a_reader_that_leaves_ends_it_without_a_word(home: Home) -> None:
    with subprocess.Popen(command(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0, "though nothing has changed"
        assert process.stderr.read() == b""


def test_json_is_refused_by_name(pipeline: Pipeline) -> None:
    done = pipeline("status", "--watch", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--watch and --json cannot be given together" in done.stderr


def test_worker_and_gpu_are_in_json_and_in_show(home: Home, pipeline: Pipeline, running: Claim) -> None:
    del home
    (job,) = json.loads(pipeline("status", "--json").stdout)
    assert (job["worker"], job["gpu"], job["steps"]) == ("host-1a2b", "0 NVIDIA H200", 100)
    assert json.loads(pipeline("show", running.id, "--json").stdout) == job
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in pipeline("show", running.id).stdout.splitlines())
    assert (facts["worker"], facts["GPU"]) == ("host-1a2b", "0 NVIDIA H200")


def test_nothing_is_wiped_behind_a_line_that_is_full(home: Home, running: Claim) -> None:
    """There some terminals wipe its last letter."""
    with watched(home, columns=80) as screen:
        screen.read(lambda screen: running.id in row(screen, running.id), "its row")
        assert len(screen.frame[0]) == 80, "the header ends with the time"
        assert "\x1b[K\r\n" not in screen.output


def test_reasons_are_told_beside_ids_that_are_longer_than_the_terminal(
    home: Home, pipeline: Pipeline, job_file: JobFile
) -> None:
    submitted(pipeline, job_file(text=f"name: {'n' * 64}\nmodel: {{name: net}}\ndata: {{name: mnist}}\n"))
    with watched(home, columns=80) as screen:
        screen.read(lambda screen: "waits for a worker" in "\n".join(screen.frame), "its reason")
        assert row(screen, "nnnn").split()[1] == "pending"


def test_what_takes_no_column_is_no_question_mark(home: Home, running: Claim) -> None:
    progress = Progress(1, epochs=10, steps=0, note="sees 👨\u200d👩\u200d👧 and a\u0007bell")
    durable.replace_json(home.run(running.id).progress, progress.to_json())
    with watched(home) as screen:
        screen.read(lambda screen: "bell" in "\n".join(screen.frame), "its note")
        assert "sees 👨👩👧 and a?bell" in "\n".join(screen.frame)
