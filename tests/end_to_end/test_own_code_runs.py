"""A model of one's own from the job file to its use: what ran is frozen, and wrong code ends a job as invalid."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from cli_runs import Pipeline, submitted
from own_code import FILES, MODEL, job, write_modules
from PIL import Image
from quick import wait_until
from worker_processes import Start, queue, start  # noqa: F401 - fixtures

from pipeline.home.paths import Home
from pipeline.home.records import End, Progress
from pipeline.queue.job_queue import Queue

NO_TORCH = "import sys; sys.modules['torch'] = None; import importlib.util as u; found = u.find_spec; "
NO_TORCH += "u.find_spec = lambda name, *a: None if name == 'torch' else found(name, *a); "
NO_TORCH += "from pipeline.cli import main; main.main()"


@pytest.fixture
def own_job(tmp_path: Path, home: Home) -> Path:
    write_modules(home.modules, FILES)
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(job()))
    return path


def drain(pipeline: Pipeline) -> None:
    pipeline("worker", "--drain", timeout=240)


def end_of(home: Home, job_id: str) -> End:
    end = End.read(Queue(home).paths.end(job_id))
    assert end is not None
    return end


def learned(end: End) -> list[float]:
    return [end.metrics[tag] for tag in ("train/loss", "test/loss", "test/accuracy")]


def test_a_job_runs_what_was_there_when_it_was_submitted(pipeline: Pipeline, home: Home, own_job: Path) -> None:
    (job_id,) = submitted(pipeline, own_job)
    shutil.rmtree(home.modules)
    drain(pipeline)
    assert end_of(home, job_id).outcome == "succeeded"
    run = home.run(job_id)
    assert {path.name: path.read_text() for path in run.modules.iterdir()} == FILES
    manifest = json.loads(run.manifest.read_text())
    assert manifest["modules"] == {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    assert "SHA-256 of modules/my_models.py" in run.report.read_text()


def test_a_killed_job_goes_on_with_the_frozen_files(
    pipeline: Pipeline,
    home: Home,
    own_job: Path,
    start: Start,
) -> None:
    changes = ["--set", "train.epochs=60", "--set", "resources.retries=2", "--set", "train.checkpoint_every=1"]
    job_id, alone = submitted(pipeline, own_job, own_job, *changes)
    worker = start("worker", "--drain")
    wait_until(lambda: (p := Progress.read(home.run(job_id).progress)) is not None and p.epoch >= 3, "three epochs")
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    for pid in [worker.pid, *map(int, children)]:
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    write_modules(home.modules, {"my_models.py": "raise SystemExit('this is not what was submitted')\n"})
    drain(pipeline)
    ends = [end_of(home, name) for name in (job_id, alone)]
    assert [end.outcome for end in ends] == ["succeeded"] * 2
    assert learned(ends[0]) == learned(ends[1])
    assert Queue(home).attempts(job_id).number >= 2


def test_a_trained_model_is_used_from_the_run_alone(
    pipeline: Pipeline, home: Home, own_job: Path, tmp_path: Path
) -> None:
    (job_id,) = submitted(pipeline, own_job)
    drain(pipeline)
    shutil.rmtree(home.modules)
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png")
    done = pipeline("predict", job_id, tmp_path / "grey.png", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1
    for name in ("safetensors", "onnx", "torch-export"):
        done = pipeline("export-model", job_id, "--format", name)
        assert done.returncode == 0, done.stderr
    spec = home.run(job_id).spec
    assert pipeline("validate", spec).stdout == f"{spec}: ok\n"
    (again,) = submitted(pipeline, spec)
    drain(pipeline)
    assert learned(end_of(home, again)) == learned(end_of(home, job_id))


def test_runs_whose_code_differs_are_told_apart(pipeline: Pipeline, home: Home, own_job: Path) -> None:
    ids = submitted(pipeline, own_job)
    write_modules(home.modules, {"my_layers.py": FILES["my_layers.py"] + "# changed\n"})
    ids += submitted(pipeline, own_job)
    drain(pipeline)
    compared = json.loads(pipeline("compare", *ids, "--json").stdout)
    assert compared["differing"] == ["modules/my_layers.py"]


def test_validate_calls_the_code_and_says_where_it_fails(pipeline: Pipeline, home: Home, own_job: Path) -> None:
    write_modules(home.modules, {"my_models.py": MODEL.replace("nn.Linear(9 * width, num", "nn.Linear(9, num")})
    done = pipeline("validate", own_job)
    assert done.returncode == 2
    line = 1 + MODEL.splitlines().index("        return self.layers(images)")
    assert done.stderr.startswith(
        f"{own_job}:1: model.name: 'my_models:SmallNet' does not work: {home.modules}/my_models.py:{line}: "
        "in SmallNet.forward: given images of (2, 1, 8, 8): RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (MODEL.replace("num_classes),", "8),"), "modules/my_models.py:9: SmallNet gives (2, 8) for 2 images of 10"),
        (f"import nowhere\n{MODEL}", "modules/my_models.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        (f"exit()\n{MODEL}", "modules/my_models.py:1: SystemExit"),
        (f"raise OSError(28, 'full')\n{MODEL}", "modules/my_models.py:1: OSError: [Errno 28] full"),
        (
            f"from pipeline.errors import Interrupted\nraise Interrupted('x')\n{MODEL}",
            "modules/my_models.py:2: Interrupted: x",
        ),
    ],
    ids=["shape", "import", "exit", "full disk", "interrupted"],
)
def test_what_is_found_only_when_a_job_starts_ends_it_as_invalid(
    pipeline: Pipeline, home: Home, own_job: Path, code: str, why: str
) -> None:
    write_modules(home.modules, {"my_models.py": code.lstrip("\n")})
    (job_id,) = submitted(pipeline, own_job, "--set", "resources.retries=3")
    drain(pipeline)
    end = end_of(home, job_id)
    assert (end.outcome, end.attempt) == ("invalid", 1)
    assert end.why.startswith(why)


def test_an_error_in_the_midst_of_training_names_the_users_line(pipeline: Pipeline, home: Home, own_job: Path) -> None:
    late = (
        "        if self.training and len(images) > 2:\n            raise ValueError('too late')\n        return self"
    )
    write_modules(home.modules, {"my_models.py": MODEL.replace("        return self", late)})
    (job_id,) = submitted(pipeline, own_job)
    drain(pipeline)
    end = end_of(home, job_id)
    assert end.outcome == "failed"
    assert end.why.startswith("modules/my_models.py:")
    assert "in SmallNet.forward: ValueError: too late (the log has the traceback)" in end.why


@pytest.mark.parametrize("raised", ["Interrupted('x')", "Odd()"])
def test_no_error_of_the_users_keeps_a_job_going_round(
    pipeline: Pipeline, home: Home, own_job: Path, raised: str
) -> None:
    head = "from pipeline.errors import Interrupted\nclass Odd(Exception):\n    def __str__(self): raise ValueError\n"
    late = f"        if self.training and len(images) > 2:\n            raise {raised}\n        return self"
    write_modules(home.modules, {"my_models.py": head + MODEL.replace("        return self", late)})
    (job_id,) = submitted(pipeline, own_job)
    drain(pipeline)
    assert (end_of(home, job_id).outcome, end_of(home, job_id).attempt) == ("failed", 1)


@pytest.mark.parametrize(
    "code",
    [
        "import threading, time\nthreading.Thread(target=lambda: time.sleep(1e5)).start()\n",
        "import os, time\nif os.fork() == 0:\n    time.sleep(1e5)\n",
        "import os\nos.closerange(3, 64)\n",
    ],
    ids=["a thread", "a child", "closed files"],
)
def test_code_that_leaves_something_behind_holds_nobody_up(
    pipeline: Pipeline, home: Home, own_job: Path, code: str
) -> None:
    write_modules(home.modules, {"my_models.py": f"{code}{MODEL}"})
    done = pipeline("validate", own_job, timeout=100)
    assert done.returncode == (2 if "closerange" in code else 0)


def test_a_hostile_ticket_ends_its_job_and_no_worker(pipeline: Pipeline, home: Home, own_job: Path) -> None:
    """One that no `submit` of this version would make: a file that is imported has an error."""
    bad, good = submitted(pipeline, own_job, own_job)
    path = Queue(home).paths.ticket("pending", bad)
    ticket = json.loads(path.read_text())
    ticket["modules"]["my_layers.py"] = "def ("
    path.write_text(json.dumps(ticket))
    drain(pipeline)
    assert end_of(home, bad).outcome == "invalid"
    assert "modules/my_layers.py:1" in end_of(home, bad).why
    assert end_of(home, good).outcome == "succeeded"


def test_what_a_model_prints_is_in_no_answer(pipeline: Pipeline, home: Home, own_job: Path, tmp_path: Path) -> None:
    loud = MODEL.replace("        super()", "        print('made')\n        super()").replace(
        "        return self", "        print('called')\n        return self"
    )
    write_modules(home.modules, {"my_models.py": loud})
    (job_id,) = submitted(pipeline, own_job)
    drain(pipeline)
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png")
    done = pipeline("predict", job_id, tmp_path / "grey.png", "--json")
    assert len(json.loads(done.stdout)) == 1
    assert "made" in done.stderr


def test_without_torch_the_same_is_found_by_reading(own_job: Path, home: Home, start: Start, tmp_path: Path) -> None:
    assert start("validate", str(own_job), code=NO_TORCH).wait() == 0
    write_modules(home.modules, {"my_models.py": MODEL.replace("SmallNet", "Other")})
    assert start("validate", str(own_job), code=NO_TORCH).wait() == 2
    assert "defines no class or function SmallNet" in (tmp_path / "output-1").read_text()


def test_every_kind_of_code_at_once(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    code = """
    import torch
    from torch import nn


    class Halves:
        classes = ["left", "right"]

        def __init__(self, root, train: bool, num: int = 200):
            generator = torch.Generator().manual_seed(int(train))
            self.labels = torch.randint(2, (num,), generator=generator)
            self.noise = torch.rand(num, 8, 8, generator=generator) / 2

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            image = self.noise[index].clone()
            left = 4 * int(self.labels[index])
            image[:, left : left + 4] += 0.5
            return image, int(self.labels[index])


    def invert(images, draws, share: float = 0.5):
        return torch.where((draws.uniform() < share)[:, :, None, None], 255 - images, images)


    class Signs(torch.optim.Optimizer):
        def __init__(self, params, lr: float = 0.01):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(parameter.grad.sign(), alpha=-group["lr"])


    def falling(step, steps, power: int = 1):
        return (1 - step / steps) ** power


    class Squares(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.register_buffer("table", torch.eye(num_classes))

        def forward(self, logits, labels):
            return ((logits.softmax(1) - self.table[labels]) ** 2).mean()


    def linear(num_classes, channels, image_size, hidden: int = 8):
        inputs = channels * image_size**2
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
    """
    lines = code.splitlines()
    write_modules(home.modules, {"mine.py": "\n".join(line.removeprefix("    ") for line in lines)})
    value = job(
        model={"name": "mine:linear", "hidden": 16},
        data={"name": "mine:Halves", "num": 400, "augment": [{"name": "mine:invert", "share": 0}]},
        train={
            "epochs": 5,
            "optimizer": {"name": "mine:Signs", "lr": 0.003},
            "schedule": {"name": "mine:falling", "power": 2},
            "loss": {"name": "mine:Squares"},
        },
    )
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump(value))
    done = pipeline("validate", path)
    assert (done.returncode, done.stderr) == (0, "")
    (job_id,) = submitted(pipeline, path)
    drain(pipeline)
    end = end_of(home, job_id)
    assert end.outcome == "succeeded", end.why
    assert end.metrics["test/accuracy"] > 0.95
    assert end.metrics["test/loss"] < 0.2, "of the job's own loss, which is at most 1"
    assert json.loads(home.run(job_id).manifest.read_text())["dataset"]["classes"] == ["left", "right"]
