"""How a process that trains is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from quick import wait_until

from pipeline.errors import Interrupted
from pipeline.stop import ASKED, WORKER_DIED, Stop, listen

LISTEN = """
import os, signal, sys, time
from pipeline.stop import Stop, listen

stop, again = Stop(), []
options = {"child": {"alive_fd": 0}, "worker": {"again": lambda: again.append(1)}, "foreground": {}}[sys.argv[1]]
with listen(stop, signal.SIGTERM, **options):
    for number in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        print(stop.why, len(again), flush=True)
"""


@pytest.mark.parametrize(
    ("role", "lines", "code"),
    [
        ("child", ["asked to stop 0", "asked to stop 0"], 0),
        ("worker", ["asked to stop 0", "asked to stop 1"], 0),
        ("foreground", ["asked to stop 0"], -signal.SIGTERM),
    ],
)
def test_a_second_signal_means_what_the_role_says(role: str, lines: list[str], code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, role], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read().splitlines() == lines
        assert process.wait() == code


def test_the_death_of_the_worker_is_a_request_to_stop() -> None:
    stop = Stop()
    read_fd, write_fd = os.pipe()
    with listen(stop, alive_fd=read_fd):
        stop.check()
        os.close(write_fd)
        wait_until(lambda: stop.why, "the end of the pipe")
    os.close(read_fd)
    with pytest.raises(Interrupted, match=WORKER_DIED):
        stop.check()


def test_the_first_reason_stands() -> None:
    stop = Stop()
    stop.request(ASKED)
    stop.request(WORKER_DIED)
    assert stop.why == ASKED


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listen(Stop(), signal.SIGTERM):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
