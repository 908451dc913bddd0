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
from pipeline.home.paths import Home
from pipeline.home.records import Result
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
    assert [line.split()[0] for line in lines[1:4]] == jobs
    assert max(map(len, lines[:4])) <= 100
    assert lines[2].rstrip().endswith("…")
    assert "[bold]cat" in lines[2]


@pytest.mark.parametrize("columns", [10, 40, 70])
def test_an_id_is_whole_however_narrow_the_terminal_is(home: Home, jobs: list[str], columns: int) -> None:
    text = ANSI.sub("", shown(home, "status", columns=columns))
    assert [job_id for job_id in jobs if job_id not in text] == []
    text = ANSI.sub("", shown(home, "show", jobs[1], columns=columns))
    assert jobs[1] in text
    assert str(home.runs / jobs[1]) in text
    assert " ".join(WHY.split()) in " ".join(text.split())


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
    import sys
    from pipeline.cli.display import LIVE_EVERY_S, TerminalDisplay
    from pipeline.home.records import Progress
    sys.stdout.reconfigure(errors="backslashreplace")
    name = "tiny-20260101T000000000000Z-abcdef"
    display = TerminalDisplay()
    display.say("begins")
    display.progress([(name, Progress(1, 0, 10, 50, 100, {"train/loss": 0.25}))])
    display.log_line(name, "[red]not markup[/red] :smile: \\ud800")
    display.updated_at -= LIVE_EVERY_S
    second = Progress(1, 1, 10, 60, 100, {"train/loss": 0.125})
    display.progress([(name, second), ("b" + name, Progress(1, note="x" * 500))])
    display.close()
    display.say("ends")
"""


def displayed(columns: int = 80, **environment: str) -> str:
    command = [sys.executable, "-c", DISPLAY]
    return run_on_terminal(command, columns=columns, environment={"TERM": "xterm", **environment})


def test_a_live_line_stands_under_the_log_and_goes_when_it_is_over() -> None:
    text = displayed()
    lines = [line for line in re.split(r"[\r\n]+", ANSI.sub("", text)) if line.strip()]
    second = "tiny: epoch 2/10  60 %  loss 0.125  |  btiny: " + "x" * 33 + "…"
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
