"""model.init, freeze_epochs and backbone_lr: what is taken of other weights, and what is trained of a network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import digits, engine_of, make_spec, ordinary_kernels, take, weights  # noqa: F401 - two are fixtures
from quick import quick_spec
from safetensors.torch import save_file

from pipeline.data.dataset import Dataset
from pipeline.home.paths import Home
from pipeline.home.records import Result
from pipeline.jobfile import frozen
from pipeline.jobfile.spec import Spec
from pipeline.stop import Stop
from pipeline.training import checkpoint
from pipeline.training.attempt import Attempt
from pipeline.training.features import last_layer

SMALL = {"name": "vgg", "widths": [4, "M", 8]}


def execute(home: Home, job_id: str, spec: Spec) -> tuple[Result, list[str]]:
    lines: list[str] = []
    frozen.save(home.run(job_id), spec)
    return Attempt(home, job_id, 1, Stop(), lines.append).execute(), lines


def job(name: str, model: dict[str, Any] | None = None, **more: Any) -> Spec:
    return quick_spec(name, model={**SMALL, **(model or {})}, **more)


@pytest.fixture
def first(home: Home) -> Path:
    """The best weights of a run that is called `first`."""
    assert execute(home, "first", job("first", epochs=2))[0].outcome == "succeeded"
    return home.run("first").best


def test_a_job_begins_with_the_best_weights_of_a_run(home: Home, first: Path) -> None:
    result, lines = execute(home, "second", job("second", {"init": "first"}, train={"optimizer": {"lr": 1e-9}}))
    assert result.outcome == "succeeded", result.why
    told = next(line for line in lines if "begins with" in line)
    assert f"of {first}" in told
    before, after = (torch.load(run, weights_only=True)["model"] for run in (first, home.run("second").last))
    learned = [name for name in before if "running" not in name and "num_batches" not in name]
    for name in learned:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-5)
    begun = json.loads(home.run("second").manifest.read_text())["begun_with"]
    assert begun == {
        "file": str(first),
        "sha256": hashlib.sha256(first.read_bytes()).hexdigest(),
        "tensors": len(before),
    }


@pytest.mark.parametrize("kind", [".pt", ".safetensors", "of others.pt"])
def test_a_file_of_weights_will_do(home: Home, first: Path, tmp_path: Path, kind: str) -> None:
    state = checkpoint.load(first)
    assert state is not None
    file = tmp_path / f"weights{kind}"
    if kind == ".safetensors":
        save_file({name: value.contiguous() for name, value in state["model"].items()}, file)
    else:
        torch.save({"state_dict": state["model"]} if kind == "of others.pt" else state["model"], file)
    result, lines = execute(home, "second", job("second", {"init": str(file)}))
    assert result.outcome == "succeeded", result.why
    assert f"begins with {len(state['model'])} of {len(state['model'])} tensors" in "\n".join(lines)


def test_a_folder_may_be_called_as_those_of_runs_are(home: Home, first: Path, tmp_path: Path) -> None:
    """As that of torch.hub is."""
    state = checkpoint.load(first)
    assert state is not None
    file = tmp_path / "hub" / "checkpoints" / "weights.pth"
    file.parent.mkdir(parents=True)
    torch.save(state["model"], file)
    result, _ = execute(home, "second", job("second", {"init": str(file)}))
    assert result.outcome == "succeeded", result.why


def test_a_backbone_that_has_learned_nothing_is_told_of(home: Home) -> None:
    _, lines = execute(home, "job", job("job", {"freeze_epochs": 1}))
    assert "keeps a backbone that has learned nothing" in "\n".join(lines)


def test_what_does_not_fit_is_told_and_stays_as_it_was_made(home: Home, first: Path) -> None:
    assert first.is_file()
    wider = {"widths": [4, "M", 16], "init": "first"}
    result, lines = execute(home, "second", job("second", wider))
    assert result.outcome == "succeeded", result.why
    told = next(line for line in lines if "as it was made" in line)
    assert "(16, 4, 3, 3) (there (8, 4, 3, 3))" in told


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("nobody", "model.init: nobody: no run's id begins so; a file is given with its whole path"),
        ("~no-such-user/weights.pt", "model.init: ~no-such-user/weights.pt: "),
        ("/nowhere/weights.pt", "model.init: there is no file /nowhere/weights.pt"),
        ("{tmp}/text.pt", "cannot be read"),
        ("{tmp}/empty.pt", "holds no weights"),
        ("{tmp}/other.pt", "fits this model"),
        ("{tmp}/text.safetensors", "cannot be read"),
    ],
)
def test_what_is_no_weights_for_the_model_fails_the_job(home: Home, tmp_path: Path, init: str, said: str) -> None:
    (tmp_path / "text.pt").write_text("none")
    (tmp_path / "text.safetensors").write_text("none")
    torch.save({"a": 3}, tmp_path / "empty.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    result, _ = execute(home, "second", job("second", {"init": init.format(tmp=tmp_path)}))
    assert result.outcome == "failed"
    assert said in result.why


def test_a_frozen_backbone_learns_nothing_and_then_it_does(digits: Dataset) -> None:
    model = {"name": "vgg", "widths": [4, "M", 8], "batch_norm": True, "freeze_epochs": 1}
    engine = engine_of(make_spec(model, {"batch_size": 300}, train={"epochs": 2}), digits)
    head = {f"{name}.{part}" for name, module in engine.model.named_modules() for part in ("weight", "bias")
            if module is last_layer(engine.model)}  # fmt: skip
    at_first = weights(engine)
    take(engine, engine.steps_per_epoch)
    frozen_for_an_epoch = weights(engine)
    changed = {name for name, value in frozen_for_an_epoch.items() if not torch.equal(value, at_first[name])}
    assert changed == head
    engine.end_epoch()
    take(engine, 1)
    later = weights(engine)
    assert {name for name, value in later.items() if not torch.equal(value, at_first[name])} > head


def test_the_backbone_may_have_a_rate_of_its_own(digits: Dataset) -> None:
    ends = {}
    for scale in (1.0, 1e-6):
        train = {"optimizer": {"name": "sgd", "lr": 0.1}, "precision": "fp32"}
        engine = engine_of(make_spec({**SMALL, "backbone_lr": scale}, train=train), digits)
        before = weights(engine)
        take(engine, 2)
        ends[scale] = {name: float((value - before[name]).abs().max()) for name, value in weights(engine).items()}
    names = [name for name in ends[1.0] if name.endswith("weight")]
    assert ends[1e-6][names[0]] < 1e-3 * ends[1.0][names[0]]
    assert ends[1e-6][names[-1]] > 0.1 * ends[1.0][names[-1]]
