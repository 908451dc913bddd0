"""The processor time of the commands that answer at once, beside that of importing what they are built on.

    python benchmarks/commands.py [--rounds 15] [--json]

Each of `validate`, `submit`, `status` and `show` is run as a person runs it, in a home of 20 ended jobs and 5 that
wait, and each time right after `python -c 'import typer, pydantic'` of the same interpreter: the ratio of the two is
what is reported, as the median of all rounds. Processor time is that of the process by the system's own account, user
and system together; the first round, which writes the bytecode, does not count. It fails where a ratio is over 2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIPELINE = Path(sys.executable).with_name("pipeline")
IMPORTS = (sys.executable, "-c", "import typer, pydantic")
JOB = ROOT / "jobs" / "vgg11.yaml"
ENDED, WAITING = 20, 5
TARGET = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.rounds)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print_table(found)
    return 0 if all(command["ratio"] <= TARGET for command in found.values()) else 1


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Of each command: the median of its seconds and of its ratio, and the least and greatest ratio."""
    look, queue = folder / "look", folder / "submit"  # a queue that grows with each round is another one
    fill(look)
    commands = {
        "validate": pipeline(look, "validate", str(JOB)),
        "submit": pipeline(queue, "submit", str(JOB)),
        "status": pipeline(look, "status"),
        "show": pipeline(look, "show", "latest"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    ratios: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            imports, taken = processor_seconds(IMPORTS), processor_seconds(command)
            if number:
                seconds[name].append(taken)
                ratios[name].append(taken / imports)
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "ratio": statistics.median(ratios[name]),
            "least": min(ratios[name]),
            "most": max(ratios[name]),
        }
        for name in commands
    }


def pipeline(home: Path, *words: str) -> tuple[str, ...]:
    return (str(PIPELINE), "--home", str(home), *words)


def fill(home: Path) -> None:
    """Submit jobs, and end most of them."""
    said = subprocess.run(
        pipeline(home, "submit", "--quiet", *[str(JOB)] * (ENDED + WAITING)), capture_output=True, text=True, check=True
    )
    subprocess.run(pipeline(home, "cancel", *said.stdout.split()[:ENDED]), capture_output=True, check=True)


def processor_seconds(command: Sequence[str]) -> float:
    """What a process takes, by the system's account. Raises RuntimeError where it fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exits with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def print_table(found: dict[str, dict[str, float]]) -> None:
    print(f"processor time, beside that of `import typer, pydantic` (at most {TARGET:g} times)")
    print(f"{'command':10}{'ms':>6}{'ratio':>8}  range")
    for name, figures in found.items():
        span = f"{figures['least']:.2f} to {figures['most']:.2f}"
        print(f"{name:10}{1000 * figures['seconds']:6.0f}{figures['ratio']:8.2f}  {span}")


if __name__ == "__main__":
    sys.exit(main())
