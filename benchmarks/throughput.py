"""Training throughput of the pipeline's engine against the tutorial loop and Lightning, side by side on this machine.

    python benchmarks/throughput.py --data DIR [--models net,vgg] [--seconds 5] [--rounds 5] [--json]

DIR is an image folder of 32 x 32 images, `train/<class>/*` and `test/<class>/*`, or holds one named `cifar10-images`.

Each side is a process of its own, started once, so that neither's allocator or caches touch the other's. They take
turns, A B C A B C, a few seconds at a time, while the others wait; the ratio is taken within each round and the median
reported. All have the same threads, model, images and augmentation. A round in which other programs took more than
a tenth of the processors is measured again; where none was quiet, BUSY stands in the place of a verdict. The
pipeline's side is its real loop, with its logging; evaluation and checkpoints, which the tutorial loop does not have,
are left out, and so is the time to read the images once. Lightning, where it is installed, trains in the precision of
the pipeline's side beside it; the tutorial in fp32.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.worker.executors.local import child_environment

MAX_OTHERS = 0.1  # of the machine's processors
WARM_UP = 2  # segments that are not counted


@dataclass(frozen=True)
class Case:
    model: str
    batch_size: int
    targets: dict[str, float]  # from a precision to the ratio to reach


CASES = (
    Case("net", 4, {"auto": 3.0}),
    Case("net", 128, {"auto": 4.0, "fp32": 1.0}),
    Case("cnn_bn", 128, {"auto": 3.5, "fp32": 1.0}),
    Case("vgg11_bn", 128, {"auto": 1.8, "fp32": 1.0}),
)


@dataclass(frozen=True)
class Row:
    model: str
    batch_size: int
    precision: str
    tutorial: float  # images a second, median
    ours: float
    ratio: float  # median over rounds
    low: float
    high: float
    lightning: float | None  # images a second, median; None where it is not installed
    beside_lightning: float | None  # ratio, median
    target: float
    met: bool | None  # None: no round was quiet enough to say
    rounds: int  # that the figures are of
    others: float  # largest share of the processors that other programs took


def main() -> int:
    arguments = parse()
    data = find_data(arguments.data)
    wanted = arguments.models.split(",")
    conditions = describe(arguments.threads)
    if not arguments.json:
        print("\n".join(f"{key:8} {value}" for key, value in conditions.items()), "", HEADER, sep="\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            if case.model in wanted:
                for row in measure(case, data, Path(scratch), arguments):
                    rows.append(row)
                    if not arguments.json:
                        print(line(row), flush=True)
    if arguments.json:
        print(json.dumps({**conditions, "rows": [asdict(row) for row in rows]}, indent=2))
    return 0 if all(row.met for row in rows) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    known = list(dict.fromkeys(case.model for case in CASES))
    parser.add_argument("--data", type=Path, help="an image folder of 32 x 32 images")
    parser.add_argument("--models", default=",".join(known), help="some of %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="of each turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both sides")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of all sides (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.models.split(",")) - set(known):
        parser.error(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return arguments


def find_data(data: Path | None) -> Path:
    for folder in [data, data / "cifar10-images"] if data else []:
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return folder.absolute()
    what = f"{data} has no folders train and test." if data else "No images were given."
    sys.exit(
        f"{what} Throughput is measured on real images: give an image folder, train/<class>/* and test/<class>/*,\n"
        "of 32 x 32 pixels: make bench BENCH_DATA=/path/to/folder (or --data /path/to/folder)"
    )


def describe(threads: int) -> dict[str, str]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0] if named else model
    names = ["torch", "torchvision", "pillow", *(["lightning"] if has_lightning() else [])]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return {
        "machine": f"{model}, {len(os.sched_getaffinity(0))} processors, {platform.system()} {platform.release()}",
        "versions": ", ".join([f"python {platform.python_version()}", *versions]),
        "threads": str(threads),
        "command": " ".join(["python", *sys.argv]),
    }


def has_lightning() -> bool:
    return importlib.util.find_spec("lightning") is not None


# The parent: start the sides of a case, give them turns, compare.


def measure(case: Case, data: Path, scratch: Path, arguments: argparse.Namespace) -> list[Row]:
    def side(name: str, precision: str) -> Side:
        return Side(case, name, precision, data, scratch, threads=arguments.threads, device=arguments.device)

    tutorial, ours = side("tutorial", "fp32"), [side("ours", precision) for precision in case.targets]
    precisions = dict.fromkeys(each.precision for each in ours)
    peers = {precision: side("lightning", precision) for precision in precisions} if has_lightning() else {}
    sides = [tutorial, *ours, *peers.values()]
    try:
        for each in sides:
            for _ in range(WARM_UP):
                each.turn(arguments.seconds)
        rounds: list[dict[Side, Turn]] = []
        for _ in range(3 * arguments.rounds):
            rounds.append({each: each.turn(arguments.seconds) for each in sides})
            if sum(map(is_quiet, rounds)) == arguments.rounds:
                break
        quiet = [turns for turns in rounds if is_quiet(turns)] or rounds
        return [
            compare(case, target, quiet, ours=each, tutorial=tutorial, lightning=peers.get(each.precision))
            for each, target in zip(ours, case.targets.values(), strict=True)
        ]
    finally:
        for each in sides:
            each.end()


@dataclass(frozen=True)
class Turn:
    rate: float  # images a second
    others: float


Round = Mapping["Side", Turn]


def is_quiet(turns: Round) -> bool:
    return max(turn.others for turn in turns.values()) <= MAX_OTHERS


def compare(
    case: Case, target: float, rounds: Sequence[Round], *, ours: Side, tutorial: Side, lightning: Side | None
) -> Row:
    def rate(side: Side) -> float:
        return statistics.median(turns[side].rate for turns in rounds)

    def ratios(peer: Side) -> list[float]:
        return sorted(turns[ours].rate / turns[peer].rate for turns in rounds)

    beside_tutorial = ratios(tutorial)
    ratio = statistics.median(beside_tutorial)
    return Row(
        model=case.model,
        batch_size=case.batch_size,
        precision=ours.precision,
        tutorial=rate(tutorial),
        ours=rate(ours),
        ratio=ratio,
        low=beside_tutorial[0],
        high=beside_tutorial[-1],
        lightning=None if lightning is None else rate(lightning),
        beside_lightning=None if lightning is None else statistics.median(ratios(lightning)),
        target=target,
        rounds=len(rounds),
        met=ratio >= target if all(map(is_quiet, rounds)) else None,
        others=max(turn.others for turns in rounds for turn in turns.values()),
    )


VERDICTS = {True: "met", False: "NOT MET", None: "BUSY"}
HEADER = (
    "model      batch  precision  tutorial      ours   ratio          (range)  target           lightning  ratio  "
    "rounds  others"
)


def line(row: Row) -> str:
    rates = f"{row.tutorial:7.0f}/s {row.ours:7.0f}/s {row.ratio:6.2f}x  {f'({row.low:.2f}-{row.high:.2f})':>15}"
    peer = "        -      -" if row.lightning is None else f"{row.lightning:7.0f}/s {row.beside_lightning:5.2f}x"
    verdict = f"{row.target:6.1f}x  {VERDICTS[row.met]:7}"
    return (
        f"{row.model:9} {row.batch_size:6}  {row.precision:9} {rates} {verdict} {peer} {row.rounds:6} {row.others:7.0%}"
    )


class Side:
    """A process that trains when it is told to."""

    def __init__(
        self, case: Case, side: str, precision: str, data: Path, scratch: Path, *, threads: int, device: str = "cpu"
    ) -> None:
        work = (side, case.model, case.batch_size, precision, data, scratch, device)
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("sides.py"), *map(str, work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**(child_environment() if side == "ours" else os.environ), "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
        self.precision = self._answer()["precision"]

    def turn(self, seconds: float) -> Turn:
        assert self.process.stdin is not None
        busy, own, began = busy_seconds(), self._own_seconds(), time.perf_counter()
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = self._answer()
        elapsed = time.perf_counter() - began
        others = (busy_seconds() - busy) - (self._own_seconds() - own)
        return Turn(answer["images"] / answer["seconds"], max(0.0, others) / elapsed / (os.cpu_count() or 1))

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            sys.exit(f"a side of the comparison ended with exit code {self.process.wait()}; its error is above")
        return json.loads(text)

    def _own_seconds(self) -> float:
        """Of the process and its children, by the session that they share."""
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[3]) == self.process.pid:
                ticks += sum(map(int, fields[11:15]))  # user and system; its own and its ended children's
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def busy_seconds() -> float:
    """Of all programs on this machine and, where it is virtual, of its neighbours."""
    user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
