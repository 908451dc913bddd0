"""Code of the user's own, tried before it is trained with: each kind, right and wrong, and where it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from own_code import FILES, job, spec_with
from torch import nn

from pipeline.errors import OwnCodeError
from pipeline.training import parts, rehearsal
from pipeline.training.rehearsal import Images

DIGITS = Images(num_classes=10, channels=1, image_size=8)
HEAD = "import torch\nfrom torch import nn\n"

RIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "a loss": (
        "def code(logits, labels, power: float = 1.0): return nn.functional.cross_entropy(logits, labels) ** power\n",
        {"train": {"loss": {"name": "mine:code", "power": 2}}},
    ),
    "a loss's class": (
        "class code(nn.Module):\n"
        "    def __init__(self, num_classes, label_smoothing):\n"
        "        super().__init__()\n"
        "        self.register_buffer('weight', torch.ones(num_classes))\n"
        "    def forward(self, logits, labels): return nn.functional.cross_entropy(logits, labels, self.weight)\n",
        {"train": {"loss": {"name": "mine:code"}}},
    ),
    "an optimizer": (
        "class code(torch.optim.SGD):\n"
        "    def __init__(self, params, lr: float = 0.1):\n"
        "        super().__init__(params, lr=lr)\n",
        {"train": {"optimizer": {"name": "mine:code"}}},
    ),
    "a schedule": (
        "def code(step, steps, power: int = 2): return (1 - step / steps) ** power\n",
        {"train": {"schedule": {"name": "mine:code"}}},
    ),
    "a schedule's class": (
        "class code:\n"
        "    def __init__(self, steps): self.steps = steps\n"
        "    def __call__(self, step): return 1 - step / self.steps\n",
        {"train": {"schedule": {"name": "mine:code"}}},
    ),
    "an augmentation": (
        "def code(images, draws, p: float = 0.5):\n"
        "    chosen = draws.uniform() < p\n"
        "    return torch.where(chosen[:, :, None, None], 255 - images, images)\n",
        {"data": {"augment": [{"name": "mine:code", "p": 1}]}},
    ),
    "an augmentation's class": (
        "class code(nn.Module):\n"
        "    def __init__(self, by: int = 1):\n"
        "        super().__init__()\n"
        "        self.by = by\n"
        "    def forward(self, images, fill): return images.roll(self.by, 1)\n",
        {"data": {"augment": ["mine:code"]}},
    ),
}


def errors(tmp_path: Path, files: dict[str, str], **sections: Any) -> list[tuple[str, str]]:
    spec = spec_with(tmp_path / "modules", files, **sections)
    return [(at, str(error)) for at, error in rehearsal.rehearse(spec, DIGITS)]


def test_a_model_that_works_passes_and_disturbs_no_random_numbers(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    assert errors(tmp_path, FILES) == []
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", RIGHT)
def test_what_works_passes(tmp_path: Path, kind: str) -> None:
    code, sections = RIGHT[kind]
    assert errors(tmp_path, {**FILES, "mine.py": HEAD + code}, **sections) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "class Net(nn.Linear):\n    def __init__(self): super().__init__(8, 8)\n"
            "    def forward(self, x): return super().forward(x[:, 0, 0])\n",
            "modules/mine.py:3: Net gives (2, 8) for 2 images of 10 classes; it must give (2, 10)",
        ),
        (
            "class Net(nn.Linear):\n    def __init__(self): super().__init__(8, 8)\n"
            "    def forward(self, x): return {'logits': x}\n",
            "modules/mine.py:3: Net gives a dict for 2 images of 10 classes; it must give (2, 10)",
        ),
        (
            "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.fc = nn.Linear(65, 10)\n    def forward(self, x):\n        return self.fc(x.flatten(1))\n",
            "modules/mine.py:8: in Net.forward: given images of (2, 1, 8, 8): RuntimeError: mat1 and mat2 shapes",
        ),
        (
            "class Net(nn.Module):\n    def forward(self, x): return x\n",
            "modules/mine.py:3: Net has no parameters to train",
        ),
        ("def Net(num_classes): return 3\n", "modules/mine.py:3: Net gives a int; a model is a torch.nn.Module"),
        (
            "class Net(nn.Module):\n    def __init__(self, num_classes):\n        raise OSError('no file')\n",
            "modules/mine.py:5: in Net.__init__: OSError: no file",
        ),
        (
            "class Net(nn.Module):\n    def __init__(self, num_classes): self.fc = nn.Linear(3, 3)\n",
            "modules/mine.py:4: in Net.__init__: AttributeError: cannot assign module before Module.__init__() call",
        ),
    ],
)
def test_a_wrong_model_is_told_with_file_and_line(tmp_path: Path, code: str, said: str) -> None:
    ((at, message),) = errors(tmp_path, {"mine.py": HEAD + code}, model={"name": "mine:Net"})
    assert at == "model"
    assert message.startswith(said)


@pytest.mark.parametrize(
    ("at", "code", "said"),
    [
        ("train.loss", "def code(logits, labels): return logits.sum(1)\n", "gives (4,); a loss is one number"),
        ("train.loss", "def code(logits, labels): return 3.0\n", "gives a float; a loss is one number"),
        ("train.loss", "def code(logits, labels): return logits.detach().sum()\n", "that no gradient comes from"),
        ("train.loss", "def code(logits, labels): return logits.sum() / 0\n", "inf for logits of usual size"),
        (
            "train.loss",
            "class code(nn.Linear):\n    def __init__(self): super().__init__(10, 1)\n"
            "    def forward(self, logits, labels): return super().forward(logits).sum()\n",
            "has parameters of its own, which nothing would train",
        ),
        ("train.optimizer", "def code(params, lr: float = 1): return 3\n", "gives a int; an optimizer is a torch"),
        ("train.schedule", "def code(step): return -1\n", "gives -1 at step 0 of 100; a schedule gives a factor"),
        ("train.schedule", "def code(step): return 1 / (step - 50)\n", "gives -0.02 at step 0"),
        ("train.schedule", "def code(step): return 1 / step\n", "at step 0 of 100: ZeroDivisionError"),
        ("data.augment", "def code(images): return images.float()\n", "gives torch.float32 (2, 8, 8, 1); of images it"),
        ("data.augment", "def code(images): return images[:1]\n", "gives torch.uint8 (1, 8, 8, 1); of images it"),
        ("data.augment", "def code(images): return images.add_(1)\n", "changes the images that it is given"),
    ],
)
def test_other_code_that_is_wrong_is_told_too(tmp_path: Path, at: str, code: str, said: str) -> None:
    room, _, section = at.partition(".")
    value = [{"name": "mine:code"}] if section == "augment" else {"name": "mine:code"}
    ((where, message),) = errors(tmp_path, {**FILES, "mine.py": HEAD + code}, **{room: {section: value}})
    assert where.startswith(at)
    assert message.startswith("modules/mine.py:")
    assert said in message


@pytest.mark.parametrize(
    ("code", "sections", "said"),
    [
        (
            "class code(nn.Module):\n    def __init__(self, num_classes):\n        super().__init__()\n"
            "        self.fc = nn.Linear(64, num_classes)\n    def forward(self, x): return self.fc(x.flatten(1))\n"
            "    def train(self, mode=True): raise ValueError('no')\n",
            {"model": {"name": "mine:code"}},
            "in code.train: ValueError: no",
        ),
        (
            "class code(nn.Linear):\n    def __init__(self, num_classes): super().__init__(8, num_classes)\n"
            "    def forward(self, x): return super().forward(x[:, 0, 0])\n"
            "    def get_extra_state(self): return object()\n    def set_extra_state(self, state): pass\n",
            {"model": {"name": "mine:code"}},
            "its state cannot be kept in a checkpoint",
        ),
        (
            "import numpy as np\nclass code(torch.optim.SGD):\n    def __init__(self, params, lr: float = 0.1):\n"
            "        super().__init__(params, lr=lr)\n        self.param_groups[0]['x'] = np.float64(3)\n",
            {"train": {"optimizer": {"name": "mine:code"}}},
            "its state cannot be kept in a checkpoint",
        ),
        ("class code: pass\n", {"data": {"augment": ["mine:code"]}}, "TypeError: "),
        (
            "raise KeyboardInterrupt\ndef code(step): pass\n",
            {"train": {"schedule": {"name": "mine:code"}}},
            "Interrupt",
        ),
        (
            "class Odd(Exception):\n    def __str__(self): raise ValueError\ndef code(step): raise Odd\n",
            {"train": {"schedule": {"name": "mine:code"}}},
            "at step 0 of 100: Odd",
        ),
    ],
)
def test_whatever_it_raises_and_whenever_is_told(
    tmp_path: Path, code: str, sections: dict[str, Any], said: str
) -> None:
    ((_, message),) = errors(tmp_path, {**FILES, "mine.py": HEAD + code}, **sections)
    assert message.startswith("modules/mine.py:")
    assert said in message


def test_layers_that_get_their_shape_from_the_first_images_work(tmp_path: Path) -> None:
    code = "def Net(num_classes): return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))\n"
    spec = spec_with(tmp_path, {"mine.py": HEAD + code}, model={"name": "mine:Net"})
    model = parts.build_model(spec, num_classes=3, channels=1, image_size=8)
    assert model.training
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(3, 64), (3,)]


def test_an_optimizer_may_look_at_its_parameters_twice(tmp_path: Path) -> None:
    code = (
        "def Twice(parameters, lr: float = 0.1):\n"
        "    decay, others = ([p for p in parameters if (p.ndim > 1) == is_wide] for is_wide in (True, False))\n"
        "    return torch.optim.SGD([{'params': decay}, {'params': others}], lr=lr)\n"
    )
    spec = spec_with(tmp_path, {**FILES, "mine.py": HEAD + code}, train={"optimizer": {"name": "mine:Twice"}})
    model = nn.Linear(3, 3)
    optimizer = parts.build_optimizer(spec, model.parameters(), fused=False)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    files = {"mine.py": f"{HEAD}def Net(num_classes): return 3\ndef code(logits, labels): return 3.0\n"}
    found = errors(tmp_path, files, model={"name": "mine:Net"}, train={"loss": {"name": "mine:code"}})
    assert [at for at, _ in found] == ["model", "train.loss"]


def test_images_of_which_nothing_is_known_are_not_guessed(tmp_path: Path) -> None:
    """A network for images of one size is right for its dataset, which is not read to validate a job file."""
    files = {"mine.py": f"{HEAD}class Net(nn.Linear):\n    def __init__(self): super().__init__(65, 3)\n"}
    spec = spec_with(tmp_path, files, model={"name": "mine:Net"}, data={"name": "image_folder", "path": "x"})
    assert rehearsal.known_images(spec) is None
    assert list(rehearsal.rehearse(spec, None)) == []
    with pytest.raises(OwnCodeError, match=r"Net\.forward|given images of"):
        rehearsal.require(spec, DIGITS)


def test_a_process_answers_whatever_the_code_prints() -> None:
    files = {"mine.py": f"print('hello')\n{HEAD}def Net(num_classes): return print('again')\n"}
    request = {"spec": job(model={"name": "mine:Net"}), "files": files, "label": "m", "root": "/nowhere"}
    command = [sys.executable, "-m", "pipeline.training.rehearsal"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["model", "m/mine.py:4: Net gives None; a model is a torch.nn.Module"]]
    assert done.stderr == "hello\nagain\n"
