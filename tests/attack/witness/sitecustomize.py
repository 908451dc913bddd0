"""In every Python process of a storm, by PYTHONPATH: a witness that no attempt runs twice, and a clock that jumps.

An attempt locks a file of its job that nobody else knows of, as long as it lives. One that finds it locked says so.
The clock is the real one and the seconds in a file, which somebody changes.
"""

import fcntl
import os
import sys
import time

FOLDER = os.environ.get("ATTACK_WITNESS", "")
CLOCK = os.environ.get("ATTACK_CLOCK", "")


def bear_witness(job_id):
    fd = os.open(f"{FOLDER}/{job_id}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with open(f"{FOLDER}/twice", "a") as file:  # noqa: PTH123 - pathlib would be loaded by every process
            file.write(f"{job_id}: two attempts at once: {' '.join(sys.orig_argv)}\n")


def jump(real):
    def offset():
        try:
            with open(CLOCK) as file:  # noqa: PTH123
                return float(file.read() or 0)
        except (OSError, ValueError):
            return 0.0

    return lambda: real() + offset()


words = sys.orig_argv
if FOLDER and "pipeline.training.attempt" in words:
    bear_witness(words[words.index("pipeline.training.attempt") + 2])
if CLOCK:
    time.time = jump(time.time)
