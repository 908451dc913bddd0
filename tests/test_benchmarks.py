"""Benchmarks run in small, so that they still run when a GPU, or a quiet machine, is at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_benchmarks_of_a_gpu_run_in_small(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    small = ["--small", "--models", "net", "--batches", "64", "--seeds", "1", "--json", found]
    command = [sys.executable, "benchmarks/gpu.py", *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every claim that was measured is met" in done.stdout
    assert "fall short" not in done.stdout
    claims = {claim["what"]: claim for claim in json.loads(found.read_text())["claims"]}
    assert claims["net at 64, fp32"]["found"] > 0
    assert claims["weights are those of the job left alone, bit for bit"]["found"] == "yes"
    assert claims["net: trained twice, deterministic: the same bits"]["is_met"]
    left_out = {what for what, claim in claims.items() if not claim["was_measured"]}
    assert left_out == {"waits of an epoch", "tuning", "a job that is too large", "airbench94"}


def test_a_benchmark_names_what_falls_short_and_goes_on(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    code = """
import sys
sys.path.insert(0, "benchmarks")
import gpu, gpu_exact
from claims import Claim

def broken(bench):
    yield Claim("slow", 1.0, "images/s", at_least=2.0)
    yield Claim("fast", 3.0, "images/s", at_least=2.0)
    yield Claim("no number", float("nan"))
    raise TimeoutError("it did not come")

gpu_exact.exactness = broken
sys.argv = ["gpu.py", "--small", "--only", "exact,augmentation", "--json", sys.argv[1]]
sys.exit(gpu.main())
"""
    done = subprocess.run([sys.executable, "-c", code, found], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    short = done.stdout.partition("fall short:\n")[2].splitlines()
    assert [line.split()[0] for line in short] == ["slow", "exact"]
    assert short[0].endswith("NOT MET")
    assert "broke off: TimeoutError: it did not come" in short[1]
    claims = {claim["what"]: claim for claim in json.loads(found.read_text())["claims"]}
    assert [claims[what]["is_met"] for what in ("slow", "fast", "no number", "exact")] == [False, True, None, False]
    assert claims["no number"]["found"] is None
    assert len(claims) > 4, "the next check was made"


def test_a_benchmark_whose_time_is_up_begins_nothing_more() -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--small", "--only", "augmentation", "--minutes", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "left out: the part's 0 minutes are used up" in done.stdout


def test_without_a_gpu_the_whole_benchmark_says_why(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    command = [sys.executable, "benchmarks/gpu.py", "--part", "A", "--only", "exact", "--data", tmp_path]
    without = {"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=without)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no GPU: ")
    assert "--small runs on the CPU" in done.stderr


def test_the_benchmark_of_a_sweep_runs_in_small() -> None:
    command = [sys.executable, "benchmarks/sweep.py", "--trials", "2", "--epochs", "1", "--json"]
    done = subprocess.run(
        [*command, "--sides", "peer,2-workers"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode in (0, 1), done.stderr  # 1: so short trials take longer to start than to train
    (sides,) = json.loads(done.stdout)["rounds"]
    assert set(sides) == {"peer", "2-workers"}
    assert set(sides["peer"]["parts"]) == {"process", "loads", "trains", "leaves"}
    assert set(sides["2-workers"]["parts"]) == {"process", "loads", "trains", "leaves"}
