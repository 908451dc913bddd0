"""Modules of a user's own for tests: a small network, and jobs that name it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quick import NOTHING_SHOWN

from pipeline.jobfile import own_modules
from pipeline.jobfile.spec import Spec

LAYERS = """
import torch
from torch import nn


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)
"""

MODEL = """
from typing import Annotated

from pydantic import Field
from torch import nn

from my_layers import Swish


class SmallNet(nn.Module):
    def __init__(self, num_classes, channels, width: Annotated[int, Field(ge=1, le=64)] = 8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3),
            nn.BatchNorm2d(width),
            Swish(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(9 * width, num_classes),
        )

    def forward(self, images):
        return self.layers(images)
"""

FILES = {"my_layers.py": LAYERS, "my_models.py": MODEL}


def job(**sections: Any) -> dict[str, Any]:
    """A job of a second on the digits, with the small network unless it says otherwise."""
    given: dict[str, Any] = {
        "name": "own",
        "model": {"name": "my_models:SmallNet"},
        "data": {"name": "digits", "batch_size": 64},
        "train": {"epochs": 2, "optimizer": {"name": "adamw", "lr": 3e-3}, "deterministic": True},
        "log": {"every": 10, **NOTHING_SHOWN},
        "resources": {"device": "cpu", "retries": 0},
    }
    return {
        **given,
        **{key: {**given[key], **value} if isinstance(given[key], dict) else value for key, value in sections.items()},
    }


def spec_with(root: Path, files: dict[str, str], **sections: Any) -> Spec:
    """The job's spec, with these files as modules; `root` is where messages say that they lie."""
    with own_modules.using(own_modules.Modules("modules", root, files=files)):
        return Spec.model_validate_json(json.dumps(job(**sections)))


def write_modules(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
