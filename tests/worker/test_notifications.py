"""Whoever PIPELINE_NOTIFY names is told once how a job has ended; whatever becomes of that, the job's end stands."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from quick import quick_spec, wait_until
from worker_processes import Start, end_of, leave_dead, queue, start, wait_for_end  # noqa: F401 - two are fixtures

from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import End, Progress
from pipeline.queue import repair
from pipeline.queue.job_queue import Queue
from pipeline.worker import notifications, notifier
from pipeline.worker.executors.slurm import Slurm

SECRET = "tomate-zimt-41"

# What runs in the place of training is told by the job's name; a sweep's own process is the real one.
CHILDREN = """
import json
from pipeline.cli import main
from pipeline.worker import background_reports, notifications
from pipeline.worker.executors import local
notifications.LIMIT_S = %s
background_reports.BackgroundReports.ask = lambda self, job_id: None  # a page takes longer than all else here
FIGURES = {"test/accuracy": 0.9917, "test/best_accuracy": 0.9944}
def result(number):
    record = {"attempt": number, "outcome": "succeeded", "why": "trained 20 epochs", "metrics": FIGURES}
    return f"echo '{json.dumps(record)}' > $RUN/result.json"
def script(name, number):
    return {
        "failed": "exit 7",
        "lost": "kill -9 $$",
        "late": "sleep 600",
        "cancelled": "sleep 600",
        "again": "kill -TERM $PPID; sleep 600",
        "twice": "kill -9 $$" if number == 1 else result(number),
        "surroundings": "env > $RUN/surroundings; " + result(number),
    }.get(name, result(number))
real = local.LocalExecutor.command
def command(self, claim, alive_fd):
    if claim.is_sweep:
        return real(self, claim, alive_fd)
    run = f"RUN={self.home.run(claim.id).root}; "
    return ["sh", "-c", run + script(claim.ticket.name, claim.attempts.number)]
local.LocalExecutor.command = command
main.main()
"""


class Server(http.server.ThreadingHTTPServer):
    """Takes what apprise sends to `json://`. statuses: of the first answers, then 200."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *statuses: int, hangs: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses, self.hangs = list(statuses), hangs
        self.is_over = threading.Event()
        self.asked: list[str] = []  # titles
        self.told: list[dict[str, Any]] = []

    def address(self, path: str = "") -> str:
        return f"json://127.0.0.1:{self.server_port}/{path}"

    def bodies(self) -> dict[str, list[str]]:
        """The lines of what was told, by its title."""
        return {message["title"]: message["message"].splitlines() for message in self.told}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(message["title"])
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200 and not self.server.hangs:
            self.server.told.append(message)
        self.send_response(status)
        self.end_headers()
        while self.server.hangs and not self.server.is_over.wait(0.5):
            with contextlib.suppress(OSError):  # byte by byte, so that nobody's patience with a socket ends
                self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server, which is shut down after the test."""
    servers: list[Server] = []

    def run(*statuses: int, **options: bool) -> Server:
        servers.append(Server(*statuses, **options))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return servers[-1]

    yield run
    for server in servers:
        server.is_over.set()
        server.shutdown()
        server.server_close()


Work = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def work(start: Start, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Starts a worker that tells addresses; limit_s: of one notification."""

    def run(*addresses: str, limit_s: float = 60, arguments: tuple[str, ...] = ("--drain",)) -> subprocess.Popen[bytes]:
        monkeypatch.setenv("PIPELINE_NOTIFY", " ".join(addresses))
        return start("worker", *arguments, code=CHILDREN % limit_s)

    return run


@pytest.fixture
def said(tmp_path: Path) -> Callable[[], list[str]]:
    """The lines that the workers have printed."""
    return lambda: [line for path in sorted(tmp_path.glob("output-*")) for line in path.read_text().splitlines()]


Said = Callable[[], list[str]]


def submit(queue: Queue, name: str, **resources: object) -> str:
    return queue.submit(quick_spec(name, resources={"retries": 0, **resources}))


def teller(worker: subprocess.Popen[bytes]) -> Path:
    """The folder in /proc of the process that tells for a worker."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_child = (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(worker.pid)
            if is_child and b"pipeline.worker.notifier" in (entry / "cmdline").read_bytes().split(b"\0"):
                return entry
    raise AssertionError("nobody tells")


def is_gone(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_each_end_is_told_once_with_what_a_person_asks_for(
    queue: Queue, home: Home, serve: Serve, work: Work, said: Said
) -> None:
    server = serve()
    cancelled = submit(queue, "cancelled", priority=1)
    jobs = {name: submit(queue, name) for name in ("good", "failed", "lost")}
    jobs["late"] = submit(queue, "late", timeout=1)
    worker = work(server.address())
    wait_until(lambda: queue.tickets.state(cancelled) == "running" and home.run(cancelled).log(1).exists(), "its start")
    repair.cancel(queue, cancelled)
    assert worker.wait() == 1

    good, failed = jobs["good"], jobs["failed"]
    assert sorted(message["title"] for message in server.told) == sorted(
        [
            f"{good} succeeded",
            f"{failed} failed",
            f"{jobs['lost']} lost",
            f"{jobs['late']} timed out",
            f"{cancelled} cancelled",
        ]
    )
    why, figures, took, run = server.bodies()[f"{good} succeeded"]
    assert (why, figures) == ("trained 20 epochs", "test accuracy 99.17 %, best 99.44 %")
    assert took.startswith("took ")
    assert run.startswith(f"run: {home.run(good).root} on ")
    lines = server.bodies()[f"{failed} failed"]
    assert lines[0] == end_of(queue, failed).why
    assert lines[-1] == f"look: pipeline --home {home.root} logs {failed}"
    kinds = {message["title"].split(" ", 1)[1]: message["type"] for message in server.told}
    assert kinds == {"succeeded": "success", "cancelled": "info"} | dict.fromkeys(
        ("failed", "lost", "timed out"), "failure"
    )
    assert not [line for line in said() if " told" in line]


def test_an_attempt_that_is_queued_again_is_not_told(queue: Queue, serve: Serve, work: Work) -> None:
    server = serve()
    twice = submit(queue, "twice", retries=1)
    assert work(server.address()).wait() == 0
    again = submit(queue, "again")
    assert work(server.address(), arguments=()).wait() == 0
    assert queue.tickets.state(again) == "pending"
    assert [message["title"] for message in server.told] == [f"{twice} succeeded"]
    assert "took" in server.told[0]["message"]
    assert ", in 2 attempts" in server.told[0]["message"]


def test_a_job_that_its_worker_left_dead_is_told_by_the_one_that_ends_it_alone(
    queue: Queue, serve: Serve, work: Work
) -> None:
    server = serve()
    job_id = submit(queue, "lost")
    leave_dead(queue, job_id)
    assert work(server.address()).wait() == 1
    assert work(server.address()).wait() == 0
    assert server.asked == [f"{job_id} lost"]


def test_a_sweep_is_told_with_its_best_and_its_trials_are_not(queue: Queue, serve: Serve, work: Work) -> None:
    server = serve()
    search = {"trials": 2, "maximize": "test/accuracy", "space": {"train.optimizer.lr": {"from": 0.001, "to": 0.1}}}
    sweep = queue.submit(quick_spec("sweep", search=search))
    assert work(server.address()).wait() == 0
    ((title, lines),) = server.bodies().items()
    assert title == f"{sweep} succeeded"
    assert lines[0].startswith("2 of 2 trials (2 succeeded); best: trial 0, test/accuracy 0.9917")
    assert lines[1] == "of the best trial: test accuracy 99.17 %, best 99.44 %"


@pytest.mark.parametrize(
    ("statuses", "times", "is_told"), [((500,), 1, False), ((503,), 2, True), ((404, 404), 1, False)]
)
def test_what_a_server_has_surely_not_taken_is_sent_again_and_nothing_else(
    statuses: tuple[int, ...], times: int, is_told: bool, queue: Queue, serve: Serve, work: Work, said: Said
) -> None:
    server = serve(*statuses)
    job_id = submit(queue, "good")
    assert work(server.address()).wait() == 0
    assert server.asked == [f"{job_id} succeeded"] * times
    assert len(server.told) == is_told
    complaints = [line for line in said() if "not told" in line]
    assert len(complaints) == (not is_told)
    if not is_told:
        assert complaints[0].startswith(f"worker: {job_id}: its end was not told at json://...: Failed to send JSON")
        assert f"error={statuses[0]}" in complaints[0]


def test_an_address_that_hangs_holds_up_neither_jobs_nor_other_addresses(
    queue: Queue, serve: Serve, work: Work, said: Said
) -> None:
    hanging, server = serve(hangs=True), serve()
    first, second = submit(queue, "good", priority=1), submit(queue, "failed")
    worker = work(hanging.address(SECRET), server.address(), limit_s=10)
    wait_until(lambda: hanging.asked, "the first one to hang")
    assert wait_for_end(queue, second).outcome == "failed"
    assert worker.wait() == 1
    assert sorted(server.bodies()) == sorted([f"{first} succeeded", f"{second} failed"])
    assert hanging.asked == [f"{first} succeeded", f"{second} failed"]
    assert [line for line in said() if "not told" in line] == [
        f"worker: {job_id}: its end was not told at json://... (1 of 2): has not answered within 9 s"
        for job_id in (first, second)
    ]


def test_addresses_that_are_none_are_said_at_the_start_and_the_others_are_told(
    queue: Queue, serve: Serve, work: Work, said: Said
) -> None:
    server = serve()
    job_id = submit(queue, "good")
    assert work(f"nowhere://{SECRET}/x,", server.address(), f"mailto://{SECRET}").wait() == 0
    assert list(server.bodies()) == [f"{job_id} succeeded"]
    lines = [line for line in said() if "told" in line]
    starts = ("nowhere://...", "mailto://...")
    assert [line.partition(": nobody")[0] for line in lines] == [
        f"worker: PIPELINE_NOTIFY: {start}" for start in starts
    ]
    assert all("apprise does not understand it" in line for line in lines)
    assert not any(SECRET in line for line in said())


def test_without_apprise_that_is_said_once(
    queue: Queue, serve: Serve, work: Work, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    for _ in range(3):
        submit(queue, "good")
    assert work(serve().address()).wait() == 0
    assert [line for line in said() if "apprise is" in line] == [
        "worker: PIPELINE_NOTIFY: nobody is told how jobs end: apprise is not installed: pip install 'pipeline[notify]'"
    ]


def test_a_worker_that_is_killed_leaves_no_process_and_nothing_is_told_twice(
    queue: Queue, serve: Serve, work: Work
) -> None:
    server = serve(hangs=True)
    job_id = submit(queue, "good")
    worker = work(server.address(), arguments=(), limit_s=10)
    wait_until(lambda: server.asked, "the notification")
    process = teller(worker)
    worker.kill()
    worker.wait()
    wait_until(lambda: is_gone(process), "its process to leave by itself")
    server.hangs = False
    assert work(server.address()).wait() == 0
    assert server.asked == [f"{job_id} succeeded"]
    assert end_of(queue, job_id).outcome == "succeeded"


def test_a_stop_waits_some_seconds_for_what_hangs_and_a_second_one_does_not(
    queue: Queue, serve: Serve, work: Work, said: Said
) -> None:
    server = serve(hangs=True)
    job_id = submit(queue, "good")
    worker = work(server.address(), arguments=())
    wait_until(lambda: server.asked, "the notification")
    process = teller(worker)
    worker.send_signal(signal.SIGINT)
    wait_until(lambda: not queue.live_workers(), "the worker to be done with the queue")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=20) == 0
    assert is_gone(process)
    assert said()[-1].startswith(f"worker: no longer waits until it is told that {job_id} ended")


def test_the_addresses_are_in_no_file_no_command_line_and_no_attempt(
    queue: Queue, home: Home, serve: Serve, work: Work, said: Said
) -> None:
    server = serve(hangs=True)
    job_id = submit(queue, "surroundings")
    worker = work(
        server.address(SECRET), f"mailto://{SECRET}:{SECRET}@127.0.0.1:1?from=a@example.com&to=b@example.com", limit_s=5
    )
    wait_until(lambda: server.asked, "the notification")
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert SECRET.encode() not in entry.read_bytes()
    assert SECRET.encode() not in (teller(worker) / "environ").read_bytes()
    assert worker.wait() == 0
    surroundings = (home.run(job_id).root / "surroundings").read_text()
    assert "PATH=" in surroundings
    assert "PIPELINE_NOTIFY" not in surroundings
    files = [path for path in home.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert any("not told at mailto://..." in line for line in said())
    assert not any(SECRET in line for line in said())


def test_slurms_commands_do_not_get_the_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch hands its own environment to the job."""
    for name in ("sbatch", "squeue", "scancel"):
        (tmp_path / name).write_text(f"#!/bin/sh\nenv > {tmp_path}/surroundings\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIPELINE_NOTIFY", f"json://{SECRET}")
    Slurm().look([])
    assert SECRET not in (tmp_path / "surroundings").read_text()


def test_of_a_sweep_that_is_cancelled_the_best_so_far_is_told(home: Home) -> None:
    progress = Progress(1, note="3 of 20 trials (3 succeeded); best: trial 1, test/accuracy 0.9")
    durable.make_folder(home.run("s-1").root)
    durable.replace_json(home.run("s-1").progress, progress.to_json())
    end = End(1, "cancelled", "cancelled", metrics={"test/accuracy": 0.9}, id="s-1", sweep="s-1")
    message = notifications.message_of(home, "s-1", end)
    assert (message.title, message.kind) == ("s-1 cancelled", "info")
    assert message.body.splitlines()[:3] == [
        "cancelled",
        "3 of 20 trials (3 succeeded); best: trial 1, test/accuracy 0.9",
        "of the best trial: test accuracy 90.00 %",
    ]


# For whoever has no loop


def test_one_who_waits_is_told_what_went_wrong(home: Home, serve: Serve) -> None:
    server, lines = serve(), list[str]()
    end = End(1, "failed", "the loss is nan at step 3", id="mine", name="mine")
    notifications.tell(home, "mine", end, lines.append, [server.address(), "json://127.0.0.1:1/x"])
    assert server.bodies() == {
        "mine failed": ["the loss is nan at step 3", f"look: pipeline --home {home.root} show mine"]
    }
    (line,) = lines
    assert line.startswith("mine: its end was not told at json://... (2 of 2): ")
    assert line.endswith("Connection refused")


@pytest.mark.parametrize(
    ("addresses", "verdict", "text"),
    [
        ("", "ok", "PIPELINE_NOTIFY is not set, and nobody is told how jobs end"),
        ("json://a/b,ntfy://c", "ok", "how jobs end is told at json://..., ntfy://..."),
        (f"json://a {SECRET}://b", "error", f"PIPELINE_NOTIFY: {SECRET}://...: apprise does not understand it: "),
        (SECRET, "error", "PIPELINE_NOTIFY: an address without ://: apprise does not understand it: "),
    ],
)
def test_doctor_says_whether_it_would_work(
    addresses: str, verdict: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_NOTIFY", addresses)
    check = notifications.check()
    assert (check.name, check.verdict) == ("notify", verdict)
    assert check.text.startswith(text)
    assert os.environ["PIPELINE_NOTIFY"] == addresses


# What may be said of addresses


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (f"tgram://123456789:{SECRET}/99", f"with url: /bot123456789:{SECRET}/sendMessage (Caused by x)"),
        (f"mailto://me:{SECRET}@example.com", f"535 {SECRET} is not the password of me@example.com"),
        (f"json://me:{SECRET}%40x@h", f"{SECRET}@x"),
        (f"slack://{SECRET}/B/C", f"https://hooks.slack.com/services/{SECRET}/B/C said no"),
        (f"slack://A/{SECRET}/C", f"TOKEN{SECRET.upper()}"),
        (f"foo://a?token={SECRET}", f"Could not load foo://a?token={SECRET}"),
    ],
)
def test_no_part_of_an_address_is_left_in_what_is_said(address: str, text: str) -> None:
    assert SECRET not in notifier.without(address, text).lower()


def test_make_hands_no_address_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was given to make, make has it in a variable of its own as well."""
    monkeypatch.setenv("PIPELINE_NOTIFY", f"json://{SECRET}")
    monkeypatch.setenv("MAKEFLAGS", f" --no-print-directory -- PIPELINE_NOTIFY=json://{SECRET}")
    assert notifications.take_addresses() == [f"json://{SECRET}"]
    assert SECRET not in str(dict(os.environ))


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("json://a json://b", ["json://a", "json://b"]),
        ("json://a,json://b , json://c", ["json://a", "json://b", "json://c"]),
        ("mailto://x?to=a@b.c,d@e.f", ["mailto://x?to=a@b.c,d@e.f"]),
        ("ntfy://topic, you@example.org", ["ntfy://topic", "you@example.org"]),
        ("  ", []),
    ],
)
def test_what_is_no_address_is_not_taken_for_a_part_of_one(text: str, addresses: list[str]) -> None:
    """It is said then, as one that is not understood."""
    assert notifier.split(text) == addresses
