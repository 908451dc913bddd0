"""Attempts as processes: what is theirs dies with them, and what they write is read behind them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from quick import quick_spec, wait_until

from pipeline.home import attempt_log
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.queue.claims import Claim
from pipeline.queue.job_queue import Queue
from pipeline.worker.executors import local
from pipeline.worker.executors.local import LocalAttempt, LocalExecutor
from pipeline.worker.executors.log_reader import LogReader

FAMILY = """
import os, sys, time
if os.fork() == 0:
    os.setpgid(0, 0)  # a group of its own in the same session, as job control and some launchers make them
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(600)
time.sleep(600)
"""


def is_alive(process: int) -> bool:
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


def attempt_of(*command: str, folder: Path) -> LocalAttempt:
    log = folder / "log"
    reader, writer = os.pipe()
    os.close(reader)
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    return LocalAttempt(process, writer, LogReader(log, keeps_small=True), {})


def test_a_kill_reaches_every_group_of_the_session_and_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    attempt = attempt_of(sys.executable, "-c", FAMILY, str(file), folder=tmp_path)
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        wait_until(file.exists, "the grandchild")
        grandchild = int(file.read_text())
        assert os.getpgid(grandchild) != os.getpgid(attempt.process.pid)
        attempt.kill()
        wait_until(lambda: attempt.poll() is not None, "the end")
        wait_until(lambda: not is_alive(grandchild), "the grandchild to be gone")
        assert is_alive(other.pid)
    finally:
        other.kill()
        other.wait()
        attempt.close()


def test_what_it_leaves_behind_is_killed_when_it_ends_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    code = FAMILY.rstrip().removesuffix("time.sleep(600)") + "while not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    attempt = attempt_of(sys.executable, "-c", code, str(file), folder=tmp_path)
    wait_until(lambda: attempt.poll() is not None, "the end")
    wait_until(lambda: not is_alive(int(file.read_text())), "the grandchild to be gone")
    attempt.close()


def test_a_log_is_read_by_whole_lines_and_to_its_last_words(tmp_path: Path) -> None:
    attempt = attempt_of("sh", "-c", "printf 'one\\ntwo\\nthr'", folder=tmp_path)
    wait_until(lambda: attempt.poll() is not None, "the end")
    assert attempt.read_log() == ["one", "two"]
    assert attempt.read_log() == []
    assert attempt.read_log(to_the_end=True) == ["thr"]
    attempt.close()


def test_the_last_words_of_a_log_that_was_cut_twice_to_the_same_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("LIMIT_BYTES", 1000), ("HEAD_BYTES", 400), ("TAIL_BYTES", 100)):
        monkeypatch.setattr(attempt_log, name, size)
    attempt = attempt_of("true", folder=tmp_path)
    wait_until(lambda: attempt.poll() is not None, "the end")
    for words in ("the middle", "the end"):
        with attempt.log.path.open("a") as log:
            log.write(300 * "old\n" + words + "\n")
        assert attempt.read_log()[-1] == words
    attempt.close()


def test_a_start_that_fails_leaves_nothing_open(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(home)
    queue.submit(quick_spec())
    executor = LocalExecutor(home)
    claim = queue.claim("worker", executor.record)
    assert isinstance(claim, Claim)
    home.run(claim.id).root.mkdir(parents=True)
    monkeypatch.setattr(LocalExecutor, "command", lambda self, claim, alive_fd: ["/nowhere/to/be/found"])  # noqa: ARG005
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="/nowhere/to/be/found"):
        executor.start(claim)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    claim.lease.release()


def test_the_record_of_an_attempt_names_the_lease_that_tells_whether_it_lives(home: Home) -> None:
    queue = Queue(home)
    job_id = queue.submit(quick_spec())
    executor = LocalExecutor(home)
    claim = queue.claim("worker", executor.record)
    assert isinstance(claim, Claim)
    [entry] = queue.attempts(job_id).entries
    assert (entry["worker"], entry["executor"], entry["handle"]) == ("worker", "local", {"lease": job_id})
    assert Lease.is_held(home.queue.leases / entry["handle"]["lease"])
    claim.lease.release()


def test_threads_are_shared_out_and_what_the_user_has_set_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    processors = len(os.sched_getaffinity(0))
    assert "OMP_NUM_THREADS" not in local.child_environment(1)
    assert local.child_environment(2)["OMP_NUM_THREADS"] == str(max(1, processors // 2))
    assert local.child_environment(1)["GOMP_SPINCOUNT"] == "5000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert local.child_environment(1)["GOMP_SPINCOUNT"] == "7"


def test_workers_share_the_processors_but_for_deterministic_jobs(home: Home) -> None:
    queue = Queue(home)
    claims = []
    for deterministic in (False, True):
        queue.submit(quick_spec(train={"deterministic": deterministic}))
        claims.append(queue.claim("worker"))
    first, second = claims
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    executor = LocalExecutor(home, slots=2)
    assert [executor.num_beside(claim) for claim in (first, second)] == [2, 2], "nobody else is there"
    others = [Lease.acquire(queue.paths.worker_lease(name)) for name in ("one", "two")]
    assert [executor.num_beside(claim) for claim in (first, second)] == [4, 2]
    for lease in (*others, first.lease, second.lease):
        assert lease is not None
        lease.release()


FAULTS = """
import resource, torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(8 << 20)
before = faults()
for _ in range(20):
    torch.ones(8 << 20)
print(faults() - before)
"""


def test_memory_that_a_step_frees_is_kept_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("this C library has no such settings")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    command = [sys.executable, "-c", FAULTS]
    before, after = (
        int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
        for environment in (dict(os.environ), local.child_environment(1))
    )
    assert after < before / 10
