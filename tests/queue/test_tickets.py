"""Ids, tickets, and what becomes of everything else that lies where a ticket should."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick import quick_spec
from rights import without_root_s

from pipeline.errors import UsageError
from pipeline.home.paths import STATES, Home
from pipeline.queue import repair, views
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import MAX_TICKET_BYTES, ForeignFile, Ticket

ID = "foreign-20261120T101112000001Z-00ff00"

FOREIGN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.touch(),
    "torn": lambda path: path.write_bytes(Ticket.new(quick_spec()).to_json()[:200]),
    "not JSON": lambda path: path.write_bytes(os.urandom(300)),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "nested in the spec": lambda path: path.write_bytes(
        b'{"id":"%s","name":"x","priority":0,"submitted_at":"","spec":{"a":%s}}'
        % (ID.encode(), b"[" * 100_000 + b"]" * 100_000)
    ),
    "a list": lambda path: path.write_bytes(b"[1]"),
    "another ticket's content": lambda path: path.write_bytes(Ticket.new(quick_spec()).to_json()),
    "fields missing": lambda path: path.write_text(json.dumps({"id": ID})),
    "fields of the wrong kind": lambda path: path.write_text(
        json.dumps({"id": ID, "name": 5, "priority": "high", "submitted_at": None, "spec": []})
    ),
    "a long id inside": lambda path: path.write_text(
        json.dumps({"id": "x" * 900_000, "name": "x", "priority": 0, "submitted_at": "", "spec": {}})
    ),
    "oversized": lambda path: path.write_bytes(b" " * (MAX_TICKET_BYTES + 1)),
    "a folder": lambda path: (path.mkdir(), (path / "inside").touch()),
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to("/etc/passwd"),
    "a link to nothing": lambda path: path.symlink_to("/nowhere"),
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": lambda path: bind(path),
}
NAMES = [
    ".hidden",
    "plain",
    "x.json",
    "with\nnewline.json",
    "with blank 'quote\".json",
    "añ\u2028.json",
    f"{ID}.json.bak",
    "foreign-0f0.json",
    "n" * 255,
    os.fsdecode(b"not-\xff\xfe-unicode.json"),
    "-rf",
    "..json",
]


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the name of a socket has at most 107 bytes
        server.bind(path.name)


@pytest.fixture
def queue(home: Home, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.chdir(home.root.parent)
    queue = Queue(home)
    queue.create()
    return queue


def test_a_ticket_reads_back_as_it_was_written(queue: Queue) -> None:
    spec = quick_spec(resources={"priority": 7}, train={"seed": 2**63 - 1})
    job_id = queue.submit(spec)
    ticket = queue.tickets.read("pending", job_id)
    assert isinstance(ticket, Ticket)
    assert (ticket.id, ticket.name, ticket.priority) == (job_id, "quick", 7)
    assert ticket.validated() == spec


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_ticket_is_told_when_looked_at_and_repair_takes_it_to_quarantine(
    queue: Queue, state: str, kind: str
) -> None:
    good = queue.submit(quick_spec())
    path = queue.paths.ticket(state, ID)
    FOREIGN[kind](path)
    before = everything_in(queue)
    assert ID in queue.tickets.ids(state)
    file = queue.tickets.read(state, ID)
    assert isinstance(file, ForeignFile)
    assert [view.id for view in views.jobs(queue)] == [good]
    assert everything_in(queue) == before, "looking changes nothing"
    assert f"to quarantine: {file}" in [done.line for done in repair.repair(queue)]
    assert not os.path.lexists(path)
    [line] = queue.tickets.quarantined()
    assert line.startswith(f"{path}: it cannot be read: ")
    assert len(line) < 1000
    assert len(list(queue.paths.quarantine.iterdir())) == 2, "the file and its reason"
    assert isinstance(queue.tickets.read("pending", good), Ticket)


def everything_in(queue: Queue) -> dict[str, int]:
    """Every file of the queue, and when its folder entry last changed."""
    return {str(path): path.lstat().st_ctime_ns for path in queue.paths.root.rglob("*")}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_name_is_passed_over_and_goes_to_quarantine_with_a_reason_on_one_line(
    queue: Queue, state: str, name: str
) -> None:
    good = queue.submit(quick_spec())
    (queue.paths.state(state) / name).write_text("content")
    before = everything_in(queue)
    assert queue.tickets.ids(state) == ([good] if state == "pending" else [])
    [file] = queue.foreign()
    assert everything_in(queue) == before, "looking changes nothing"
    repair.quarantine_foreign_files(queue)
    [line] = queue.tickets.quarantined()
    assert line == str(file)
    assert "its name is not that of a ticket" in line
    assert "\n" not in line
    [kept] = [p for p in queue.paths.quarantine.iterdir() if p.suffix != ".why"]
    assert kept.read_text() == "content"


def test_two_foreign_files_of_one_name_are_both_kept(queue: Queue) -> None:
    for state in ("pending", "done"):
        (queue.paths.state(state) / "notes.txt").write_text(state)
        repair.quarantine_foreign_files(queue)
    kept = [p.read_text() for p in queue.paths.quarantine.iterdir() if p.suffix != ".why"]
    assert sorted(kept) == ["done", "pending"]


def test_what_cannot_be_moved_to_quarantine_is_passed_over(queue: Queue) -> None:
    good = queue.submit(quick_spec())
    (queue.paths.state("pending") / "foreign").touch()
    queue.paths.quarantine.rmdir()
    repair.quarantine_foreign_files(queue)
    assert queue.tickets.ids("pending") == [good]
    assert queue.tickets.quarantined() == []


def test_foreign_things_in_quarantine_itself_are_harmless(queue: Queue) -> None:
    (queue.paths.quarantine / "folder.why").mkdir()
    os.mkfifo(queue.paths.quarantine / "pipe.why")
    (queue.paths.quarantine / "binary.why").write_bytes(b"\xff\xfe")
    assert len(queue.tickets.quarantined()) == 1


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_no_bytes_are_mistaken_for_a_ticket(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError, RecursionError)):
        Ticket.parse(data, ID)


class TestFind:
    @pytest.fixture
    def ids(self, queue: Queue) -> list[str]:
        return queue.submit_all([quick_spec("alpha"), quick_spec("beta"), quick_spec("alpha")])

    def test_latest_is_the_newest_of_all_states(self, queue: Queue, ids: list[str]) -> None:
        queue.tickets.move(ids[2], "pending", "done")
        assert queue.tickets.find("latest") == ids[2]

    def test_a_whole_id_and_an_unambiguous_beginning_are_found(self, queue: Queue, ids: list[str]) -> None:
        assert queue.tickets.find(ids[0]) == ids[0]
        assert queue.tickets.find("b") == ids[1]

    def test_an_ambiguous_beginning_is_refused_and_names_the_latest(self, queue: Queue, ids: list[str]) -> None:
        with pytest.raises(UsageError, match=f"2 ids begin so, the latest is {ids[2]}"):
            queue.tickets.find("alpha")

    def test_of_jobs_of_one_name_the_latest_is_no_trial_of_theirs(self, queue: Queue, ids: list[str]) -> None:
        queue.submit(quick_spec("alpha-0"))
        with pytest.raises(UsageError, match=f"2 ids begin so, the latest is {ids[2]}"):
            queue.tickets.find("alpha")

    @pytest.mark.usefixtures("ids")
    @pytest.mark.parametrize("prefix", ["gamma", "../queue", "alpha-2*", "x\0y", "", "/" * 300])
    def test_what_begins_no_id_is_refused(self, queue: Queue, prefix: str) -> None:
        with pytest.raises(UsageError):
            queue.tickets.find(prefix)

    def test_an_empty_beginning_is_refused_even_where_there_is_one_job(self, queue: Queue) -> None:
        """As of a variable that is not set."""
        queue.submit(quick_spec())
        with pytest.raises(UsageError, match="the id is empty"):
            queue.tickets.find("")

    def test_an_empty_home_says_so(self, home: Home) -> None:
        with pytest.raises(UsageError, match="no jobs here yet"):
            Queue(home).tickets.find("latest")


LOOK_AND_REPAIR = """
import json, os, sys
from pathlib import Path
from pipeline.home.paths import Home
from pipeline.queue import repair, views
from pipeline.queue.job_queue import Queue
queue = Queue(Home(Path(sys.argv[1])))
seen = {view.id: view.why for view in views.jobs(queue)}
lines = [done.line for done in repair.repair(queue)]
claimed = queue.claim("worker")
print(json.dumps([seen, lines, claimed.id]))
"""


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_ticket_that_this_user_may_not_read_stays_where_it_is(queue: Queue, state: str) -> None:
    """It is the disk's fault or the user's, and not the ticket's: an accepted job is not lost by it."""
    bad, good = queue.submit_all([quick_spec(resources={"priority": 1}), quick_spec()])
    if state == "running":
        claim = queue.claim("worker")
        assert isinstance(claim, Claim)
        claim.lease.release()
    path = queue.paths.ticket(state, bad)
    path.chmod(0)
    command = [sys.executable, "-c", LOOK_AND_REPAIR, str(queue.home.root)]
    done = subprocess.run(without_root_s(command), capture_output=True, text=True, timeout=120, check=True)
    seen, lines, claimed = json.loads(done.stdout)
    assert seen[bad] == f"it cannot be read now: Permission denied: {path}"
    assert claimed == good
    assert queue.tickets.quarantined() == []
    assert not [line for line in lines if "quarantine" in line]
    path.chmod(0o644)
    repair.repair(queue)
    assert queue.tickets.state(bad) == "pending"
