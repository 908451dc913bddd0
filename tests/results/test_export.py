"""`export`: every scalar as a table, read back with other people's readers."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import parquet
from quick import quick_spec, wait_until

from pipeline.board.process import TensorBoard
from pipeline.board.writer import Board
from pipeline.home.paths import Home
from pipeline.home.records import Progress
from pipeline.jobfile import frozen
from pipeline.queue.job_queue import Queue

Pipeline = Callable[..., subprocess.CompletedProcess[str]]

ONE, TWO = "one-20260101T000000000000Z-aaaaaa", "two-20260102T000000000000Z-bbbbbb"
HEADER = ["run", "tag", "step", "wall_time", "value"]


def make_run(home: Home, job_id: str, curve: dict[int, float], *, tag: str = "test/accuracy") -> Path:
    run = home.run(job_id)
    frozen.save(run, quick_spec(job_id.partition("-")[0]))
    with Board(run.root, first_step=0) as board:
        for step, value in curve.items():
            board.scalars(step, {tag: value})
    return run.root


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_goes_to_stdout_with_values_as_they_were_meant(home: Home, pipeline: Pipeline) -> None:
    make_run(home, ONE, {5: 0.1, 10: math.nan, 15: math.inf, 20: 1 / 3})
    done = pipeline("export", "one")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split(",") == HEADER
    found = rows(done.stdout)
    assert [row["value"] for row in found] == ["0.1", "nan", "inf", "0.33333334"]
    assert {(row["run"], row["tag"]) for row in found} == {(ONE, "test/accuracy")}
    assert [row["step"] for row in found] == ["5", "10", "15", "20"]


def test_json_has_null_for_what_is_not_a_number(home: Home, pipeline: Pipeline) -> None:
    make_run(home, ONE, {5: 0.1, 10: math.nan, 15: -math.inf})
    found = json.loads(pipeline("export", "one", "--format", "json").stdout, parse_constant=pytest.fail)
    assert [list(row) for row in found] == [HEADER] * 3
    assert [row["value"] for row in found] == [0.1, None, None]


def test_parquet_has_typed_columns(home: Home, pipeline: Pipeline, tmp_path: Path) -> None:
    make_run(home, ONE, {5: 0.1, 10: math.nan})
    out = tmp_path / "a.parquet"
    done = pipeline("export", "one", "--out", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{out}: 2 rows from {ONE}\n")
    table = parquet.read_table(out)
    assert [f"{field.name} {field.type}" for field in table.schema] == [
        "run string",
        "tag string",
        "step int64",
        "wall_time double",
        "value double",
    ]
    assert table["step"].to_pylist() == [5, 10]
    assert table["value"][0].as_py() == 0.1
    assert math.isnan(table["value"][1].as_py())


def test_all_formats_say_the_same(home: Home, pipeline: Pipeline, tmp_path: Path) -> None:
    make_run(home, ONE, {step: step * 0.37 for step in range(100)})
    make_run(home, TWO, {step: step / 7 for step in range(50)}, tag="größe")
    for suffix in ("csv", "json", "parquet"):
        assert pipeline("export", "two", "one", "--out", tmp_path / f"a.{suffix}").returncode == 0
    from_json = json.loads((tmp_path / "a.json").read_text())
    from_csv = [
        {**row, "step": int(row["step"]), "wall_time": float(row["wall_time"]), "value": float(row["value"])}
        for row in rows((tmp_path / "a.csv").read_text())
    ]
    assert from_csv == from_json == parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["run"] for row in from_json] == [TWO] * 50 + [ONE] * 100


def test_a_run_given_twice_is_in_the_table_once(home: Home, pipeline: Pipeline) -> None:
    make_run(home, ONE, {5: 0.1})
    assert len(rows(pipeline("export", "one", "latest", ONE).stdout)) == 1


def test_every_point_is_exported_where_tensorboards_download_is_cut(home: Home, pipeline: Pipeline) -> None:
    num_points = 1700
    make_run(home, ONE, {step: float(step) for step in range(num_points)})
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = int(server.getsockname()[1])
    board = TensorBoard(home.runs, port=port)
    try:
        board.wait_until_it_answers()
        query = urllib.parse.urlencode({"run": ONE, "tag": "test/accuracy", "format": "csv"})
        url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{query}"
        theirs = wait_until(lambda: download(url), "TensorBoard has read the run")
    finally:
        board.stop()
    assert len(rows(theirs)) <= 1000
    ours = rows(pipeline("export", "one").stdout)
    assert [(row["step"], float(row["value"])) for row in ours] == [(str(s), float(s)) for s in range(num_points)]


def download(url: str) -> str:
    """What is there; nothing before it is served."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_job_that_was_killed_and_went_on_has_each_step_once(home: Home, pipeline: Pipeline) -> None:
    """Worker and child die of SIGKILL, as when the power fails."""
    queue = Queue(home)
    spec = quick_spec(epochs=12, train={"checkpoint_every": 1}, resources={"retries": 5})
    job_id = queue.submit(spec)
    run = home.run(job_id)

    def is_midway() -> bool:
        progress = Progress.read(run.progress)
        return queue.tickets.state(job_id) == "done" or (progress is not None and progress.step >= 60)

    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "worker", "--drain"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(is_midway, "step 60")
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    for pid in [worker.pid, *map(int, children)]:
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    assert len(run.events()) == 2, "it was killed in the midst of it"

    found = rows(pipeline("export", job_id).stdout)
    of_tag = {tag: [int(row["step"]) for row in found if row["tag"] == tag] for tag in ("train/loss", "test/loss")}
    assert of_tag["test/loss"] == [23 * epoch for epoch in range(1, 13)]
    assert of_tag["train/loss"] == [*range(10, 271, 10), 276]


def test_a_reader_that_leaves_early_gets_no_traceback(home: Home) -> None:
    make_run(home, ONE, {step: float(step) for step in range(5000)})
    command = [sys.executable, "-m", "pipeline.cli", "--home", str(home.root), "export", "one"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr, process.stdout as stdout:
        assert stdout.readline().decode().strip().split(",") == HEADER
        stdout.close()
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "parquet"], "parquet is not text: say with --out FILE.parquet where it goes"),
        (["--out", "a.csv", "--format", "json"], "a.csv: its name says csv, --format says json"),
        (["--out", "a.txt"], "a.txt: the name should end in .csv, .json or .parquet"),
        (["--out", "a"], "a: the name should end in"),
        (["--out", "none/a.csv"], "none/a.csv: cannot be written: there is no folder"),
        (["--out", "folder", "--format", "csv"], "folder: is a folder"),
        (["--out", "pipe.csv"], "pipe.csv: is not a regular file"),
        (["--out", f"{'a' * 300}.csv"], f"{'a' * 300}.csv: cannot be written: File name too long"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    home: Home, pipeline: Pipeline, tmp_path: Path, arguments: list[str], message: str
) -> None:
    make_run(home, ONE, {5: 0.1})
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    done = pipeline("export", "one", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "home", "pipe.csv"]


def test_a_suffix_of_its_own_goes_with_a_format(home: Home, pipeline: Pipeline, tmp_path: Path) -> None:
    make_run(home, ONE, {5: 0.1})
    assert pipeline("export", "one", "--out", tmp_path / "a.txt", "--format", "csv").returncode == 0
    assert len(rows((tmp_path / "a.txt").read_text())) == 1


def test_a_full_disk_leaves_the_file_that_was_there(home: Home, pipeline: Pipeline, small_disk: Path) -> None:
    make_run(home, ONE, {step: float(step) for step in range(10_000)})
    out = small_disk / "a.csv"
    out.write_text("before")
    done = pipeline("export", "one", "--out", out)
    assert done.returncode == 1
    assert done.stderr == f"error: {out}: cannot be written: No space left on device\n"
    assert [path.name for path in small_disk.iterdir()] == ["a.csv"]
    assert out.read_text() == "before"


def test_through_a_link_the_file_behind_it_is_written(home: Home, pipeline: Pipeline, tmp_path: Path) -> None:
    make_run(home, ONE, {5: 0.1})
    (tmp_path / "link.csv").symlink_to("real.csv")
    pipeline("export", "one", "--out", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert len(rows((tmp_path / "real.csv").read_text())) == 1


def test_a_run_without_scalars_is_named_beside_an_empty_table(home: Home, pipeline: Pipeline) -> None:
    make_run(home, ONE, {})
    done = pipeline("export", "one")
    assert (done.returncode, done.stdout.strip().split(",")) == (0, HEADER)
    assert done.stderr == f"{ONE}: has no scalars yet\n"
    assert json.loads(pipeline("export", "one", "--format", "json").stdout) == []


def test_an_unknown_id_prints_no_table(home: Home, pipeline: Pipeline) -> None:
    make_run(home, ONE, {5: 0.1})
    done = pipeline("export", "one", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: nope: no run's id begins so; the latest is {ONE}\n"


def test_what_is_damaged_is_told_and_the_rest_exported(home: Home, pipeline: Pipeline) -> None:
    folder = make_run(home, ONE, {5: 0.1, 10: 0.2})
    path = next(folder.glob("events.*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF  # of the last record's checksum
    path.write_bytes(data)
    done = pipeline("export", "one")
    assert (done.returncode, len(rows(done.stdout))) == (0, 1)
    assert done.stderr.startswith(f"warning: {path}: damaged at byte ")


def test_without_pyarrow_it_says_what_to_install(home: Home, tmp_path: Path) -> None:
    make_run(home, ONE, {5: 0.1})
    without = "import sys; sys.modules['pyarrow'] = None; from pipeline.cli.main import main; main()"
    command = [sys.executable, "-c", without, "--home", home.root, "export", "one", "--out", tmp_path / "a.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "parquet needs pyarrow" in done.stderr
    assert "pip install 'pipeline[export]'" in done.stderr
    assert not (tmp_path / "a.parquet").exists()
