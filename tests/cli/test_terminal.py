"""What a person sees on a terminal: colours, whole ids, the live line; and what a program reads from a pipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminals import run_on_terminal

from pipeline.board import tags
from pipeline.cli.display import side_by_side
from pipeline.cli.short_ids import ShortIds
from pipeline.home.paths import Home
from pipeline.home.records import Progress, Result
from pipeline.queue.job_queue import Queue

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
GREEN, RED = "\x1b[32m", "\x1b[31m"
WHY = "the loss of class [bold]cat[/bold] is nan :smile: " * 5
METRICS = {"test/accuracy": 0.9, "train/loss": 7.0, "train/accuracy": 0.125}


@pytest.fixture
def jobs(
    home: Home, pipeline: Callable[..., subprocess.CompletedProcess[str]], job_file: Callable[..., Path]
) -> list[str]:
    """One that is done, one that failed and one that waits."""
    ids = pipeline("submit", job_file(), job_file(), job_file()).stdout.split()
    queue = Queue(home)
    for outcome in ("succeeded", "failed"):
        claim = queue.claim("test")
        assert claim is not None
        why = "trained" if outcome == "succeeded" else WHY
        queue.end(claim, Result(1, outcome, why, 10, 10, 100, METRICS))  # type: ignore[arg-type]
        claim.lease.release()
    return ids


def shown(home: Home, *words: str, columns: int = 100, **environment: str) -> str:
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), *words]
    return run_on_terminal(command, columns=columns, environment={"TERM": "xterm-256color", **environment})


def test_a_terminal_gets_a_line_a_job_in_the_colour_of_its_state(home: Home, jobs: list[str]) -> None:
    text = shown(home, "status")
    assert re.search(rf"{re.escape(GREEN)}done", text)
    assert re.search(rf"{re.escape(RED)}failed", text)
    lines = ANSI.sub("", text).splitlines()
    assert lines[0].split() == ["ID", "STATE", "EPOCH", "ACCURACY", "WHY"]
    rows = [line.split() for line in lines[1:] if line.startswith("tiny")]
    assert [row[1] for row in rows] == ["done", "failed", "pending"]
    assert all(job_id.startswith(row[0].partition("…")[0]) for job_id, row in zip(jobs, rows, strict=True))
    assert "[bold]cat" in text


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_why_is_whole_and_ids_give_way_to_it(home: Home, jobs: list[str], columns: int) -> None:
    lines = [line.rstrip() for line in ANSI.sub("", shown(home, "status", columns=columns)).splitlines()]
    assert max(map(len, lines)) <= columns
    assert " ".join(WHY.split()) in " ".join(re.sub(r"^.*98\.70 % *|^.* % +", "", line).strip() for line in lines[1:-1])
    ids = [line.split()[0] for line in lines[1:] if re.match(r"\S+ +(done|failed|pending)", line)]
    assert len(set(ids)) == len(jobs), "they still differ"
    for job_id, told in zip(jobs, ids, strict=True):
        head, _, tail = told.partition("…")
        assert job_id.startswith(head)
        assert job_id.endswith(tail)


def test_an_id_is_cut_to_what_can_be_typed_where_no_other_begins_so() -> None:
    ids = ["alone-with_a_long_name-3f2a", "twice-with_a_long_name-3f2b", "twice-with_a_long_name-3f2c"]
    short = ShortIds(lambda: ids)
    assert [short.cut(job_id, 16) for job_id in ids] == ["alone-with_a_lo…", "twice-with…-3f2b", "twice-with…-3f2c"]
    assert short.cut(f"  {ids[0]}", 16) == "  alone-with_a_…", "a trial's, below its sweep"
    assert short.cut(ids[0], 40) == ids[0]


def test_show_breaks_at_words_and_leaves_paths_whole(home: Home, jobs: list[str]) -> None:
    text = ANSI.sub("", shown(home, "show", jobs[1], columns=60))
    assert str(home.runs / jobs[1]) in text, "to be copied"
    assert " ".join(WHY.split()) in " ".join(text.split())
    assert [line for line in text.splitlines() if len(line) > 60 and str(home.root) not in line] == []


def test_a_message_breaks_at_words_and_commands_stay_whole(home: Home, jobs: list[str]) -> None:
    del jobs
    lines = ANSI.sub("", shown(home, "status", columns=50)).splitlines()
    assert lines[-2:] == ["no worker is running: start one with `make up` or", "  `make worker`"]
    lines = shown(home, "show", "wrong_id", columns=50).splitlines()
    assert max(map(len, lines)) <= 50
    assert " ".join(" ".join(lines).split()).startswith("error: wrong_id: no job's id begins so; the latest is ")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "TERM=dumb"])
def test_a_terminal_without_colours_gets_none(home: Home, jobs: list[str], environment: dict[str, str]) -> None:
    text = shown(home, "status", **environment)
    assert jobs[0] in text
    assert COLOUR.search(text) is None


def test_a_pipe_gets_plain_columns_and_nothing_is_cut(
    jobs: list[str], pipeline: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for command in (("status",), ("show", jobs[1])):
        text = pipeline(*command).stdout
        assert ANSI.search(text) is None
        assert WHY.strip() in text
        assert jobs[1] in text


def test_doctor_tells_its_verdicts_by_colour(home: Home) -> None:
    text = shown(home, "doctor", columns=40)
    assert f"{GREEN}ok" in text
    assert str(home.root) in ANSI.sub("", text)


@pytest.mark.parametrize(
    ("metrics", "loss", "accuracy"),
    [
        ({"train/loss": 7.0, "train/accuracy": 0.125}, "7.0000", "12.50 %"),  # of runs of before: its last steps
        ({**METRICS, "train/epoch_loss": 2.5, "train/epoch_accuracy": 0.5}, "2.5000", "50.00 %"),
        ({**METRICS, "test/top5_accuracy": 0.99}, "7.0000", "12.50 %"),
        ({**METRICS, tags.MODEL_BITS: 1_089_984.0, tags.MODEL_BITS_IN_FP32: 6_544_704.0}, "7.0000", "12.50 %"),
    ],
)
def test_show_tells_the_means_of_the_latest_epoch(
    home: Home,
    pipeline: Callable[..., subprocess.CompletedProcess[str]],
    job_file: Callable[..., Path],
    metrics: dict[str, float],
    loss: str,
    accuracy: str,
) -> None:
    pipeline("submit", job_file())
    queue = Queue(home)
    claim = queue.claim("test")
    assert claim is not None
    queue.end(claim, Result(1, "succeeded", "trained", 10, 10, 100, metrics))
    claim.lease.release()
    lines = pipeline("show", "latest").stdout.splitlines()
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert (facts["train loss"], facts["train accuracy"]) == (loss, accuracy)
    assert facts.get("test top-5 accuracy") == ("99.00 %" if "test/top5_accuracy" in metrics else None)
    is_quantized = tags.MODEL_BITS in metrics
    assert facts.get("size") == ("1.09 Mbit of 6.54 Mbit in fp32, 6.0 times smaller" if is_quantized else None)
    assert json.loads(pipeline("show", "latest", "--json").stdout)["metrics"] == metrics


# The worker's display

DISPLAY = """if True:
    import os, sys
    from pipeline.cli.display import LIVE_EVERY_S, TerminalDisplay
    from pipeline.home.records import Progress
    sys.stdout.reconfigure(errors="backslashreplace")
    name = "tiny-20260101T000000000000Z-abcdef"
    display = TerminalDisplay()
    display.say("begins")
    display.progress([(name, Progress(1, 0, 10, 50, 100, {"train/loss": 0.25}))])
    display.log_line(name, os.environ.get("LINE", "[red]not markup[/red] :smile: \\ud800"))
    display.updated_at -= LIVE_EVERY_S
    second = Progress(1, 1, 10, 60, 100, {"train/loss": 0.125})
    display.progress([(name, second), ("b" + name, Progress(1, note="x" * 500))])
    display.close()
    display.say("ends")
"""


EPOCH = (
    "14:00:54  epoch  6/40  loss 0.0154  accuracy 100.00 %  "
    "test loss 0.0495  test accuracy 98.61 %  14,663 images/s  3 min left"
)


def displayed(columns: int = 80, **environment: str) -> str:
    command = [sys.executable, "-c", DISPLAY]
    return run_on_terminal(command, columns=columns, environment={"TERM": "xterm", **environment})


def test_a_live_line_stands_under_the_log_and_goes_when_it_is_over() -> None:
    text = displayed()
    lines = [line for line in re.split(r"[\r\n]+", ANSI.sub("", text)) if line.strip()]
    second = "tiny: epoch 2/10  60 %  loss 0.125  |  btiny: " + "x" * 27 + "…"
    assert lines == [
        "worker: begins",
        "tiny: epoch 1/10  50 %  loss 0.25",
        "tiny: [red]not markup[/red] :smile: \\ud800",
        "tiny: epoch 1/10  50 %  loss 0.25",
        *[second] * 2,  # rich writes it once more before it wipes it
        "worker: ends",
    ]
    assert text.count("\x1b[2K") >= 3  # each live line is wiped
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def test_an_epoch_breaks_between_its_figures() -> None:
    text = displayed(columns=60, LINE=EPOCH).replace("\r\n", "\n")
    told = ANSI.sub("", text)
    assert "tiny: 14:00:54  epoch  6/40  loss 0.0154  accuracy 100.00 %\n" in told
    assert "  test loss 0.0495  test accuracy 98.61 %  14,663 images/s\n  3 min left\n" in told
    assert EPOCH in displayed(columns=200, LINE=EPOCH)


@pytest.mark.parametrize(
    ("count", "room", "told"),
    [
        (1, 80, "a: epoch 4/40  50 %  loss 0.25  test accuracy 90 %  14,663 images/s  3 min left"),
        (1, 70, "a: epoch 4/40  50 %  loss 0.25  test accuracy 90 %  3 min left"),
        (1, 40, "a: epoch 4/40  50 %  3 min left"),
        (2, 60, "a: epoch 4/40  50 %  |  a: epoch 4/40  50 %"),
    ],
)
def test_the_live_line_leaves_out_what_people_miss_least(count: int, room: int, told: str) -> None:
    progress = Progress(1, 3, 40, 50, 100, {"train/loss": 0.25, "test/accuracy": 0.9}, 14663.0, 200.0)
    assert side_by_side([("a", progress)] * count, room) == told


def test_a_terminal_that_cannot_write_over_a_line_gets_lines_alone() -> None:
    assert displayed(TERM="dumb").splitlines() == [
        "worker: begins",
        "tiny: [red]not markup[/red] :smile: \\ud800",
        "worker: ends",
    ]


def test_a_display_that_nobody_reads_any_more_stops_nothing() -> None:
    """Its lines go to a pipe that is closed, and to a disk that is full."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-u", "-c", DISPLAY], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with subprocess.Popen(
        [sys.executable, "-u", "-c", DISPLAY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
