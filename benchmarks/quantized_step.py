"""How much longer a step takes with weights and inputs of few bits than without, in fp32.

    python benchmarks/quantized_step.py --data DIR [--models net,cnn_bn,vgg11] [--seconds 5] [--rounds 5] [--json]

DIR is as for `throughput.py`, and so are the turns: the same job plain and with each `quantize` section below, each in
a process of its own, one after the other, the ratio taken within a round. What counts is the section of the ready jobs,
`w4a8`; the others are beside it to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from sides import QUANTIZE
from throughput import VERDICTS, Case, Side, describe, find_data, is_quiet

MODELS = ("net", "cnn_bn", "vgg11")
TARGET = 1.3  # times the plain step, for the section of the ready jobs
COUNTS = "w4a8"
BATCH_SIZE = 128
WARM_UP = 2  # turns that are not counted


@dataclass(frozen=True)
class Row:
    model: str
    quantize: str
    plain: float  # images a second, median
    quantized: float
    ratio: float  # of the times of a step, median over rounds
    low: float
    high: float
    met: bool | None  # None: no round was quiet enough to say, or there is nothing to reach
    rounds: int
    others: float  # largest share of the processors that other programs took

    def __str__(self) -> str:
        verdict = f"{TARGET}x {VERDICTS[self.met]}" if self.quantize == COUNTS else ""
        return (
            f"{self.model:7} {self.quantize:12} {self.plain:7.0f}/s {self.quantized:7.0f}/s {self.ratio:6.2f}x  "
            f"({self.low:.2f}-{self.high:.2f})  {verdict:13} {self.rounds:6} {self.others:7.0%}"
        )


HEADER = "model   quantize        plain   quantized   time        (range)  at most       rounds  others"


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="an image folder of 32 x 32 images")
    parser.add_argument("--models", default=",".join(MODELS), help="some of %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="of each turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    conditions = describe(len(os.sched_getaffinity(0)))
    if not arguments.json:
        print("\n".join(f"{key:8} {value}" for key, value in conditions.items()), "", HEADER, sep="\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.models.split(","):
            found = measure(model, data, Path(scratch), arguments.seconds, arguments.rounds)
            rows.extend(found)
            if not arguments.json:
                print(*found, sep="\n", flush=True)
    if arguments.json:
        print(json.dumps({**conditions, "rows": [asdict(row) for row in rows]}, indent=2))
    return 0 if all(row.met for row in rows if row.quantize == COUNTS) else 1


def measure(model: str, data: Path, scratch: Path, seconds: float, num_rounds: int) -> list[Row]:
    sides = {
        name: Side(Case(f"{model}-{name}", BATCH_SIZE, {}), "ours", "fp32", data, scratch, threads=os.cpu_count() or 1)
        for name in ("plain", *QUANTIZE)
    }
    try:
        for side in sides.values():
            for _ in range(WARM_UP):
                side.turn(seconds)
        rounds = []
        for _ in range(3 * num_rounds):
            rounds.append({name: side.turn(seconds) for name, side in sides.items()})
            quiet = [turns for turns in rounds if is_quiet(turns)]
            if len(quiet) == num_rounds:
                break
        counted = quiet or rounds
    finally:
        for side in sides.values():
            side.end()
    rows = []
    for name in QUANTIZE:
        ratios = sorted(turns["plain"].rate / turns[name].rate for turns in counted)
        ratio = statistics.median(ratios)
        rows.append(
            Row(
                model=model,
                quantize=name,
                plain=statistics.median(turns["plain"].rate for turns in counted),
                quantized=statistics.median(turns[name].rate for turns in counted),
                ratio=ratio,
                low=ratios[0],
                high=ratios[-1],
                met=ratio <= TARGET if quiet and name == COUNTS else None,
                rounds=len(counted),
                others=max(turn.others for turns in counted for turn in turns.values()),
            )
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
