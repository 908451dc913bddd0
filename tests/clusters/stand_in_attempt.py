"""An attempt that computes nothing: for tests of many jobs. It takes the place of `pipeline.training.attempt`."""

import sys
from pathlib import Path

from pipeline.home.paths import Home
from pipeline.home.records import Result

home, job_id, number = Home(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
with (home.root / "ran.txt").open("a") as file:
    file.write(f"{job_id} {number}\n")
Result(number, "succeeded", "stood in").write(home.run(job_id).result)
