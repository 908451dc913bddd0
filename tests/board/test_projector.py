"""What the projector is given: pixels, features, labels and thumbnails of the same held-out images."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from in_process import (  # noqa: F401 - digits and ordinary_kernels are fixtures
    digits,
    engine_of,
    loop_of,
    make_spec,
    ordinary_kernels,
    train_engine,
)
from PIL import Image
from quick import NOTHING_SHOWN
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch import nn

from pipeline.board import images, projector
from pipeline.board.writer import Board
from pipeline.data.dataset import Dataset
from pipeline.data.loader import Loader
from pipeline.data.splits import FileSplit, Split
from pipeline.stop import Stop
from pipeline.training.engine import Engine
from pipeline.training.evaluation import evaluate
from pipeline.training.features import LastFeatures
from pipeline.training.job_dataset import load_dataset


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


def numbers(path: Path) -> torch.Tensor:
    return torch.tensor([[float(cell) for cell in row] for row in table(path)])


def config_of(folder: Path) -> ProjectorConfig:
    return text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())


@pytest.fixture(scope="module")
def shown(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Path]:
    folder = tmp_path_factory.mktemp("run")
    spec = make_spec(train={"accumulate": 3, "precision": "bf16"}, log={**NOTHING_SHOWN, "embeddings": True})
    engine = engine_of(spec, digits)
    train_engine(engine, folder)
    return engine, folder


def rows_of(folder: Path, step: int) -> list[int]:
    return [int(row[2]) for row in table(folder / "projector" / f"labels-{step}.tsv")[1:]]


def test_at_least_a_hundred_images_are_shown_evenly_over_the_classes(
    shown: tuple[Engine, Path], digits: Dataset
) -> None:
    engine, folder = shown
    rows = rows_of(folder, engine.step)
    assert len(rows) == 250
    assert rows == sorted(set(rows))
    assert set(Counter(digits.test.labels[rows].tolist()).values()) == {25}


def test_pixels_are_the_images(shown: tuple[Engine, Path], digits: Dataset) -> None:
    engine, folder = shown
    images = digits.test.read(rows_of(folder, engine.step))
    pixels = numbers(folder / "projector" / "pixels.tsv")
    torch.testing.assert_close(pixels, images.flatten(1) / 255, rtol=0, atol=1e-4)


def test_labels_are_true_and_predicted_classes(shown: tuple[Engine, Path], digits: Dataset) -> None:
    engine, folder = shown
    predicted = evaluate(engine, Stop()).logits.argmax(1)
    header, *rows = table(folder / "projector" / f"labels-{engine.step}.tsv")
    assert header == ["label", "predicted", "index"]
    assert [row[0] for row in rows] == [digits.classes[digits.test.labels[int(row[2])]] for row in rows]
    assert [row[1] for row in rows] == [digits.classes[predicted[int(row[2])]] for row in rows]


def test_a_thumbnail_lies_where_the_projector_cuts_it(shown: tuple[Engine, Path], digits: Dataset) -> None:
    engine, folder = shown
    rows = rows_of(folder, engine.step)
    with Image.open(folder / "projector" / "sprite.png") as file:
        sprite = np.asarray(file)
    assert sprite.shape == (16 * 8, 16 * 8, 3)  # 16 x 16 cells hold 250
    for place, index in enumerate(rows):
        row, column = divmod(place, 16)
        cell = sprite[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert (cell == digits.test.images[index].expand(8, 8, 3).numpy()).all()


def test_the_config_names_files_of_the_same_images(shown: tuple[Engine, Path]) -> None:
    engine, folder = shown
    embeddings = config_of(folder).embeddings
    assert [e.tensor_name for e in embeddings] == ["features at step 16", "features at step 8", "pixels"]
    for embedding in embeddings:
        assert list(embedding.sprite.single_image_dim) == [8, 8]
        assert (folder / embedding.sprite.image_path).is_file()
        assert len(table(folder / embedding.metadata_path)) == 1 + len(table(folder / embedding.tensor_path)) == 251
    assert engine.step == 16


MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear head": ({"name": "cnn_bn"}, {}),
    "accumulated, bf16": ({"name": "cnn_bn"}, {"accumulate": 2, "precision": "bf16"}),
    "fp32": ({"name": "vgg", "widths": [8, "M", 8]}, {"precision": "fp32"}),
}


@pytest.mark.parametrize(("model", "train"), MODELS.values(), ids=MODELS)
def test_features_are_what_the_last_layer_is_given(model: Any, train: Any, digits: Dataset) -> None:
    engine = engine_of(make_spec(model, train=train), digits)
    indices = [0, 3, 7, 100, 359]
    features = evaluate(engine, Stop(), features_of=indices).features
    assert features is not None
    *_, layer = (module for module in engine.model.modules() if isinstance(module, nn.Linear))
    given: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _layer, inputs, _output: given.append(inputs[0]))
    evaluate(engine, Stop())
    handle.remove()
    assert torch.equal(features, torch.cat(given)[indices].float())
    assert layer._forward_pre_hooks == {}
    assert features.shape == (5, layer.in_features)


def given_to(model: nn.Module, images: torch.Tensor, indices: list[int], *, batch: int) -> torch.Tensor | None:
    with LastFeatures(model, indices) as features, torch.no_grad():
        for part in images.split(batch):
            model(part)
    return features.result(len(images))


IMAGES = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_of_a_convolution_features_are_means_over_the_image() -> None:
    first, last = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1)
    model = nn.Sequential(first, last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    features = given_to(model, IMAGES, [2, 5, 9], batch=4)
    assert features is not None
    torch.testing.assert_close(features, first(IMAGES)[[2, 5, 9]].mean((2, 3)).detach())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 192)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.layer(self.layer(images.flatten(1)))
        return values


class ByKeyword(Twice):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.layer(input=images.flatten(1))
        return values


@pytest.mark.parametrize("model", [nn.Flatten(), Twice(), ByKeyword()], ids=["no layer", "used twice", "by keyword"])
def test_a_network_whose_last_layer_tells_nothing_has_no_features(model: nn.Module) -> None:
    assert given_to(model, IMAGES, [2, 5, 9], batch=4) is None


def samples(size: int, channels: int, num: int = 5) -> projector.Samples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num, size, size, channels), generator=generator, dtype=torch.uint8)
    labels = torch.arange(num) % 2
    return projector.Samples(range(num), images, labels, 1 - labels, ("a\tb\nc", "é"))


def test_larger_images_are_shrunk_to_32_pixels(tmp_path: Path) -> None:
    given = samples(80, 3)
    projector.add_embeddings(tmp_path, given, None, step=1)
    expected = images.shrunk(given.images, 32)
    assert numbers(tmp_path / "projector" / "pixels.tsv").shape == (5, 32 * 32 * 3)
    torch.testing.assert_close(
        numbers(tmp_path / "projector" / "pixels.tsv"), expected.flatten(1) / 255, rtol=0, atol=1e-4
    )
    with Image.open(tmp_path / "projector" / "sprite.png") as sprite:
        assert sprite.size == (96, 96)
    assert [e.tensor_name for e in config_of(tmp_path).embeddings] == ["pixels"]


def test_a_class_name_does_not_break_its_row(tmp_path: Path) -> None:
    projector.add_embeddings(tmp_path, samples(4, 1), None, step=1)
    assert table(tmp_path / "projector" / "labels-1.tsv")[1:3] == [["a b c", "é", "0"], ["é", "a b c", "1"]]


def test_a_step_shown_twice_is_listed_once_and_later_ones_of_a_killed_attempt_are_not(tmp_path: Path) -> None:
    for step in (10, 20, 30, 20):
        projector.add_embeddings(tmp_path, samples(4, 1), torch.ones(5, 2), step=step)
    names = [e.tensor_name for e in config_of(tmp_path).embeddings]
    assert names == ["features at step 20", "features at step 10", "pixels"]


def test_features_too_many_for_a_browser_are_left_out_and_that_is_said(digits: Dataset, tmp_path: Path) -> None:
    spec = make_spec(train={"epochs": 1}, log={**NOTHING_SHOWN, "embeddings": True})
    engine = engine_of(spec, digits)
    engine.model = engine.network = nn.Sequential(nn.Upsample(scale_factor=12), nn.Flatten(), nn.Linear(96 * 96, 10))
    lines: list[str] = []
    with Board(tmp_path, first_step=0) as board:
        loop_of(engine, board, log=lines.append).train()
    (line,) = lines
    assert "9,216 values an image" in line
    assert [e.tensor_name for e in config_of(tmp_path).embeddings] == ["pixels"]


def folder_of_images(home: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for name in ("cat", "$dog$"):
            (home / "images" / split / name).mkdir(parents=True)
            for number in range(12):
                pixels = torch.randint(256, (40, 40, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(home / "images" / split / name / f"{number}.png")


def in_this_process(engine: Engine, split: Split | FileSplit) -> Loader:
    """A loader without processes of its own, which take seconds to start."""
    return Loader(
        split,
        batch_size=8,
        device=engine.setting.device,
        normalization=engine.dataset.normalization,
        dtype=engine.setting.dtype,
        augment=(),
        seed=0,
        shuffle=split is engine.dataset.train,
        num_readers=0,
    )


def test_images_that_stay_on_disk_are_shown_like_any_others(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    data = {"name": "image_folder", "image_size": 40, "batch_size": 8, "path": "images", "in_memory": "never"}
    everything = {**dict.fromkeys(NOTHING_SHOWN, True), "every": 1}
    spec = make_spec({"name": "vgg", "widths": [4]}, data, train={"epochs": 1}, log=everything)
    dataset = load_dataset(spec, tmp_path, log=str)
    assert isinstance(dataset.test, FileSplit)
    engine = engine_of(spec, dataset)
    engine.loader, engine.held_out_loader = (in_this_process(engine, split) for split in (dataset.train, dataset.test))
    train_engine(engine, tmp_path / "run")
    pixels = numbers(tmp_path / "run" / "projector" / "pixels.tsv")
    expected = images.shrunk(dataset.test.read(range(24)), 32).flatten(1) / 255
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-4)
    assert (tmp_path / "run" / "evaluation.json").exists()
