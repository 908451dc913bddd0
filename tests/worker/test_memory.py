"""What a session of processes takes is told so that pages they share count once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from quick import quick_spec
from worker_processes import Start, queue, start, wait_for_training

from pipeline.queue.job_queue import Queue
from pipeline.worker.executors import memory

__all__ = ["queue", "start"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system has no /proc")
SHARE = """
import os, sys
held = bytearray(os.urandom(1) * 200_000_000)
children = [os.fork() for _ in range(1)]
if 0 in children:
    sys.stdin.read()
    os._exit(0)
print(*children, flush=True)
sys.stdin.read()
"""


@needs_proc
def test_pages_that_a_child_shares_with_its_parent_count_once() -> None:
    command = [sys.executable, "-c", SHARE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        processes = [parent.pid, int(parent.stdout.readline())]
        assert 200e6 < memory.used_bytes(processes, 300_000_000) < 300e6
        assert memory.used_bytes(processes, 2**40) > 400e6, "which is enough to know that it is below the limit"
        os.kill(processes[1], 9)
        parent.kill()
    assert memory.used_bytes(processes, 0) == 0


def test_what_is_swapped_out_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a job could take all of the memory and all of the swap, and the machine with it."""
    monkeypatch.setattr(memory, "PROC", tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("RssAnon:\t 30 kB\nRssFile:\t 900 kB\nRssShmem:\t 2 kB\nVmSwap:\t 100 kB\n")
    (tmp_path / "7" / "smaps_rollup").write_text("Pss_Anon: 15 kB\nPss_Shmem: 1 kB\nSwap: 100 kB\nSwapPss: 50 kB\n")
    assert memory.used_bytes([7], 2**20) == 132 * 1024
    assert memory.used_bytes([7], 2**10) == 66 * 1024


@needs_proc
def test_the_kernel_is_to_kill_an_attempt_before_its_worker(queue: Queue, start: Start) -> None:
    job_id = queue.submit(quick_spec(epochs=200))
    worker = start("worker")
    attempt = wait_for_training(queue.home, job_id, step=1)
    mine, score = Path("/proc/self/oom_score_adj").read_text(), Path(f"/proc/{attempt}/oom_score_adj").read_text()
    assert int(score) == max(500, int(mine))
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == mine
