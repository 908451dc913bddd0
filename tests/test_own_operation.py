"""The worked example of an operation of one's own: its gradients, and a job that trains with it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cli_runs import Pipeline
from quick import NOTHING_SHOWN
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch.autograd.gradcheck import GradcheckError

from pipeline.home.paths import Home

ROOT = Path(__file__).parents[1]
FILE = ROOT / "modules" / "own_operation.py"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_operation", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_worked_numbers_of_its_docstring(example: ModuleType) -> None:
    x = torch.tensor([-0.5, 1, 2], requires_grad=True)
    alpha = torch.tensor(1.5, requires_grad=True)
    y = example.learned_clip(x, alpha)
    gradients = torch.autograd.grad(y, (x, alpha), torch.tensor([3.0, 5, 7]))
    assert y.tolist() == [0, 1, 1.5]
    assert [gradient.tolist() for gradient in gradients] == [[0, 5, 0], 7]


def test_at_the_edges_it_is_as_the_formula_says(example: ModuleType) -> None:
    """Where x is 0 or alpha, of which finite differences tell nothing."""
    x = torch.tensor([0, 1.5], requires_grad=True)
    alpha = torch.tensor(1.5, requires_grad=True)
    dx, dalpha = torch.autograd.grad(example.learned_clip(x, alpha).sum(), (x, alpha))
    assert dx.tolist() == [0, 0]
    assert dalpha.item() == 1


def test_a_person_can_check_its_gradients(example: ModuleType) -> None:
    done = subprocess.run([sys.executable, FILE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "first and second derivatives are those of finite differences" in done.stdout
    example.check()


@pytest.mark.parametrize("number", [0, 1], ids=["of x", "of alpha"])
def test_the_check_finds_a_wrong_gradient(example: ModuleType, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    right = example._LearnedClip.backward

    def wrong(ctx: object, dy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gradients = list(right(ctx, dy))
        gradients[number] = gradients[number] * 1.01
        return tuple(gradients)

    monkeypatch.setattr(example._LearnedClip, "backward", wrong)
    with pytest.raises(GradcheckError, match=f"with respect to input {number}"):
        example.check()


def test_it_can_be_differentiated_twice(example: ModuleType) -> None:
    """A penalty on the gradient, as of the same function of PyTorch's own operations."""

    def penalty(y: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
        gradients = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        return list(torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), inputs))

    x = torch.linspace(-2, 3, 10, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    found = penalty(example.learned_clip(x, alpha), x, alpha)
    expected = penalty(torch.minimum(x.relu(), alpha), x, alpha)
    assert all(gradient.abs().sum() > 0 for gradient in found)
    torch.testing.assert_close(found, expected)


def test_in_half_precision_alpha_still_has_its_gradient(example: ModuleType) -> None:
    """As in a job with `precision: bf16`, where x is a half and alpha, a parameter, is not."""
    layer = example.LearnedClip(1.1)  # which bfloat16 cannot hold
    x = torch.tensor([0.5, 2, 3], dtype=torch.bfloat16)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert (layer.alpha.grad.dtype, layer.alpha.grad.item()) == (torch.float32, 2)


def test_its_ready_job_trains_and_the_graph_shows_it(pipeline: Pipeline, home: Home, tmp_path: Path) -> None:
    shown = {**NOTHING_SHOWN, "graph": True, "histograms": True}
    changes = [part for kind, value in shown.items() for part in ("--set", f"log.{kind}={str(value).lower()}")]
    home.modules.mkdir(parents=True)
    (home.modules / FILE.name).write_bytes(FILE.read_bytes())
    job = ROOT / "jobs" / "own_operation.yaml"
    done = pipeline("run", job, *changes, "--set", "train.epochs=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("test accuracy ")[2].split()[0]) > 95
    (path,) = home.runs.glob("*/events.*")
    events = list(EventFileLoader(str(path)).Load())
    (graph,) = (GraphDef.FromString(event.graph_def) for event in events if event.graph_def)
    own = [node for node in graph.node if node.op == "prim::PythonOp"]
    assert [node.name.rpartition("/")[0] for node in own] == [f"ClipNet/LearnedClip[clip{n}]" for n in (1, 2)]
    assert "module :  own_operation" in own[0].attr["attr"].s.decode()
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"weights/clip1/alpha", "weights_gradients/clip1/alpha"} <= tags
