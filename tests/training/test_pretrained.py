"""torchvision's models and their weights: fetched once, checked, and what is said where that cannot be."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision
from job_texts import errors
from PIL import Image
from quick import quick_spec

from pipeline.data.dataset import Dataset
from pipeline.data.splits import Split
from pipeline.errors import DataError
from pipeline.home.paths import DATA, Home
from pipeline.jobfile import frozen, torchvision_models
from pipeline.results import classifier
from pipeline.stop import Stop
from pipeline.training import pretrained
from pipeline.training.attempt import Attempt
from pipeline.training.job_dataset import load_dataset
from pipeline.training.parts import build_model
from pipeline.training.pretrained import Weights

SMALLEST = "torchvision/squeezenet1_1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def opener_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib keeps the first one that is made, with the proxies of then; other tests have others."""
    monkeypatch.setattr(urllib.request, "_opener", None)


def test_the_names_are_torchvisions() -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    assert sorted(torchvision_models.NAMES) == sorted(
        f"torchvision/{name}" for name in known if name not in ("inception_v3", "googlenet")
    )


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "vit_b_32"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_takes_any_number_of_classes_and_channels(name: str, channels: int) -> None:
    spec = quick_spec(model={"name": f"torchvision/{name}"}, data={"image_size": 64})
    model = build_model(spec, num_classes=7, channels=channels, image_size=64)
    assert model(torch.rand(2, channels, 64, 64)).shape == (2, 7)


def test_images_that_are_too_small_are_told() -> None:
    spec = quick_spec(model={"name": "torchvision/alexnet"}, data={"image_size": 32})
    with pytest.raises(DataError, match="'torchvision/alexnet' cannot take 32-pixel images"):
        build_model(spec, num_classes=7, channels=3, image_size=32)


def test_a_size_that_patches_do_not_divide_is_told() -> None:
    spec = quick_spec(model={"name": "torchvision/vit_b_32"}, data={"image_size": 40})
    with pytest.raises(DataError, match="cannot take 40-pixel images: Input shape indivisible by patch size"):
        build_model(spec, num_classes=7, channels=3, image_size=40)


def test_mistakes_in_a_job_file() -> None:
    text = "name: a\nmodel: {name: torchvision/resnet81, weights: default}\ndata: {name: cifar10}\n"
    (line,) = errors(text=text)
    assert "did you mean 'torchvision/resnet18'? (docs/job-files.md has the 78 that are known)" in line


def weights_at(folder: Path) -> Weights:
    """Weights of a network for a thousand classes, as a file that can be downloaded."""
    torch.manual_seed(7)
    file = folder / "there" / "weights.pth"
    file.parent.mkdir(exist_ok=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    named = file.rename(file.with_name(f"squeezenet-{digest}.pth"))
    return Weights(named.as_uri(), MEAN, STD)


def test_a_file_is_downloaded_once_and_checked(tmp_path: Path) -> None:
    weights, said = weights_at(tmp_path), list[str]()
    datasets = tmp_path / "datasets"
    first, second = (pretrained.fetch(weights, datasets, log=said.append) for _ in range(2))
    assert first == second == datasets / "weights" / weights.name
    assert [line.split()[0] for line in said] == ["downloading"]
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"is not torchvision's: its SHA-256 does not begin with {weights.digest}"):
        pretrained.fetch(weights, datasets, log=said.append)


def test_a_file_that_was_put_there_by_hand_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_at(tmp_path)
    there = tmp_path / "read-only" / "weights" / weights.name
    there.parent.mkdir(parents=True)
    there.write_bytes(Path(weights.url.removeprefix("file://")).read_bytes())
    monkeypatch.setenv(DATA, str(tmp_path / "read-only"))
    assert pretrained.fetch(weights._replace(url=f"https://nowhere/{weights.name}"), tmp_path / "d", log=print) == there


def test_where_there_is_no_network_it_is_said_what_goes_where(tmp_path: Path) -> None:
    weights = Weights((tmp_path / "nothing-0a1b2c3d.pth").as_uri(), MEAN, STD)
    with pytest.raises(DataError) as caught:
        pretrained.fetch(weights, tmp_path / "datasets", log=print)
    said = str(caught.value)
    assert f"{tmp_path}/datasets/weights/nothing-0a1b2c3d.pth" in said
    assert f"from {weights.url}, SHA-256 0a1b2c3d" in said
    assert list((tmp_path / "datasets" / "weights").iterdir()) == []


def test_torchvision_says_where_its_weights_are_and_how_their_images_were() -> None:
    spec = quick_spec(model={"name": "torchvision/resnet50", "weights": "default"}, data={"image_size": 64})
    weights = pretrained.wanted(spec)
    assert weights is not None
    assert (weights.digest, weights.mean, weights.std, weights.size) == ("11ad3fa6", MEAN, STD, 224)
    assert pretrained.wanted(quick_spec(model={"name": "torchvision/resnet50"}, data={"image_size": 64})) is None
    assert pretrained.wanted(quick_spec()) is None


@pytest.mark.parametrize("given", [None, 40])
def test_images_of_a_folder_are_made_as_large_as_those_of_the_weights(home: Home, given: int | None) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        file = home.datasets / "pictures" / name
        file.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), "red").save(file)
    model = {"name": "torchvision/efficientnet_b1", "weights": "default"}
    data = {"name": "image_folder", "path": "pictures", "batch_size": 2} | ({"image_size": given} if given else {})
    spec, said = quick_spec(model=model, data=data), list[str]()
    assert load_dataset(spec, home.datasets, log=said.append).train.image_size == (given or 240)
    assert ("images are made 240 pixels a side" in "\n".join(said)) == (given is None)


def test_images_of_a_built_in_set_are_left_as_they_are(home: Home) -> None:
    spec = quick_spec(model={"name": "torchvision/resnet50", "weights": "default"}, data={"image_size": 32})
    assert load_dataset(spec, home.datasets, log=print).train.image_size == 32


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalized_as_those_of_the_weights(channels: int) -> None:
    spec = quick_spec(model={"name": "torchvision/resnet50", "weights": "default"}, data={"image_size": 64})
    split = Split(torch.zeros(2, 8, 8, channels, dtype=torch.uint8), torch.tensor([0, 1]))
    dataset = Dataset(split, split, ("a", "b"), "", (0.1,) * channels, (0.2,) * channels, ())
    found = pretrained.normalized(dataset, spec)
    assert found.mean == (MEAN if channels == 3 else pytest.approx((0.449,)))
    assert found.std == (STD if channels == 3 else pytest.approx((0.226,)))


def test_a_job_is_fine_tuned_from_weights_to_a_model_in_use(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_at(tmp_path)
    monkeypatch.setattr(pretrained, "wanted", lambda _: weights)
    model = {"name": SMALLEST, "weights": "default", "freeze_epochs": 1}
    spec = quick_spec(epochs=1, model=model, data={"image_size": 32, "batch_size": 256})
    frozen.save(home.run("job"), spec)
    lines: list[str] = []
    result = Attempt(home, "job", 1, Stop(), lines.append).execute()
    assert result.outcome == "succeeded", result.why
    told = "\n".join(lines)
    assert "begins with 50 of 52 tensors" in told
    assert "classifier.1.weight (10, 512, 1, 1) (there (1000, 512, 1, 1))" in told
    manifest = json.loads(home.run("job").manifest.read_text())
    assert manifest["begun_with"]["file"] == str(home.datasets / "weights" / weights.name)
    assert manifest["dataset"]["mean"] == pytest.approx([0.449])
    trained = classifier.load(home.run("job"), "last").network.state_dict()
    there = torch.load(home.datasets / "weights" / weights.name, weights_only=True)
    assert torch.equal(trained["network.features.0.weight"], there["features.0.weight"]), "it was frozen"
    again = quick_spec(epochs=1, model={"name": SMALLEST, "init": "job"}, data={"image_size": 32, "batch_size": 256})
    monkeypatch.setattr(pretrained, "wanted", lambda _: None)
    frozen.save(home.run("second"), again)
    lines.clear()
    assert Attempt(home, "second", 1, Stop(), lines.append).execute().outcome == "succeeded"
    assert "begins with 52 of 52 tensors" in "\n".join(lines)
