"""Part B, the recipes: known accuracy in record time, as job files; beside airbench94's own program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from claims import Claim
from engines import engine_of
from gpu_jobs import Jobs
from sides import MODELS

from pipeline.board import tags
from pipeline.jobfile import reading
from pipeline.jobfile.spec import Spec

if TYPE_CHECKING:
    from gpu import Bench

JOBS = Path(__file__).parent.parent / "jobs"
SMALL = ("data.name=digits", "data.image_size=32", "data.batch_size=64", "train.epochs=1.5")  # laid over a job file
RECIPES = {"vgg11_bn": (92.2, 8.0), "airbench94": (None, None)}
"""What the mean accuracy of a job file has to be, in percent, and how long its training may take, in seconds.

No number is known for airbench94 on these pixels, which were JPEG: `airbench` runs its own program on them.
"""


def recipes(bench: Bench) -> Iterator[Claim]:
    """The job files as they are, with their default logging, by a worker."""
    jobs = Jobs.of(bench, "recipes")
    for name, (accuracy, took_s) in RECIPES.items():
        changes = SMALL if bench.is_small else ("data.name=image_folder", f"data.path={bench.data}")
        ids = [
            jobs.submit(
                reading.load(
                    JOBS / f"{name}.yaml", (*changes, f"train.seed={seed}", f"resources.device={bench.device}")
                )
            )
            for seed in range(bench.seeds)
        ]
        jobs.worker().wait()
        ends = [end for job_id in ids if (end := jobs.end(job_id)) is not None and end.outcome == "succeeded"]
        found = [100 * end.metrics[tags.TEST_ACCURACY] for end in ends]
        told = ", ".join(f"{value:.2f}" for value in found)
        yield Claim(f"jobs/{name}.yaml: accuracy by seed", told or "none", holds=len(found) == bench.seeds)
        mean = sum(found) / max(1, len(found))
        yield Claim(f"jobs/{name}.yaml: mean accuracy", mean, "%", at_least=None if bench.is_small else accuracy)
        logs = "".join(map(jobs.log, ids))
        seconds = [float(value) for value in re.findall(r"logging took .* of ([\d.]+) s", logs)]
        what, limit = f"jobs/{name}.yaml: the training takes, at most", None if bench.is_small else took_s
        yield Claim(what, max(seconds), "s", at_most=limit) if seconds else Claim(what, "no job tells", holds=False)


AIRBENCH = """
import sys
import torch
source = open(sys.argv[1]).read().partition("if __name__")[0]
sys.argv = [sys.argv[1]]
exec(compile(source, sys.argv[0], "exec"))
for run in ("warmup", 0, 1, 2):
    main(run)
"""


def airbench(bench: Bench) -> Iterator[Claim]:
    """cifar10-airbench's own program (Jordan, 2024) on the same pixels; three runs after one that warms up."""
    if bench.airbench is None or bench.device != "cuda":
        yield Claim.left_out("airbench94", "needs a GPU, and --airbench")
        return
    folder = bench.scratch / "airbench"
    (folder / "cifar10").mkdir(parents=True)
    shutil.copy(bench.airbench / "legacy" / "airbench94.py", folder / "airbench94.py")
    dataset = engine_of(Spec.model_validate(bench.spec(MODELS["net"])), bench.datasets).dataset
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        pixels = {"images": split.images.clone(), "labels": split.labels.clone(), "classes": list(dataset.classes)}
        torch.save(pixels, folder / "cifar10" / f"{name}.pt")
    command = [sys.executable, "-c", AIRBENCH, "airbench94.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    rows = re.findall(r"\|\s*eval\s*\|(.*)\|", done.stdout)
    if len(rows) < 4:
        yield Claim("airbench94", f"failed: {done.stderr.strip()[-200:]}", holds=False)
        return
    figures = [[float(cell) for cell in row.split("|") if cell.strip()] for row in rows[1:]]
    accuracies, seconds = [row[-2] for row in figures], [row[-1] for row in figures]
    yield Claim("airbench94: mean accuracy", 100 * sum(accuracies) / len(accuracies), "%")
    yield Claim("airbench94: its own time, median", sorted(seconds)[len(seconds) // 2], "s")
