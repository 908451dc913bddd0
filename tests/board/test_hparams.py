"""The fields of a job file in the HParams dashboard, where runs of all jobs meet."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from in_process import make_spec
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from pipeline.board import hparams
from pipeline.board.writer import Board
from pipeline.jobfile import catalog
from pipeline.jobfile.spec import Spec

WIDTHS = {"name": "vgg", "widths": [64, "M", 8]}
VARIED = [
    make_spec(),
    make_spec(WIDTHS, train={"clip_grad_norm": 1, "channels_last": True, "compile": False, "fused": "auto"}),
    make_spec(
        {"name": "vgg", "dropout": 0.5, "batch_norm": True},
        {"image_size": 32},
        train={"clip_grad_norm": 0.5, "fused": True},
    ),
    make_spec(data={"augment": ["flip", {"name": "crop", "padding": 1}], "image_size": 32}),
    make_spec(train={"early_stopping": {"patience": 3}}),
    *(make_spec(train={"optimizer": {"name": name}}) for name in catalog.OPTIMIZERS),
    *(make_spec(train={"schedule": {"name": name}}) for name in catalog.SCHEDULES),
    make_spec(
        train={"schedule": {"name": "constant", "warmup_epochs": 1}, "label_smoothing": 0, "checkpoint_every": "5m"}
    ),
    *(
        Spec.model_validate_json(json.dumps({"name": "x", "model": {"name": "cnn_bn"}, "data": data}))
        for data in (
            {"name": "image_folder", "path": "5", "batch_size": 1024},
            {"name": "cifar100"},
            {"name": "mnist", "image_size": 64},
        )
    ),
]


def test_a_field_has_one_type_in_every_job() -> None:
    """A filter in the dashboard hides runs whose field is of another type."""
    types: dict[str, set[type]] = defaultdict(set)
    for spec in VARIED:
        for key, value in hparams.flatten(spec):
            types[key].add(type(value))
    assert {key: found for key, found in types.items() if found not in ({float}, {str})} == {}
    assert types["train.optimizer.lr"] == types["train.clip_grad_norm"] == types["model.depth"] == {float}
    assert types["train.fused"] == types["model.batch_norm"] == types["data.path"] == {str}


def test_what_is_learned_from_is_there_by_its_name_in_the_job_file() -> None:
    spec = make_spec(
        {"name": "vgg", "widths": [8, "M"]},
        {"augment": ["flip", {"name": "crop", "padding": 1}]},
        train={"optimizer": {"name": "adamw", "lr": 0.5, "betas": [0.5, 0.75]}, "compile": True},
    )
    found = dict(hparams.flatten(spec))
    expected = {
        "model.name": "vgg",
        "model.widths": "8 M",
        "data.augment": "flip crop(padding=1)",
        "data.batch_size": 64.0,
        "train.optimizer.name": "adamw",
        "train.optimizer.lr": 0.5,
        "train.optimizer.betas": "0.5 0.75",
        "train.compile": "true",
        "train.channels_last": "auto",
        "train.epochs": 2.0,
    }
    assert {key: found[key] for key in expected} == expected


def test_a_field_that_is_not_given_is_left_out_and_an_empty_list_is_none() -> None:
    found = dict(hparams.flatten(make_spec()))
    assert "train.clip_grad_norm" not in found
    assert "train.early_stopping" not in found
    assert "data.image_size" not in found
    assert found["data.augment"] == "none"


def written(folder: Path) -> dict[str, HParamsPluginData]:
    reader = EventAccumulator(str(folder))
    reader.Reload()
    content: dict[str, Any] = reader.PluginTagToContent("hparams")
    return {tag: HParamsPluginData.FromString(value) for tag, value in content.items()}


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_session_is_written_without_an_experiment(is_ended: bool, tmp_path: Path) -> None:
    """One would decide for all runs which fields there are."""
    with Board(tmp_path, first_step=0) as board:
        hparams.add_start(board, make_spec())
        if is_ended:
            hparams.add_end(board, step=46)
    found = written(tmp_path)
    ends = ["_hparams_/session_end_info"] if is_ended else []
    assert sorted(found) == [*ends, "_hparams_/session_start_info"]
    start = found["_hparams_/session_start_info"].session_start_info.hparams
    assert start["train.optimizer.lr"].number_value == 0.01
    assert start["model.name"].string_value == "cnn_bn"
    assert start.keys() == dict(hparams.flatten(make_spec())).keys()
    if is_ended:
        assert found["_hparams_/session_end_info"].session_end_info.status == 1  # success
