"""A lease is held while a process that has it lives, by one holder at a time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import faults
import pytest
from quick import wait_until

from pipeline.home.lease import Lease

NUM_PROCESSES, ROUNDS = 6, 400

HOLD = """
import subprocess, sys
from pathlib import Path
from pipeline.home.lease import Lease

lease = Lease.acquire(Path(sys.argv[1]))
assert lease is not None
hand_on = (lease.fd,) if sys.argv[2] == "hand on" else ()
child = subprocess.Popen(["sleep", "600"], pass_fds=hand_on, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    first = Lease.acquire(path)
    assert first is not None
    assert Lease.is_held(path)
    assert Lease.acquire(path) is None
    first.release()
    assert not Lease.is_held(path)
    assert not path.exists()
    second = Lease.acquire(path)
    assert second is not None
    second.release()


@pytest.mark.parametrize("handed_on", [True, False])
def test_a_lease_outlives_its_holder_only_in_a_child_that_it_was_handed_to(tmp_path: Path, handed_on: bool) -> None:
    path = tmp_path / "lease"
    command = [sys.executable, "-c", HOLD, path, "hand on" if handed_on else "keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            assert Lease.is_held(path)
            holder.kill()
            holder.wait()
            assert Lease.is_held(path) == handed_on
        finally:
            os.kill(child, signal.SIGKILL)
    wait_until(lambda: not Lease.is_held(path), "the child to let go")


def test_a_lease_that_a_killed_process_left_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.touch()
    assert not Lease.is_held(path)
    lease = Lease.acquire(path)
    assert lease is not None
    lease.release()


def test_processes_that_take_and_remove_a_lease_in_turns_never_hold_it_together(tmp_path: Path) -> None:
    workers = [faults.fork.Process(target=take_turns, args=(tmp_path,)) for _ in range(NUM_PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * NUM_PROCESSES
    assert list(tmp_path.iterdir()) == []


def take_turns(root: Path) -> None:
    """Exits with 1 where somebody else is inside."""
    for _ in range(ROUNDS):
        lease = Lease.acquire(root / "lease")
        if lease is None:
            continue
        os.close(os.open(root / "inside", os.O_CREAT | os.O_EXCL))
        os.unlink(root / "inside")  # noqa: PTH108
        lease.release()


def test_looking_whether_a_lease_is_held_leaves_nothing(tmp_path: Path) -> None:
    assert not Lease.is_held(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    assert not Lease.is_held(tmp_path / "pipe")
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_what_is_no_file_is_held_by_nobody(tmp_path: Path) -> None:
    held = Lease.acquire(tmp_path / "held")
    assert held is not None
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "held")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert [path.name for path in tmp_path.iterdir() if Lease.is_held(path)] == ["held"]
    held.release()
