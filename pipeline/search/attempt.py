"""An attempt at a sweep: the process that a worker starts for it, beside those that have its slots.

    python -m pipeline.search.attempt HOME ID ATTEMPT [--alive FD]

It shares with the attempt at a training what a worker knows of either: the command line, the records, the exit codes.
Killed at any moment, it is started again, and goes on.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from pathlib import Path

from pipeline.errors import Interrupted, PipelineError
from pipeline.home import durable
from pipeline.home.paths import Home
from pipeline.home.records import Outcome, Progress, Result, now
from pipeline.home.temporaries import remove_temporaries
from pipeline.process import drop_unwritten_output, leave_at_once, write_line
from pipeline.queue.job_queue import Queue
from pipeline.queue.tickets import Ticket
from pipeline.search.sweep import Sweep
from pipeline.stop import NO_ROOM, WORKER_DIED, Stop, listen

TRIES, AGAIN_S = 5, 1.0  # to record how it ended

Ending = tuple[Outcome, str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.search.attempt")
    parser.add_argument("home", type=Path)
    parser.add_argument("id")
    parser.add_argument("attempt", type=int)
    parser.add_argument("--alive", type=int, help="read end of a pipe; its end of file says that the worker is dead")
    arguments = parser.parse_args()
    stop = Stop()
    with listen(stop, signal.SIGTERM, alive_fd=arguments.alive, abandoned=leave_at_once):
        status = execute(Home(arguments.home), arguments.id, arguments.attempt, stop)
    drop_unwritten_output()
    return status


def execute(home: Home, sweep_id: str, number: int, stop: Stop) -> int:
    """Run the sweep, and record how that ended. Returns the exit code."""
    run, queue, started_at = home.run(sweep_id), Queue(home), now()
    sweep: Sweep | None = None
    remove_temporaries(run)
    try:
        ticket = queue.tickets.read("running", sweep_id)
        if not isinstance(ticket, Ticket):
            raise PipelineError("its ticket cannot be read")  # noqa: TRY301
        sweep = Sweep(home, ticket, number, stop, log)
        ending: Ending = sweep.go()
    except Interrupted as request:
        ending = ("lost" if str(request) == WORKER_DIED else "interrupted", str(request))
    except (OSError, PipelineError) as error:
        refused = error if isinstance(error, OSError) else error.__cause__  # of a QueueError: what the disk refused
        if not isinstance(refused, OSError):
            ending = ("failed", str(error))
        elif refused.errno in durable.DISK_FULL:
            log("the disk is full; it goes on once there is room")
            return NO_ROOM
        else:  # it may be allowed when it is started again
            ending = ("lost", durable.in_words(refused))
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it was, it is recorded
        log(traceback.format_exc().rstrip())
        ending = ("failed", f"{type(error).__name__}: {error} (the log has the traceback)")
    return record(run.result, ending, sweep.progress if sweep else Progress(number), number, started_at)


def record(path: Path, ending: Ending, progress: Progress, number: int, started_at: str) -> int:
    p, (outcome, why) = progress, ending
    log(f"{outcome}: {why}")
    result = Result(number, outcome, why, p.epoch, p.epochs, p.step, p.metrics, started_at, now())
    for _ in range(TRIES):
        try:
            result.write(path)
        except OSError as error:
            log(f"this is not recorded: {durable.in_words(error)}")
            if error.errno in durable.DISK_FULL:
                return NO_ROOM
            time.sleep(AGAIN_S)
        else:
            return 0 if outcome == "succeeded" else 1
    return 1


def log(line: str) -> None:
    write_line(f"{time.strftime('%H:%M:%S')}  {line}")


if __name__ == "__main__":
    sys.exit(main())
