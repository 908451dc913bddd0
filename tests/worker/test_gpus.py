"""GPUs shared out among jobs. The machine needs none: an `nvidia-smi` of the test's own says which there are."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from quick import quick_spec, wait_until
from worker_processes import Start, queue, start, training_process, wait_for_training  # noqa: F401 - two are fixtures

from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import Home
from pipeline.queue import repair, views
from pipeline.queue.job_queue import Queue
from pipeline.stop import LEASED_GPU
from pipeline.worker import gpus
from pipeline.worker.gpus import VISIBLE, GpuLease, Gpus, names, uuids, visible_gpus

FIRST, SECOND = "GPU-5d1c2a60-0c4f-1f0e-9d8a-3f7b6c5e4d21", "GPU-b8ea3855-276c-c9cb-b366-c6fa655957c5"
PLAIN = f"GPU 0: NVIDIA H200 (UUID: {FIRST})\nGPU 1: NVIDIA H200 (UUID: {SECOND})\n"
PARTS = ["MIG-c7384736-a75d-5afc-978f-d2f1294409fd", "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d"]
OLD_PARTS = [f"MIG-{SECOND}/1/0", f"MIG-{SECOND}/2/0"]  # as drivers before 470 wrote them
DIVIDED = f"""\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {FIRST})
  MIG 3g.20gb     Device  0: (UUID: {PARTS[0]})
  MIG 3g.20gb     Device  1: (UUID: {PARTS[1]})
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {SECOND})
"""
DIVIDED_LAST = f"""\
GPU 0: A100-SXM4-40GB (UUID: {FIRST})
GPU 1: A100-SXM4-40GB (UUID: {SECOND})
  MIG 3g.20gb Device 0: (UUID: {OLD_PARTS[0]})
  MIG 3g.20gb Device 1: (UUID: {OLD_PARTS[1]})
"""
AS_LISTED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
LONG = 2000  # epochs, many minutes of them
NvidiaSmi = Callable[[str], None]


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NvidiaSmi:
    """Puts a shell script of this name first on the PATH, for this process and those that it starts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(VISIBLE, raising=False)

    def write(script: str) -> None:
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "nvidia-smi").chmod(0o755)

    return write


@pytest.fixture
def content_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets training processes not know that a GPU was leased for them: they train on the CPU, as PyTorch sees none."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import os; os.environ.pop({LEASED_GPU!r}, None)")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )


def printing(listing: str) -> str:
    return f"[ \"$*\" = -L ] && cat <<'END'\n{listing}END"


def take(gpus: Gpus, device: str = "auto") -> GpuLease:
    place = gpus.take(device)
    assert place is not None
    return place


# Which there are


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (PLAIN, [FIRST, SECOND]),
        (DIVIDED, [*PARTS, SECOND]),
        (DIVIDED_LAST, [FIRST, *OLD_PARTS]),
        ("No devices found.\n", []),
        ("", []),
    ],
    ids=["plain", "the first is divided", "the last is divided", "none", "nothing said"],
)
def test_uuids_are_those_of_gpus_or_of_the_parts_of_a_divided_one(listing: str, found: list[str]) -> None:
    assert uuids(listing) == found


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (PLAIN, {FIRST: "0 NVIDIA H200", SECOND: "1 NVIDIA H200"}),
        (
            DIVIDED,
            {
                FIRST: "0 NVIDIA A100-SXM4-40GB",
                **dict.fromkeys(PARTS, "0 MIG 3g.20gb"),
                SECOND: "1 NVIDIA A100-SXM4-40GB",
            },
        ),
        (
            DIVIDED_LAST,
            {FIRST: "0 A100-SXM4-40GB", SECOND: "1 A100-SXM4-40GB", **dict.fromkeys(OLD_PARTS, "1 MIG 3g.20gb")},
        ),
        ("", {}),
    ],
    ids=["plain", "the first is divided", "the last is divided", "nothing said"],
)
def test_gpus_have_the_names_that_people_call_them_by(listing: str, found: dict[str, str]) -> None:
    assert names(listing) == found


def test_the_driver_is_asked_which_gpus_there_are(nvidia_smi: NvidiaSmi) -> None:
    nvidia_smi(printing(PLAIN))
    assert visible_gpus() == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2,0", ["2", "0"]),
        (f"{SECOND}, {PARTS[0]}", [SECOND, PARTS[0]]),
        *((none, []) for none in ("", "-1", "NoDevFiles", "none", "void")),
        ("1,-1,2", ["1"]),
    ],
)
def test_whoever_says_which_gpus_are_visible_is_believed(
    value: str, found: list[str], nvidia_smi: NvidiaSmi, tmp_path: Path
) -> None:
    nvidia_smi(f"touch {tmp_path / 'asked'}\n{printing(PLAIN)}")
    assert visible_gpus({VISIBLE: value}) == found
    assert not (tmp_path / "asked").exists()


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "DRIVER_DEVICES", ())
    assert visible_gpus() == []
    assert visible_gpus({VISIBLE: "0"}) == [], "whatever a shell's start-up file says"


@pytest.mark.parametrize("fault", ["exit 9", "exec sleep 600"])
def test_a_driver_that_does_not_work_has_none(
    fault: str, nvidia_smi: NvidiaSmi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "NVIDIA_SMI_S", 1.0)
    nvidia_smi(f"{printing(PLAIN)}\n{fault}")
    assert visible_gpus() == []


# Who gets which


def test_each_job_gets_a_gpu_of_its_own_and_then_they_are_shared_evenly(queue: Queue) -> None:
    shared = Gpus(queue.paths, ("GPU-a", "GPU-b", "GPU-c"))
    places = [take(shared, device) for device in ("auto", "cuda", "auto", "cuda", "auto", "auto", "cuda")]
    taken = [place.gpu for place in places]
    assert sorted(taken[:3]) == sorted(taken[3:6]) == ["GPU-a", "GPU-b", "GPU-c"]
    assert sorted(Counter(taken).values()) == [2, 2, 3]
    assert [place.environment for place in places] == [{VISIBLE: gpu, LEASED_GPU: gpu} for gpu in taken]


def test_a_job_on_the_processor_takes_none(queue: Queue) -> None:
    assert Gpus(queue.paths, ("GPU-a",)).take("cpu") is None
    assert list(queue.paths.leases.iterdir()) == []


def test_where_no_gpu_is_known_a_job_is_left_to_find_one(queue: Queue) -> None:
    assert Gpus(queue.paths, ()).take("auto") is None
    assert Gpus(queue.paths, ("GPU-a",)).take("cuda:1") is None


def test_a_job_that_names_its_gpu_gets_that_one_and_others_keep_away_from_it(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts among all GPUs, so it has to see all of them, in the order of nvidia-smi."""
    monkeypatch.delenv(VISIBLE, raising=False)
    shared = Gpus(queue.paths, ("GPU-a", "GPU-b", "GPU-c"))
    named = [take(shared, "cuda:1") for _ in range(2)]
    assert [(place.gpu, place.environment) for place in named] == [("GPU-b", {**AS_LISTED, LEASED_GPU: "GPU-b"})] * 2
    assert {take(shared).gpu, take(shared).gpu} == {"GPU-a", "GPU-c"}
    monkeypatch.setenv(VISIBLE, "1,0,2")
    assert take(shared, "cuda:1").environment == {LEASED_GPU: "GPU-b"}, "the user's own order stands"


def test_a_gpu_is_free_again_when_its_job_has_ended(queue: Queue) -> None:
    shared = Gpus(queue.paths, ("GPU-a", *OLD_PARTS))
    places = [take(shared) for _ in range(3)]
    places[1].lease.release()
    again = take(shared)
    assert again.gpu == places[1].gpu == OLD_PARTS[0]
    for place in (places[0], again, places[2]):
        place.lease.release()
    assert list(queue.paths.leases.iterdir()) == []


def test_a_gpu_without_a_job_goes_before_one_that_still_has_a_second_one(queue: Queue) -> None:
    shared = Gpus(queue.paths, ("GPU-a", "GPU-b"))
    places = [take(shared) for _ in range(3)]
    for place in places[:2]:
        place.lease.release()
    assert {places[2].gpu, take(shared).gpu} == {"GPU-a", "GPU-b"}


def test_foreign_things_where_leases_of_gpus_lie_keep_no_job_from_one(queue: Queue) -> None:
    queue.paths.gpu_lease("GPU-a", 0).symlink_to("nowhere")
    queue.paths.gpu_lease("GPU-a", 1).mkdir()
    (queue.paths.leases / ".gpu-GPU-a.notes").touch()
    place = take(Gpus(queue.paths, ("GPU-a",)))
    assert place.lease.path == queue.paths.gpu_lease("GPU-a", 2)


# With workers


def visible_to(home: Home, job_id: str) -> str | None:
    """What the job's process wrote down that it could see; None as long as it has not."""
    written = durable.read_json(home.run(job_id).manifest)
    return None if written is None else written["attempts"][-1]["visible_gpus"]


@pytest.mark.usefixtures("content_without_gpus")
@pytest.mark.parametrize("workers", [[["--slots", "2"]], [[], []]], ids=["two slots", "two workers"])
def test_jobs_that_run_at_the_same_time_see_one_gpu_each(
    workers: list[list[str]], queue: Queue, start: Start, nvidia_smi: NvidiaSmi, tmp_path: Path
) -> None:
    nvidia_smi(printing(PLAIN))
    auto = {"device": "auto"}
    ids = queue.submit_all([quick_spec(name, epochs=LONG, resources=auto) for name in ("first", "second")])
    processes = [start("worker", "--drain", *options) for options in workers]
    seen = [wait_until(lambda job_id=job_id: visible_to(queue.home, job_id), "a manifest") for job_id in ids]
    assert sorted(seen) == [FIRST, SECOND]
    assert sorted(queue.tickets.ids("running")) == sorted(ids)
    assert [Lease.is_held(queue.paths.gpu_lease(gpu, 0)) for gpu in (FIRST, SECOND)] == [True, True]
    called = {FIRST: "0 NVIDIA H200", SECOND: "1 NVIDIA H200"}
    for job_id, gpu in zip(ids, seen, strict=True):
        wait_until(lambda job_id=job_id: views.find(queue, job_id).gpu, "the record of its GPU")
        view = views.find(queue, job_id)
        assert (view.gpu, view.worker in queue.live_workers()) == (called[str(gpu)], True)

    for job_id in ids:
        assert repair.cancel(queue, job_id) == "stopping"
    assert [process.wait() for process in processes] in ([1], [1, 1])
    assert list(queue.paths.leases.iterdir()) == []
    said = "".join(path.read_text() for path in tmp_path.glob("output-*"))
    for job_id, gpu in zip(ids, seen, strict=True):
        assert f"{job_id}: attempt 1 starts on {gpu}" in said


@pytest.mark.usefixtures("content_without_gpus")
def test_the_gpu_of_a_killed_worker_is_its_job_s_until_that_has_gone_too(
    queue: Queue, start: Start, nvidia_smi: NvidiaSmi
) -> None:
    nvidia_smi(printing(PLAIN))
    job_id = queue.submit(quick_spec(epochs=LONG, resources={"device": "auto"}))
    worker = start("worker")
    child = wait_for_training(queue.home, job_id)
    mine = visible_to(queue.home, job_id)
    os.kill(child, signal.SIGSTOP)  # it saves as slowly as can be
    worker.kill()
    worker.wait()
    shared = Gpus(queue.paths, (FIRST, SECOND))
    assert {mine, take(shared).gpu} == {FIRST, SECOND}

    assert training_process(queue.home, job_id) == child
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not Lease.is_held(queue.paths.gpu_lease(str(mine), 0)), "the GPU to be free")
    assert take(shared).gpu == mine


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_job_with_a_gpu_that_pytorch_cannot_use_does_not_train_on_the_processor_instead(
    queue: Queue, start: Start, nvidia_smi: NvidiaSmi
) -> None:
    nvidia_smi(printing(PLAIN))
    job_id = queue.submit(quick_spec(resources={"device": "auto"}))
    assert start("worker", "--drain").wait() == 1
    end = queue.records.recorded_end(job_id)
    assert end is not None
    assert end.outcome == "failed"
    for part in (f"was given {FIRST}", "PyTorch sees no GPU", "resources.device: cpu"):
        assert part in end.why


def test_a_job_on_the_processor_keeps_no_gpu_from_others(queue: Queue, start: Start, nvidia_smi: NvidiaSmi) -> None:
    nvidia_smi(printing(PLAIN))
    job_id = queue.submit(quick_spec())
    assert start("worker", "--drain").wait() == 0
    assert visible_to(queue.home, job_id) is None
    assert durable.read_json(queue.home.run(job_id).manifest) is not None
